"""The rules of the house, read from the source: imports, size and names of files, no pickles."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "talkface"
FILES = sorted(PACKAGE.rglob("*.py"))
OTHER_FILES = sorted(
    path for name in ("data_prep", "scripts", "examples") for path in (ROOT / name).rglob("*.py")
)
LONGEST_FILE = 450
FORBIDDEN_NAMES = {"utils", "util", "misc", "helpers", "helper", "common", "new", "v2"}
HEAVY = {
    "transformers",
    "mediapipe",
    "face_alignment",
    "lpips",
    "onnxruntime",
    "webdataset",
    "pyarrow",
    "torch_fidelity",
    "torchmetrics",
    "piq",
    "jiwer",
    "skimage",
    "espeakng_loader",
    "scenedetect",
    "ray",
    "peft",
}
LIGHTNING = {"pytorch_lightning", "lightning", "jsonargparse", "tensorboard"}
# sibling packages and modules that each may import; errors may be imported by all
ALLOWED = {
    "networks": set(),
    "diffusion": set(),
    "head": set(),
    "portrait": set(),
    "media": set(),
    "errors": set(),
    "experts": {"media", "networks"},
    "conditioning": {"networks.layers"},
    "losses": {"diffusion"},
    "metrics": {"diffusion"},
    "data": {"media", "portrait", "head", "arguments"},
    "training": {"networks", "diffusion", "head", "portrait", "media", "experts", "conditioning", "losses"},
    "pipelines": {"diffusion", "conditioning", "head", "portrait", "media", "metrics"},
    "importers": {"checkpoint", "diffusion.schedule", "head.emotions", "arguments"},
}
# sound around a frame is cut out by one function, so that training and sampling cannot differ
ALLOWED["data"].add("conditioning.audio")
# adapters are a way to hold weights, no package that could lean on others
for user in ("training", "pipelines"):
    ALLOWED[user].add("adapters")
ALLOWED["adapters"] = set()
# only inside a function: to load a bundle, to read a corpus, to start a training from a bundle, to find faces
ALLOWED_LATE = {
    "pipelines": {"checkpoint", "experts", "data"},
    "training": {"checkpoint"},
    "data": {"checkpoint", "experts"},
}


def imports(tree: ast.AST, module: str) -> Iterator[tuple[str, bool, int]]:
    """(dotted name, whether it runs on import, line) of every import outside `if TYPE_CHECKING`."""

    def visit(node: ast.AST, top: bool) -> Iterator[tuple[str, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((name.name, top, child.lineno) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    base = ".".join([*module.split(".")[: -child.level], base]).rstrip(".")
                yield base, top, child.lineno
                yield from ((f"{base}.{name.name}", top, child.lineno) for name in child.names)
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, top and not inner)

    yield from visit(tree, True)


@functools.cache
def parse(source: str) -> ast.Module:
    return ast.parse(source)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sibling(name: str) -> str | None:
    """talkface.networks.unet -> networks.unet"""
    return name.removeprefix("talkface.") if name.startswith("talkface.") else None


def violations(path: Path, source: str | None = None) -> list[str]:
    """Imports of a file of the package that the table does not allow."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    own = parts[0]
    found = []
    for name, top, line in imports(parse(source or path.read_text()), module_name(path)):
        target = sibling(name)
        if target is None:
            continue
        first = target.split(".")[0]
        if first in ("errors", "__version__", own) or not first:
            continue
        if first in ("cli", "app") and own != "__main__":
            found.append(f"{relative(path)}:{line}: nothing may import {first}")
            continue
        if own not in ALLOWED:
            continue
        allowed = ALLOWED[own] | (set() if top else ALLOWED_LATE.get(own, set()))
        if not any(
            target == entry or target.startswith(entry + ".") or entry.startswith(target + ".")
            for entry in allowed
        ):
            found.append(f"{relative(path)}:{line}: {own} may not import talkface.{target}")
    return found


def test_imports_follow_the_table() -> None:
    assert [line for path in FILES for line in violations(path)] == []


@pytest.mark.parametrize(
    ("file", "source", "bad"),
    [
        ("networks/x.py", "import talkface.diffusion.schedule", True),
        ("networks/x.py", "def f():\n    from talkface.media import read_image", True),
        ("networks/x.py", "from talkface.networks.layers import a\nfrom talkface.errors import b", False),
        ("networks/x.py", "from ..media import read_image", True),
        ("conditioning/x.py", "from talkface.networks.layers import a", False),
        ("conditioning/x.py", "from talkface.networks.unet import a", True),
        ("conditioning/x.py", "from talkface.networks import unet", True),
        ("pipelines/x.py", "from talkface.checkpoint import load_bundle", True),
        ("pipelines/x.py", "def f():\n    from talkface.checkpoint import load_bundle", False),
        ("pipelines/x.py", "if TYPE_CHECKING:\n    from talkface.checkpoint import Bundle", False),
        ("pipelines/x.py", "def f():\n    import talkface.training.diffusion", True),
        ("training/x.py", "from talkface.data.base import EMOTIONS", True),
        ("data/x.py", "from talkface.cli import main", True),
    ],
)
def test_the_table_catches_what_it_should(file: str, source: str, bad: bool) -> None:
    assert bool(violations(PACKAGE / file, source)) is bad


def heavy_at_import(path: Path, source: str | None = None) -> list[str]:
    lightning_home = (
        path.is_relative_to(PACKAGE / "training")
        or path == PACKAGE / "fit.py"
        or (path.is_relative_to(PACKAGE / "data") and "module" in path.stem)
    )
    forbidden = HEAVY if lightning_home else HEAVY | LIGHTNING
    return [
        f"{path.name}:{line}: import {name} inside the function that needs it"
        for name, top, line in imports(parse(source or path.read_text()), "talkface.x")
        if top and name.split(".")[0] in forbidden
    ]


def test_heavy_libraries_are_imported_late() -> None:
    assert [line for path in FILES for line in heavy_at_import(path)] == []


def test_the_check_for_heavy_imports_sees_them() -> None:
    assert heavy_at_import(PACKAGE / "cli.py", "import transformers")
    assert heavy_at_import(
        PACKAGE / "cli.py", "try:\n    from lpips import LPIPS\nexcept ImportError:\n    pass"
    )
    assert not heavy_at_import(PACKAGE / "cli.py", "def f():\n    import transformers")
    assert heavy_at_import(PACKAGE / "media" / "x.py", "import pytorch_lightning")
    assert not heavy_at_import(PACKAGE / "training" / "x.py", "import pytorch_lightning")


def test_files_are_small_and_named_for_what_they_hold() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in FILES + OTHER_FILES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}
    names = {relative(path): path.relative_to(ROOT).with_suffix("").parts for path in FILES + OTHER_FILES}
    assert [path for path, parts in names.items() if FORBIDDEN_NAMES & {part.lower() for part in parts}] == []


def test_modules_say_what_they_are() -> None:
    texts = {relative(path): path.read_text() for path in FILES}
    assert [path for path, text in texts.items() if text.strip() and not ast.get_docstring(parse(text))] == []


def unsafe_loads(source: str) -> list[str]:
    """Calls that may run code hidden in a data file."""
    found = []
    for node in ast.walk(parse(source)):
        if not isinstance(node, ast.Call):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
                found += [
                    f"{node.lineno}: import {name}" for name in names if name in ("pickle", "dill", "joblib")
                ]
            continue
        called = ast.unparse(node.func)
        values = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            called in ("torch.load", "torch.hub.load_state_dict_from_url")
            and values.get("weights_only") != "True"
        ):
            found.append(f"{node.lineno}: {called} without weights_only=True")
        if values.get("allow_pickle", "False") != "False":
            found.append(f"{node.lineno}: {called} with allow_pickle")
        if called in ("eval", "exec"):
            found.append(f"{node.lineno}: {called}")
    return found


def test_nothing_is_unpickled() -> None:
    found = {relative(path): unsafe_loads(path.read_text()) for path in FILES + OTHER_FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_check_for_pickles_sees_them() -> None:
    for source in (
        "import pickle",
        "from pickle import load",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "np.load('x', allow_pickle=True)",
        "eval('1')",
    ):
        assert unsafe_loads(source), source
    assert not unsafe_loads("torch.load('x', weights_only=True)\nnp.load('y')\nmodel.eval()")


def test_the_package_does_not_import_the_preparation_scripts() -> None:
    for path in FILES:
        names = {name.split(".")[0] for name, _, _ in imports(parse(path.read_text()), module_name(path))}
        assert not names & {"data_prep", "scripts", "tests"}, relative(path)
