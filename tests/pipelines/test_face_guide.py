"""The guide of a film, on a rendered person: sound moves the mouth, silence does not, films keep their pose."""

import numpy as np
import pytest
import torch

from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.scene import Scene, render
from talkface.errors import TalkfaceError
from talkface.experts.speech import ArticulationEncoder, LogMelEncoder
from talkface.head import ACTIONS, HeadModel
from talkface.head.emotions import emotion_actions
from talkface.media import Audio
from talkface.pipelines.face_guide import FaceGuide, crop_factor, moved
from talkface.pipelines.face_painter import NO_EMOTION
from talkface.pipelines.liveliness import Feeling, Liveliness
from talkface.pipelines.sources import Shot
from talkface.portrait.crop import AlignedCrop

SIZE = 128


@pytest.fixture(scope="module")
def frames():
    """Pictures uint8 and landmarks of a person who turns from -0.15 to 0.15 rad with closed lips."""
    head = HeadModel.load()
    pose = torch.zeros(3, 6)
    pose[:, 1] = torch.tensor([-0.15, 0.0, 0.15])
    drawn = render(head, sample_person(5, head), torch.zeros(3, 52), pose, Scene(3, jitter=0.0), size=160)
    return drawn.images.numpy(), drawn.landmarks.numpy()


def shot(frames, number, index=0, time=0.02):
    picture, points = frames[0][number], frames[1][number]
    return Shot(index, time, picture, AlignedCrop.from_landmarks(picture, points, SIZE), points)


def sound(*jaws):
    """Features at 50 Hz of an encoder that tells only the jaw; one value a feature."""
    encoder = ArticulationEncoder(["jawOpen"], channels=8, dilations=(1,), bands=8)
    return encoder, torch.tensor(jaws)[:, None]


def guide(frames, *jaws, number=1, **options):
    encoder, features = sound(*jaws)
    first = shot(frames, number)
    settings = {"still": True, "device": torch.device("cpu")} | options
    return FaceGuide(first.crop, first.points, encoder, features, 50.0, **settings)


def change(pictures, other):
    return (pictures[:, :, 70:115, 40:88] - other[:, :, 70:115, 40:88]).abs().mean(dim=(1, 2, 3))


def test_silence_shows_the_photograph_and_sound_opens_the_mouth(frames):
    drawn = guide(frames, 0.0, 0.0, 0.5, 0.5).draw([shot(frames, 1, 0, 0.01), shot(frames, 1, 1, 0.07)]).shown
    photograph = torch.from_numpy(shot(frames, 1).crop.image).permute(2, 0, 1)[None] / 127.5 - 1.0
    silent, speaking = change(drawn, photograph)
    assert silent < 0.03 < 0.06 < speaking
    assert torch.equal(drawn[:, :, :55], photograph[:, :, :55].expand(2, -1, -1, -1))


def test_a_film_keeps_its_own_pose(frames):
    """The frontal picture, animated to the poses of two other frames, is nearer to them than it was."""
    turned = [shot(frames, number, index) for index, number in enumerate((0, 2))]
    drawn = torch.cat([guide(frames, 0.0, 0.0, still=False).draw([one]).shown for one in turned])
    true = torch.stack([torch.from_numpy(one.crop.image).permute(2, 0, 1) / 127.5 - 1.0 for one in turned])
    frontal = torch.from_numpy(shot(frames, 1).crop.image).permute(2, 0, 1)[None] / 127.5 - 1.0
    ratios = change(drawn, true) / change(frontal, true)
    assert float(ratios.max()) < 1.0 and float(ratios.mean()) < 0.9


def test_an_encoder_without_articulation_is_refused(frames):
    first = shot(frames, 1)
    with pytest.raises(TalkfaceError, match="--guide none"):
        FaceGuide(
            first.crop, first.points, LogMelEncoder(8), torch.zeros(5, 16), 50.0,
            still=True, device=torch.device("cpu"),
        )  # fmt: skip


def test_crops_are_as_large_as_the_photograph_allows():
    assert [crop_factor(scale) for scale in (0.3, 1.0, 1.6, 2.4, 9.0)] == [2, 2, 2, 3, 3]


def test_actions_lie_over_the_resting_face(frames):
    one = guide(frames, 0.0, 0.8)
    first, last = one.actions([0.01, 0.03]).numpy()
    assert np.allclose(first, one.rest[0], atol=1e-5)
    assert last.max() > 0.7


def test_what_moved_is_found_with_its_surroundings_and_nothing_else():
    photograph = torch.zeros(1, 3, 100, 100)
    guides = photograph.repeat(2, 1, 1, 1)
    guides[1, :, 40:60, 40:60] = 0.5
    guides += 0.004 * torch.randn(guides.shape, generator=torch.Generator().manual_seed(0))
    found = moved(guides, photograph)
    assert found.shape == (2, 1, 100, 100) and float(found[0].max()) == 0.0
    assert float(found[1, 0, 38:62, 38:62].min()) == 1.0
    assert float(found[1, 0, :30].max()) == 0.0 and float(found[1, 0, :, 70:].max()) == 0.0


def test_behind_the_head_a_film_shows_itself_and_tells_the_network_the_reference(frames):
    """The corners below the face are background: the result has the frame's own, the network its reference's."""
    still, film = shot(frames, 1), shot(frames, 0)
    bright = np.clip(film.picture.astype(int) + 60, 0, 255).astype(np.uint8)
    film = Shot(0, 0.02, bright, AlignedCrop.from_matrix(bright, film.crop.matrix, SIZE), film.points)
    made = guide(frames, 0.0, 0.0, still=False).draw([film])
    corner = (slice(None), slice(None), slice(118, 127), slice(20, 26))
    own, reference = (
        torch.from_numpy(one.crop.image).permute(2, 0, 1)[None] / 127.5 - 1.0 for one in (film, still)
    )
    torch.testing.assert_close(made.shown[corner], own[corner], atol=0.02, rtol=0)
    torch.testing.assert_close(made.told[corner], reference[corner], atol=0.02, rtol=0)
    assert float(made.share[corner].max()) == 0.0 and float(made.share[0, 0, 85:95, 60:68].min()) > 0.99


def test_an_emotion_opens_and_spreads_the_mouth_and_speech_stays(frames):
    quiet = Audio(np.zeros(3200, np.float32), 16000)
    shots = [shot(frames, 1, 0, 0.01), shot(frames, 1, 1, 0.07)]
    feelings = [Feeling(NO_EMOTION, emotion_actions(name, 1.0), 1.0) for name in ("happy", "surprised")]
    plain, happy, surprised = (
        guide(frames, 0.0, 0.0, 0.5, 0.5, life=life)
        for life in (None, *(Liveliness("none", feeling, quiet, 0) for feeling in feelings))
    )
    times = [one.time for one in shots]
    jaw, smile, brow = (ACTIONS.index(name) for name in ("jawOpen", "mouthSmileLeft", "browInnerUp"))
    for one in (happy, surprised):
        opened = one.actions(times)[1] - one.actions(times)[0]
        assert opened[jaw] == pytest.approx(
            float(plain.actions(times)[1, jaw] - plain.actions(times)[0, jaw]), abs=0.02
        )
    assert happy.actions(times)[0, smile] > plain.actions(times)[0, smile] + 0.4
    assert surprised.actions(times)[0, jaw] > plain.actions(times)[0, jaw] + 0.1
    assert torch.equal(surprised.actions(times)[:, brow], plain.actions(times)[:, brow]), (
        "brows are not the guide's"
    )
    assert change(happy.draw(shots[:1]).shown, plain.draw(shots[:1]).shown) > 0.03
