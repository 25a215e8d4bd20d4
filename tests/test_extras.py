"""What the errors and texts say about extras is true: each exists, and brings the package that is asked for."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from talkface.doctor import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTED: dict[str, list[str]] = PROJECT["optional-dependencies"]
FILES = [
    path for part in ("talkface", "scripts", "data_prep", "examples") for path in (ROOT / part).rglob("*.py")
]
# modules whose distribution has another name
DISTRIBUTIONS = {"dlib": "dlib-bin", "skimage": "scikit-image", "scenedetect": "scenedetect-headless"}


def distribution(module: str) -> str:
    """The name on the package index of the package that brings a module."""
    top = module.split(".")[0]
    return DISTRIBUTIONS.get(top, top.replace("_", "-").lower())


def brought_by(extra: str) -> set[str]:
    """Distributions that an extra installs, the extras that it names included."""
    found: set[str] = set()
    for requirement in LISTED[extra]:
        name, _, rest = re.split(r"[<>=~!;]", requirement)[0].partition("[")
        if name == PROJECT["name"]:
            found |= set().union(*(brought_by(part.strip()) for part in rest.rstrip("] ").split(",")))
        else:
            found.add(name.strip().lower())
    return found


def demands() -> Iterator[tuple[str, str, str]]:
    """(place, module, extra) of every call of `require`."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "func", None)
            if not isinstance(node, ast.Call) or getattr(name, "id", getattr(name, "attr", "")) != "require":
                continue
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            values = [value.value for value in given if isinstance(value, ast.Constant)]
            assert len(values) == len(given) == 2, f"{place}: give require a module and an extra as texts"
            yield place, str(values[0]), str(values[1])


def test_every_error_names_an_extra_that_brings_the_package() -> None:
    found = list(demands())
    assert len(found) > 15
    for place, module, extra in found:
        assert extra in LISTED, f"{place}: the extra {extra} is not in pyproject.toml"
        assert distribution(module) in brought_by(extra), f"{place}: {extra} does not bring {module}"


def test_doctor_knows_the_extras() -> None:
    assert set(EXTRAS) == set(LISTED) - {"dev"}
    for extra, (_, modules) in EXTRAS.items():
        assert {distribution(module) for module in modules} <= brought_by(extra), extra


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "Makefile", ".ci/run"])
def test_texts_name_extras_that_exist(path: str) -> None:
    named = re.findall(r"(?:talkface|['\" ]\.)\[([\w,-]+)\]", (ROOT / path).read_text())
    assert {extra for group in named for extra in group.split(",")} <= set(LISTED)


def test_extras_within_extras_are_followed() -> None:
    assert {"pytest", "pyarrow", "espeakng-loader", "scikit-image"} <= brought_by("dev")
    assert "mediapipe" not in brought_by("dev")
