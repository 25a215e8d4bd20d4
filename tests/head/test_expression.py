"""Speech over expressions: lips that must close do, and a smiling photograph can be silent."""

import numpy as np
import pytest
import torch

from talkface.head import ACTIONS, HeadModel
from talkface.head.expression import calmed, combine, commanded, lip_distance, resting_actions, speak_over
from talkface.head.fit import HeadFitter

JAW, SMILE, PRESS, CLOSE = (
    ACTIONS.index(name) for name in ("jawOpen", "mouthSmileLeft", "mouthPressLeft", "mouthClose")
)


@pytest.fixture(scope="module")
def head():
    return HeadModel.load()


def test_a_held_closure_closes_an_open_expression(actions):
    held = actions(mouthPress=0.3).numpy()
    surprised = actions(jawOpen=0.5).numpy()
    assert combine(held, surprised)[0, JAW] < 0.05
    assert combine(np.zeros_like(held), surprised)[0, JAW] == pytest.approx(0.5)


def test_rest_is_kept_by_speech_that_closes(actions):
    """The jaw that the fit saw in closed lips stays: taking it back would press the lips into each other."""
    rest = actions(jawOpen=0.2).numpy()
    assert speak_over(actions(mouthPress=0.3).numpy(), rest)[0, JAW] == pytest.approx(0.2)


def test_a_pucker_takes_the_smile_back(actions):
    rest = actions(mouthSmile=0.5).numpy()
    calm = speak_over(actions().numpy(), rest)[0, SMILE]
    round_lips = speak_over(actions(mouthPucker=0.8).numpy(), rest)[0, SMILE]
    assert calm == pytest.approx(0.5) and round_lips < 0.25


def test_commands_take_the_place_of_an_expression(actions):
    smiling, wide = actions(mouthSmile=0.9).numpy(), actions(mouthSmile=0.3).numpy()
    silent, smile, pucker = (
        commanded(actions(**told).numpy(), smiling)[0]
        for told in ({}, {"mouthSmile": 1.0}, {"mouthPucker": 1.0})
    )
    assert silent[SMILE] <= 0.0 and pucker[SMILE] <= 0.0
    assert commanded(actions().numpy(), wide)[0, SMILE] == pytest.approx(0.2), "how the face is built"
    assert smile[SMILE] > 1.0 and pucker[ACTIONS.index("mouthPucker")] > 1.0


@pytest.mark.parametrize(
    "wanted",
    [{"jawOpen": 0.5}, {"mouthSmile": 0.6, "mouthUpperUp": 0.5, "mouthLowerDown": 0.4, "jawOpen": 0.1}],
)
def test_an_open_mouth_rests_closed(head, wanted, actions, posed):
    fitter = HeadFitter(head)
    _, points = posed(head, torch.zeros(1, head.num_identity), actions(**wanted))
    fitted = fitter(points)
    rest = resting_actions(fitter, fitted, points)
    shape = fitter.shape(fitted.identity.double(), rest.double()).float()
    before, after = (float(lip_distance(p)) for p in (points, fitted.project(shape)[..., :2]))
    assert before > 0.06 and after < 0.6 * before and after < 0.06


@pytest.mark.parametrize(
    "wanted", [{"jawOpen": 0.3}, {"mouthSmile": 0.5, "mouthUpperUp": 0.4, "jawOpen": 0.2}]
)
def test_no_slit_is_left_between_lips_at_rest(head, wanted, actions, posed):
    """The mean head's lips are 0.3 mm apart: taking the expression back is not enough."""
    fitter = HeadFitter(head)
    _, points = posed(head, torch.zeros(1, head.num_identity), actions(**wanted))
    fitted = fitter(points)
    rest = resting_actions(fitter, fitted, points)

    def slit(told):
        lips = fitter.shape(fitted.identity.double(), torch.as_tensor(told).double())[0, :, 1]
        return float((lips[[61, 62, 63]] - lips[[67, 66, 65]]).mean())

    assert -0.0012 < slit(rest) < 0.0002
    vowel = actions(jawOpen=0.25).numpy()
    without = rest.clone()
    without[0, CLOSE] = 0.0
    opened, before = (slit(speak_over(vowel, told.numpy())) for told in (rest, without))
    assert opened == pytest.approx(before, abs=1e-6), "a vowel opens as far as ever"


def test_a_commanded_jaw_opens_evenly(actions):
    rest = actions(mouthClose=0.05).numpy()
    told = np.concatenate([actions(jawOpen=x).numpy() for x in (0.0, 0.1, 0.2, 0.5)])
    shown = commanded(told, rest)
    assert shown[:, CLOSE] == pytest.approx(0.05)
    assert shown[:, JAW] == pytest.approx([0.0, 0.1, 0.2, 0.5])
    assert commanded(actions(mouthSmile=1.0).numpy(), rest)[0, CLOSE] == 0.0, "a full smile parts the lips"


def test_closed_lips_rest_as_they_are(head, actions, posed):
    fitter = HeadFitter(head)
    _, points = posed(head, torch.zeros(1, head.num_identity), actions(mouthFrown=0.5))
    fitted = fitter(points)
    assert torch.equal(resting_actions(fitter, fitted, points), fitted.actions)


def test_an_emotion_lets_the_lips_close_and_the_jaw_open(actions):
    rest, open_mouth = (
        actions(jawOpen=0.05).numpy(),
        actions(jawOpen=0.4, mouthPress=0.4, mouthSmile=0.6).numpy(),
    )
    closed = speak_over(actions(mouthPress=0.3).numpy(), rest, open_mouth)
    assert closed[0, JAW] == pytest.approx(0.05, abs=0.03)
    assert closed[0, SMILE] == pytest.approx(0.6), "what does not part the lips stays"
    vowel = speak_over(actions(jawOpen=0.3).numpy(), rest, open_mouth)
    assert vowel[0, JAW] >= 0.35
    assert vowel[0, PRESS] == 0
    none = np.zeros_like(rest)
    assert np.array_equal(
        speak_over(actions(jawOpen=0.3).numpy(), rest, none), speak_over(actions(jawOpen=0.3).numpy(), rest)
    )


def test_a_calmed_face_loses_its_smile_only(actions):
    rest = actions(mouthSmile=0.8, jawOpen=0.1, browDown=0.3).numpy()
    calm = calmed(rest, 0.75)
    assert calm[0, SMILE] == pytest.approx(0.2)
    assert calm[0, JAW] == rest[0, JAW]
    assert rest[0, SMILE] == pytest.approx(0.8), "the argument is not changed"


def test_what_the_fit_missed_of_a_strong_expression_is_taken_back():
    rest, told = np.zeros((1, len(ACTIONS)), np.float32), np.zeros((2, len(ACTIONS)), np.float32)
    smile = [n for n, name in enumerate(ACTIONS) if name.startswith("mouthSmile")]
    rest[:, smile] = 0.9
    told[1, smile] = 1.0
    without, with_smile = commanded(told, rest)[:, smile]
    assert (without < -0.1).all()
    assert (with_smile > 1.0).all()
    rest[:, smile] = 0.3
    assert (commanded(told[:1], rest)[:, smile] >= 0.0).all()
