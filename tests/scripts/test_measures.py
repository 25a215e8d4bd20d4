"""The pure parts of the measuring scripts: sentences, dictated actions, noise, tables, errors."""

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from dubbed_films import in_frame
from evaluate_actions import STEPS, as_actions, commands, face_tile, witnesses
from evaluate_actions import main as evaluate_actions
from evaluate_dubbing import DUBBED, SEAMS, restlessness, skin, table
from evaluate_noise import babble, compare, mix, noisy, pink_noise
from forced_alignment import align, grid_sentence
from measuring import (
    cell,
    dictated,
    dictation,
    drawn_gaps,
    files_in,
    markdown,
    mean_cell,
    positive,
    read_face,
    save,
    tidy,
)

from talkface.data.synthetic.voices import Voice, speak
from talkface.errors import TalkfaceError
from talkface.experts.speech_articulation import ArticulationEncoder
from talkface.head.fit import FittedHead, HeadFitter
from talkface.head.model import ACTIONS, HeadModel
from talkface.media import Audio, write_image
from talkface.metrics.articulation import BILABIALS
from talkface.metrics.commands import response
from talkface.portrait.blend import blend_mask
from talkface.portrait.crop import AlignedCrop

JAW, SMILE = ACTIONS.index("jawOpen"), [ACTIONS.index(f"mouthSmile{side}") for side in ("Left", "Right")]


def test_sentences_of_the_grid_corpus():
    assert grid_sentence("bbaf2n") == "bin blue at f two now"
    assert grid_sentence("id2_vcd_swwp2s") == "set white with p two soon"
    assert grid_sentence("pgizzp") == "place green in z zero please"
    for name in ("holiday", "bbaw2n", "n"):  # GRID has no letter w
        with pytest.raises(TalkfaceError, match="not a name of the GRID corpus"):
            grid_sentence(name)


def tiny_encoder() -> ArticulationEncoder:
    encoder = ArticulationEncoder(["jawOpen", "mouthSmile"], channels=8, dilations=[1], bands=8)
    encoder.mean.copy_(torch.tensor([0.2, 0.1]))
    encoder.std.copy_(torch.tensor([0.1, 0.05]))
    return encoder


def test_features_that_say_given_actions():
    encoder = tiny_encoder()
    told = torch.zeros(3, len(ACTIONS))
    told[1, JAW] = 0.5
    told[2, SMILE] = 0.4
    told[2, ACTIONS.index("browInnerUp")] = 1.0  # nothing that it could say
    features = encoder.from_actions(told, ACTIONS)
    assert torch.allclose(features, torch.tensor([[-2.0, -2.0], [3.0, -2.0], [-2.0, 6.0]]))
    back = encoder.to_actions(features, ACTIONS)
    told[2, ACTIONS.index("browInnerUp")] = 0.0
    assert torch.allclose(back, told, atol=1e-6)


def test_dictation_holds_each_command_within_the_limit():
    told = np.zeros((2, len(ACTIONS)), np.float32)
    told[1, JAW] = 1.0
    features = dictation(tiny_encoder(), told, 2.0, limit=6.0)
    assert features.shape == (50, 2)
    assert features[24].tolist() == pytest.approx([-2, -2]) and features[25].tolist() == [6, -2]
    assert dictation(tiny_encoder(), told, 2.0)[25, 0] == pytest.approx(8)


def test_dictation_wants_an_encoder_that_tells_actions(tiny_pipeline):
    with (
        pytest.raises(TalkfaceError, match=r"LogMelEncoder.*give a bundle with an ArticulationEncoder"),
        dictated(tiny_pipeline, np.zeros((1, 52), np.float32), 2.0, 6.0),
    ):
        pass


def test_drawn_lips_part_evenly_with_the_jaw_and_never_less_than_nothing():
    fitter = HeadFitter(HeadModel.load())
    person = FittedHead(
        rotation=torch.eye(3)[None],
        scale=torch.full((1,), 1000.0),
        translation=torch.full((1, 2), 128.0),
        identity=torch.zeros(1, len(fitter.identity)),
        actions=torch.zeros(1, len(ACTIONS)),
        error=torch.zeros(1),
    )
    told = torch.zeros(6, len(ACTIONS))
    told[:5, JAW] = torch.linspace(0, 1, 5)
    told[5, ACTIONS.index("mouthClose")] = 0.5  # lips on each other
    gaps = drawn_gaps(fitter, person, told).numpy()
    assert gaps[5] == 0 and gaps[4] > 0.2
    assert response(np.linspace(0, 1, 5), gaps[:5])[0] > 0.999
    larger = replace(person, scale=2 * person.scale)
    assert np.allclose(drawn_gaps(fitter, larger, told).numpy(), gaps, atol=1e-6)


def test_witnesses_of_the_jaw():
    told = np.linspace(0, 1, STEPS["jawOpen"])
    seen = witnesses([*(0.3 * told), 0.9], told**2)
    assert seen["drawn correlation"] == pytest.approx(1)
    assert 0.9 < seen["second correlation"] < 0.99
    assert math.isnan(witnesses([], told)["drawn correlation"])
    lost = np.where(told > 0.9, np.nan, told)
    assert math.isnan(witnesses([], lost)["second correlation"])


def test_commands_are_ramps_of_the_actions():
    told = commands()
    rows = as_actions(told)
    assert rows.shape == (sum(STEPS.values()) + 1, len(ACTIONS))
    jaw = [row[JAW] for row, (name, _) in zip(rows, told, strict=True) if name == "jawOpen"]
    assert jaw == pytest.approx(np.linspace(0, 1, 9))
    smiles = [row[SMILE].tolist() for row, (name, _) in zip(rows, told, strict=True) if name == "mouthSmile"]
    assert smiles[0] == [0, 0] and smiles[-1] == [1, 1]
    assert (np.count_nonzero(rows, axis=1) <= 2).all()


def test_face_tile_shows_the_face_in_the_middle():
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[40:60, 200:220] = 255
    tile = face_tile(picture, np.array([[200.0, 40.0], [220.0, 60.0]]))
    assert tile[tile.shape[0] // 2, tile.shape[1] // 2].tolist() == [255] * 3
    assert tile[0, 0].max() < 10


def test_noise_is_as_loud_as_asked():
    random = np.random.default_rng(0)
    speech = (0.1 * np.sin(np.arange(16000) / 9)).astype(np.float32)
    noise = pink_noise(16000, random)
    added = mix(speech, noise, 10.0) - speech
    assert 20 * np.log10(speech.std() / added.std()) == pytest.approx(10, abs=0.01)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[n : 2 * n].sum() for n in (500, 1000, 2000, 4000)]
    assert max(octaves) / min(octaves) < 1.5
    loud = mix(speech * 9, noise, 0.0)
    assert np.abs(loud).max() <= 1


def test_babble_is_made_of_the_other_voices_equally_loud():
    random = np.random.default_rng(0)
    slow, fast = (np.sin(np.arange(900) * rate) for rate in (0.1, 1.0))
    spectrum = np.abs(np.fft.rfft(babble(6283, [slow, 50 * fast], random)))
    assert babble(100, [slow, fast], random).std() == pytest.approx(1, abs=1e-5)
    peaks = [spectrum[k - 20 : k + 20].max() for k in (100, 1000)]
    assert 0.3 < peaks[0] / peaks[1] < 3


def test_each_sound_is_compared_with_its_clean_self():
    random = np.random.default_rng(0)
    voices = [random.standard_normal(400).astype(np.float32) * 0.1 for _ in range(3)]
    sounds = noisy(voices, 1, ["pink", "babble"], 10.0, random)
    assert list(sounds) == ["clean", "pink", "babble"] and sounds["clean"] is voices[1]
    assert compare(sounds, "clean", "jaw") == {"jaw correlation": pytest.approx(1), "jaw amplitude": 1}
    values = compare(sounds, "pink", "gap")
    assert values["gap correlation"] == pytest.approx((1 / 1.1) ** 0.5, abs=0.05)
    assert values["gap amplitude"] == pytest.approx(1.1**0.5, abs=0.05)


def test_the_mask_of_a_crop_lies_where_the_crop_was_cut():
    picture = np.zeros((200, 240, 3), np.uint8)
    crop = AlignedCrop.from_matrix(picture, np.array([[0.5, 0, -20.0], [0, 0.5, -10.0]]), 64)
    weight = in_frame(blend_mask(64), crop)
    assert weight.shape == (200, 240) and weight.max() > 0.99
    y, x = np.nonzero(weight > 0.5)
    inside = crop.to_crop(np.stack([x, y], axis=1) + 0.5)
    assert inside.min() > 0 and inside.max() < 64 and inside[:, 1].min() > 0.45 * 64


def test_restless_skin_is_found_on_its_side_of_the_mask():
    regions = skin()
    assert not (regions["inside"] & regions["outside"]).any()
    assert (blend_mask(128)[regions["outside"]] == 0).all() and (
        blend_mask(128)[regions["inside"]] > 0.5
    ).all()
    frames = np.full((4, 128, 128, 3), 100, np.uint8)
    frames[1::2, 64:] = 104
    crops = [AlignedCrop.from_matrix(frame, np.array([[1.0, 0, 0], [0, 1.0, 0]]), 128) for frame in frames]
    moves = restlessness(frames, crops)
    assert moves["outside"] == 0 and 3 < moves["inside"] <= 4


def test_table_of_dubbed_films():
    clips = [{"psnr": 30.0, "outside": 0, "border": 1.0}, {"psnr": 32.0, "outside": 3, "border": 2.0}]
    lines = table({"warp": clips}, DUBBED).splitlines()
    assert lines[0] == "| film | mouth PSNR (dB) |" and lines[2].startswith("| warp | 31.00 [30.00, 32.00] |")
    assert table({"warp": clips}, SEAMS).splitlines()[2] == "| warp | 1.50 [1.00, 2.00] | 3 |"


def test_cells_and_files(tmp_path, capsys):
    assert (
        cell(0.12345) == "0.123"
        and cell(float("nan")) == "–"
        and cell(None) == "–"
        and cell(float("inf")) == "∞"
    )
    assert mean_cell([1.0, float("nan")], "{:.1f}") == "1.0 [1.0, 1.0]" and mean_cell([]) == "–"
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    save(
        tmp_path / "new", "x", "text", {"curve": np.array([0.5, np.nan]), "at": Path("a"), "n": np.float32(2)}
    )
    assert capsys.readouterr().out == "text\n"
    assert json.loads((tmp_path / "new" / "x.json").read_text()) == {
        "curve": [0.5, None],
        "at": "a",
        "n": 2.0,
    }
    assert tidy({"n": np.int64(3), "yes": True}) == {"n": 3, "yes": True}
    with pytest.raises(TalkfaceError, match="is not a folder"):
        files_in(tmp_path / "none", {".wav"}, "--speech")
    with pytest.raises(TalkfaceError, match=r"holds 0 files of \.wav; at least 2 needed"):
        files_in(tmp_path, {".wav"}, "--speech", least=2)


def test_counts_are_positive():
    assert positive("12") == 12
    for text in ("0", "-1", "2.5", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match="allowed are whole numbers from 1 up"):
            positive(text)


def test_pictures_by_name(tmp_path):
    write_image(tmp_path / "face.png", np.full((8, 9, 3), 7, np.uint8))
    name, picture = read_face(str(tmp_path / "face.png"))
    assert name == "face" and picture.shape == (8, 9, 3)
    with pytest.raises(TalkfaceError, match="does not exist"):
        read_face("nowhere.png")


def test_a_missing_judge_is_one_clear_error(tmp_path, tiny_bundle):
    write_image(tmp_path / "face.png", np.full((64, 64, 3), 7, np.uint8))
    with pytest.raises(TalkfaceError, match=r"face_landmarker\.task"):
        evaluate_actions(
            [str(tmp_path / "face.png"), "--task", str(tmp_path / "no.task"), "--bundle", str(tiny_bundle)]
        )


def test_aligned_closures_of_a_known_voice():
    pytest.importorskip("pocketsphinx")
    voice = Voice.list("test")[0]
    said = speak(voice, "Olive loved the wooden thumb on five big boats.")
    sound = Audio(said.samples, 16000)
    exact = [phone for phone in said.phonemes if phone[0] in BILABIALS]
    aligned = [phone for phone in align(sound, said.text) if phone[0] in BILABIALS]
    assert [name for name, *_ in aligned] == ["M", "B", "B"]
    for (_, start, end), (_, begin, stop) in zip(aligned, exact, strict=True):
        assert abs(end - stop) < 0.06 and start < stop and begin < end
    with pytest.raises(TalkfaceError, match="'xyzzyq' is not in the dictionary"):
        align(sound, "xyzzyq")
