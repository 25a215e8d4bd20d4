"""Action units and ARKit names: what each stands for, sides, mistakes."""

from __future__ import annotations

import pytest

from talkface.errors import TalkfaceError
from talkface.head.action_units import ACTION_UNITS, action_vector, expand_action, known_actions
from talkface.head.model import ACTIONS


def told(strengths: dict[str, float]) -> dict[str, float]:
    values = action_vector(strengths)
    return {name: round(float(value), 4) for name, value in zip(ACTIONS, values, strict=True) if value}


def test_units_move_the_muscles_that_facs_names() -> None:
    assert told({"AU12": 0.8, "AU6": 0.5}) == {
        "cheekSquintLeft": 0.5,
        "cheekSquintRight": 0.5,
        "mouthSmileLeft": 0.8,
        "mouthSmileRight": 0.8,
    }
    assert told({"AU1": 1.0}) == {"browInnerUp": 1.0}
    assert told({"au26": 1.0}) == {"jawOpen": 0.5}


def test_sides_are_the_persons() -> None:
    assert told({"AU14L": 0.6}) == {"mouthDimpleLeft": 0.6}
    assert told({"mouthSmileRight": 0.3}) == {"mouthSmileRight": 0.3}
    # both eyes look to the person's left: the left one outwards, the right one inwards
    assert told({"AU61": 1.0}) == {"eyeLookInRight": 1.0, "eyeLookOutLeft": 1.0}
    assert told({"AU61R": 1.0}) == {"eyeLookInRight": 1.0}


def test_every_unit_means_actions_that_exist_and_every_action_has_a_name() -> None:
    for unit in ACTION_UNITS:
        assert expand_action(unit)
    assert {action for name in known_actions() for action in expand_action(name)} == set(ACTIONS)


def test_contributions_add_up_to_at_most_one() -> None:
    assert told({"AU27": 0.9, "jawOpen": 0.4}) == {"jawOpen": 1.0}
    assert told({"AU26": 0.5, "jawOpen": 0.4}) == {"jawOpen": 0.65}


@pytest.mark.parametrize("name", ["AU3", "AU12X", "AU1L", "smile", "", "L"])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(TalkfaceError, match=r"AU12.*mouthSmile"):
        expand_action(name)


def test_strengths_outside_the_range() -> None:
    with pytest.raises(TalkfaceError, match=r"AU12: 1\.5; allowed are 0 to 1"):
        action_vector({"AU12": 1.5})
