"""What a face is told: text to shares and actions, and what the network then hears."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from talkface.checkpoint import load_bundle
from talkface.conditioning.base import ConditionerSet
from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS
from talkface.head.model import ACTIONS
from talkface.pipelines.expression import Expression, condition, parse_expression, unconditioned

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def conditioner(tiny_editing_bundle: Path) -> ConditionerSet:
    return load_bundle(tiny_editing_bundle).part("conditioner")


def parse(text: str, knows_actions: bool = True) -> Expression:
    return parse_expression(text, EMOTIONS, knows_actions)


def heard(conditioner: ConditionerSet, *texts: str) -> torch.Tensor:
    embedding = condition(conditioner, [parse(text) for text in texts], CPU).embedding
    assert embedding is not None
    return embedding


def test_shares_are_filled_up_with_neutral() -> None:
    assert parse("happy").shares == ((1, 1.0),)
    assert parse("happy:0.6,surprised:0.4").shares == ((1, 0.6), (3, 0.4))
    assert dict(parse("happy:0.5").shares) == {0: 0.5, 1: 0.5}
    assert parse("happy:0").shares == ((0, 1.0),)
    assert parse(" sad:0.2 , neutral:0.8").emotion == 0
    assert parse("none") == Expression("none")


def test_actions_and_emotions_together() -> None:
    found = parse("happy:0.5,AU12=0.8,mouthSmileLeft=0.1")
    assert found.actions is not None and dict(found.shares) == {0: 0.5, 1: 0.5}
    assert found.actions[ACTIONS.index("mouthSmileLeft")] == pytest.approx(0.9)
    assert found.actions[ACTIONS.index("mouthSmileRight")] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("joyful", "neutral, happy, sad"),
        ("AU12", "AU12=0.8"),
        ("", "neutral, happy, sad"),
        ("happy,", "neutral, happy, sad"),
        ("happy:2", "0 to 1"),
        ("happy:", "0 to 1"),
        ("happy:nan", "0 to 1"),
        ("happy:much", "0 to 1"),
        ("happy:0.8,sad:0.4", "sum to 1.2"),
        ("happy:0.2,happy:0.2", "twice"),
        ("AU99=0.5", "AU12"),
        ("grin=0.5", "mouthSmile"),
        ("AU12=1.5", "0 to 1"),
    ],
)
def test_mistakes_say_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(TalkfaceError, match=words):
        parse(text)


def test_actions_need_a_model_that_was_told_them() -> None:
    with pytest.raises(TalkfaceError, match=r"trained without facial actions.*neutral, happy"):
        parse("AU12=0.8", knows_actions=False)


def test_a_mixture_lies_between_its_emotions(conditioner: ConditionerSet) -> None:
    happy, surprised, neutral, half, mixed = heard(
        conditioner, "happy", "surprised", "neutral", "happy:0.5", "happy:0.6,surprised:0.4"
    )
    torch.testing.assert_close(half, 0.5 * happy + 0.5 * neutral)
    torch.testing.assert_close(mixed, 0.6 * happy + 0.4 * surprised)
    assert not torch.allclose(happy, surprised)


def test_intensity_is_what_the_conditioner_was_trained_with(conditioner: ConditionerSet) -> None:
    emotion = conditioner.conditioners["emotion"]
    emotion.intensity = True
    try:
        trained = emotion({"emotion": torch.tensor([4]), "intensity": torch.tensor([0.3])}).embedding
    finally:
        emotion.intensity = False
    told = heard(conditioner, "fear:0.3")[:, : trained.shape[1]]
    torch.testing.assert_close(told, trained)


def test_what_is_not_told_is_null(conditioner: ConditionerSet) -> None:
    nothing = unconditioned(conditioner, 1, CPU).embedding
    emotion, actions = conditioner.conditioners["emotion"], conditioner.conditioners["actions"]
    expected = torch.cat([emotion.null(1).embedding, actions.null(1).embedding], dim=1)
    torch.testing.assert_close(nothing, expected)
    happy, smile = heard(conditioner, "happy", "AU12=0.8")
    torch.testing.assert_close(happy[16:], expected[0, 16:])
    torch.testing.assert_close(smile[:16], expected[0, :16])
    assert not torch.allclose(smile[16:], expected[0, 16:])
