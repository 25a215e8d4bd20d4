"""The whole pipeline with a tiny bundle of real classes: frames, order, seeds, what may change."""

from __future__ import annotations

import itertools
import math
import threading
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from talkface.checkpoint import Bundle, instantiate, load_bundle, save_bundle
from talkface.errors import TalkfaceError
from talkface.experts.faces import KnownLandmarks
from talkface.media import Audio, VideoReader, VideoWriter
from talkface.pipelines import talking_film
from talkface.pipelines.talking_face import TalkingFacePipeline
from talkface.portrait.blend import ColourMatcher, blend_mask
from talkface.portrait.crop import AlignedCrop


def syllables(seconds: float, seed: int = 0) -> Audio:
    """Noise whose loudness and colour change ten times a second."""
    random = np.random.default_rng(seed)
    pieces = []
    for _ in range(math.ceil(seconds * 10)):
        noise = random.standard_normal(1600 + 40)
        smoothed = np.convolve(noise, np.ones(random.integers(1, 40)), "same")[:1600]
        pieces.append(smoothed / np.abs(smoothed).max() * random.random() ** 2)
    return Audio(np.concatenate(pieces).astype(np.float32)[: round(seconds * 16000)], 16000)


@pytest.fixture(scope="module")
def picture(draw_faces) -> np.ndarray:
    return draw_faces(160, 240, [(60, 20, 128)])


def frames(result) -> np.ndarray:
    return np.stack(list(result))


def test_same_seed_same_bytes_for_all_batch_sizes(tiny_pipeline, picture):
    sound = syllables(1.0)
    results = {size: frames(tiny_pipeline(sound, picture, seed=3, batch_size=size)) for size in (1, 3, 8, 64)}
    assert results[1].shape == (25, 160, 240, 3)
    for size in (3, 8, 64):
        assert np.array_equal(results[1], results[size]), size
    assert not np.array_equal(results[1], frames(tiny_pipeline(sound, picture, seed=4)))


def test_workers_paint_the_same_frames(tiny_bundle, drawn_face_finder, picture, tmp_path, draw_faces):
    """One thread of torch: another number may change the last bit of a frame."""
    clip = film(tmp_path / "a.mp4", draw_faces, count=25, missing=(5, 6, 7))
    sound = syllables(1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, three = (
            TalkingFacePipeline(load_bundle(tiny_bundle), "fp32", drawn_face_finder, group=4, workers=workers)
            for workers in (1, 3)
        )
        assert np.array_equal(frames(one(sound, picture)), frames(three(sound, picture)))
        options = {"film": clip, "reference": "window", "window": 6, "overlap": 2}
        assert np.array_equal(frames(one(sound, **options)), frames(three(sound, **options)))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "options", [{"eta": 1.0}, {"independent_noise": 0.3}, {"mode": "autoregressive", "eta": 1.0}]
)
def test_random_methods_obey_the_seed_too(tiny_pipeline, picture, options):
    sound = syllables(0.5)
    first, second = (frames(tiny_pipeline(sound, picture, batch_size=size, **options)) for size in (1, 8))
    assert np.array_equal(first, second)


def test_a_photograph_without_colours_speaks_without_colours(tiny_bundle, drawn_face_finder, picture):
    points = drawn_face_finder.find(picture)[0].points
    grey = np.repeat(picture.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    pipeline = TalkingFacePipeline(load_bundle(tiny_bundle), "fp32", KnownLandmarks(points))
    sound = syllables(0.2)
    made = frames(pipeline(sound, grey))
    assert (made != grey).any()
    assert (made == made[..., :1]).all()
    coloured = frames(pipeline(sound, picture))
    assert (coloured != coloured[..., :1]).any()


def test_a_result_can_be_iterated_again(tiny_pipeline, picture):
    result = tiny_pipeline(syllables(0.3), picture)
    assert np.array_equal(frames(result), frames(result))
    assert len(result) == result.num_frames == 8
    assert result.fps == 25


def test_outside_the_mask_the_picture_is_untouched(tiny_pipeline, picture, drawn_face_finder):
    result = frames(tiny_pipeline(syllables(0.4), picture, motion="none"))
    crop = AlignedCrop.from_landmarks(picture, drawn_face_finder.find(picture)[0].points, size=32)
    rows, columns = np.nonzero(blend_mask(32) > 0)
    corners = crop.to_source(
        np.array([[columns.min() - 2, rows.min() - 2], [columns.max() + 3, rows.max() + 3]])
    )
    (left, top), (right, bottom) = corners.round().astype(int)
    outside = np.ones(picture.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert outside.mean() > 0.5
    assert np.array_equal(result[:, outside], np.broadcast_to(picture[outside], result[:, outside].shape))
    assert np.abs(result[:, ~outside].astype(int) - picture[~outside]).max() > 20


def test_a_constant_sound_gives_a_picture_that_does_not_flicker(tiny_pipeline, picture):
    silence = Audio(np.zeros(8000, np.float32), 16000)
    windowed = frames(tiny_pipeline(silence, picture, motion="none"))
    assert np.array_equal(windowed, np.broadcast_to(windowed[0], windowed.shape))
    fresh = frames(tiny_pipeline(silence, picture, motion="none", independent_noise=1.0))
    assert not np.array_equal(fresh[0], fresh[1])


def test_the_mouth_follows_the_sound_and_later_sound_later(tiny_pipeline, picture, monkeypatch):
    # the correction of colours remembers earlier frames, which differ here
    monkeypatch.setattr(talking_film, "ColourMatcher", partial(ColourMatcher, inertia=0.0))
    spoken, pause = syllables(1.0).samples, np.zeros(3200, np.float32)
    sounds = [Audio(np.concatenate(parts), 16000) for parts in ([spoken, pause], [pause, spoken])]
    now, then = (frames(tiny_pipeline(sound, picture, crop=True, motion="none")) for sound in sounds)
    moved = np.abs(np.diff(now.astype(int), axis=0)).max(axis=(1, 2, 3))
    assert moved.mean() > 5, "the sound changes nothing"
    assert np.array_equal(then[9:25], now[4:20]), "0.2 s later are 5 frames"


def test_guidance_and_emotion_change_the_picture(tiny_pipeline, picture):
    sound = syllables(0.3)
    variants = [
        {},
        {"guidance_scale": 1.0},
        {"guidance_scale": {"audio": 1.0, "emotion": 3.0}, "emotion": "happy"},
        {"emotion": "happy"},
        {"emotion": 2},
        {"num_inference_steps": 4},
    ]
    results = [frames(tiny_pipeline(sound, picture, **options)) for options in variants]
    for (i, first), (j, second) in itertools.combinations(enumerate(results), 2):
        assert not np.array_equal(first, second), (variants[i], variants[j])


def film(path, draw, count=12, missing=(), move=0, rate=Fraction(25)):
    with VideoWriter(path, rate, crf=0) as writer:
        for k in range(count):
            writer.write(draw(160, 240, [] if k in missing else [(60 + move * k, 20, 128)]))
    return path


def test_in_a_film_frames_without_a_face_stay_and_later_mouths_keep_their_sound(
    tiny_pipeline, tmp_path, draw_faces
):
    sound = syllables(0.48)
    whole = film(tmp_path / "a.mp4", draw_faces)
    holed = film(tmp_path / "b.mp4", draw_faces, missing=(5, 6, 7))
    complete = frames(tiny_pipeline(sound, film=whole))
    result = tiny_pipeline(sound, film=holed)
    dubbed = frames(result)
    assert result.frames_without_face == 3
    source = list(VideoReader(holed))
    for k in range(12):
        if k in (5, 6, 7):
            assert np.array_equal(dubbed[k], source[k])
        else:
            assert np.abs(dubbed[k].astype(int) - source[k]).max() > 20
            # the same sound, picture and noise: only neighbours used for smoothing are others
            assert np.abs(dubbed[k].astype(float) - complete[k]).mean() < 0.05
    moved = np.abs(np.diff(complete.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert moved.mean() > 0.2, "frames that do not differ prove nothing about their order"


def test_windows_with_the_same_reference_give_what_one_reference_gives(tiny_pipeline, tmp_path, draw_faces):
    clip = film(tmp_path / "a.mp4", draw_faces)
    sound = syllables(0.48)
    one = frames(tiny_pipeline(sound, film=clip, reference="first"))
    many = frames(tiny_pipeline(sound, film=clip, reference="window", window=4, overlap=2))
    assert np.abs(one.astype(float) - many).mean() < 0.05
    sizes = [
        frames(tiny_pipeline(sound, film=clip, reference="window", window=4, overlap=2, batch_size=b))
        for b in (1, 8)
    ]
    assert np.array_equal(*sizes)


def test_the_square_face_of_a_film_keeps_its_place_in_time(tiny_pipeline, tmp_path, draw_faces):
    clip = film(tmp_path / "a.mp4", draw_faces, missing=(0, 1, 6))
    result = tiny_pipeline(syllables(0.48), film=clip, crop=True)
    squares = frames(result)
    assert squares.shape == (12, 32, 32, 3)
    assert "first 2 frames" in result.notes[0]
    assert np.array_equal(squares[6], squares[5]), "a frame without a face shows the last square"


def test_notes_say_what_was_decided(tiny_pipeline, tmp_path, draw_faces, picture):
    clip = film(tmp_path / "a.mp4", draw_faces)
    assert "stands still" in tiny_pipeline(syllables(2.0), film=clip).notes[0]
    two = draw_faces(160, 320, [(10, 20, 96), (120, 10, 128)])
    assert "2 faces" in tiny_pipeline(syllables(0.2), two).notes[0]
    assert tiny_pipeline(syllables(0.2), two, face=1).notes == []
    assert "silent" in tiny_pipeline(Audio(np.zeros(8000, np.float32), 16000), picture).notes[0]


def test_frames_are_made_when_they_are_asked_for(tiny_pipeline, picture):
    """The first frame of an hour comes at once, and leaving stops the work."""
    hour = Audio(np.tile(syllables(1.0).samples, 600), 16000)
    result = tiny_pipeline(hour, picture)
    assert result.num_frames == 15000
    with result.frames() as stream:
        assert next(stream).shape == picture.shape
    assert not [thread for thread in threading.enumerate() if thread.name == "talkface-sampler"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode: fast; allowed are windowed, autoregressive"),
        ({"seed": -1}, "seed: -1"),
        ({"eta": 2.0}, "eta: 2.0"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"num_inference_steps": 0}, "num_inference_steps: 0"),
        ({"num_inference_steps": 1001}, "allowed are 1 to 1000"),
        ({"guidance_scale": -1.0}, "guidance_scale of audio"),
        ({"guidance_scale": {"smell": 2.0}}, "guidance_scale: smell; allowed are audio, emotion, frames"),
        ({"guidance_scale": {"frames": 2.0}}, "drop rate 0"),
        ({"emotion": "bored"}, "emotion: bored; allowed are neutral"),
        ({"emotion": 8}, "emotion: 8"),
        ({"reference": "last"}, "reference: last"),
        ({"reference": "window"}, "films in windowed mode"),
        ({"fps": 0}, "frame rate: 0"),
        ({"face": 2}, "face: 2; allowed are 1 to 1"),
        ({"film": "x.mp4"}, "either image"),
        ({"image": None}, "either image"),
    ],
)
def test_arguments_out_of_range_are_one_clear_line(tiny_pipeline, picture, options, message):
    with pytest.raises(TalkfaceError) as error:
        tiny_pipeline(syllables(0.2), **({"image": picture} | options))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bundle_without_emotions_says_so(tiny_bundle, drawn_face_finder, picture):
    bundle = load_bundle(tiny_bundle)
    meta = {name: value for name, value in bundle.meta.items() if name != "emotions"}
    plain = Bundle(bundle.parts, bundle.specs, meta, bundle.folder, bundle.device)
    with pytest.raises(TalkfaceError, match="has no emotions"):
        TalkingFacePipeline(plain, "fp32", drawn_face_finder)(syllables(0.2), picture, emotion="happy")


def test_a_bundle_for_another_task_is_refused(tiny_bundle):
    with pytest.raises(TalkfaceError, match="no part 'network'"):
        TalkingFacePipeline(load_bundle(tiny_bundle, parts=["first_stage"]))


def test_mixed_precision_stays_close(tiny_bundle, drawn_face_finder, picture):
    sound = syllables(0.3)
    full, half = (
        frames(TalkingFacePipeline(load_bundle(tiny_bundle), name, drawn_face_finder)(sound, picture))
        for name in ("fp32", "bf16")
    )
    assert 0 < np.abs(full.astype(float) - half).mean() < 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_same_bytes_for_all_batch_sizes_on_cuda(tiny_bundle, drawn_face_finder, picture):
    pipeline = TalkingFacePipeline(load_bundle(tiny_bundle, "cuda"), "auto", drawn_face_finder)
    sound = syllables(2.0)
    results = [frames(pipeline(sound, picture, batch_size=size)) for size in (1, 8)]
    assert np.array_equal(*results)


def test_a_bundle_may_bring_a_network_for_the_mouth(tiny_bundle, tmp_path):
    plain = load_bundle(tiny_bundle)
    assert TalkingFacePipeline(plain).finder.mouth is None
    spec = {
        "class_path": "talkface.experts.mouth_network.MouthNetwork",
        "init_args": {"channels": [4, 4, 4, 8], "blocks": [0, 0, 0, 0], "image_size": 32},
    }
    parts = {**plain.parts, "mouth": instantiate(spec)}
    folder = save_bundle(tmp_path / "more", parts, {**plain.specs, "mouth": spec}, "# Tiny", plain.meta)
    finder = TalkingFacePipeline(load_bundle(folder)).finder
    assert finder.mouth.image_size == 32 and not finder.mouth.training
