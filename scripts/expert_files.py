"""What the scripts of experts share: the list of them, the files they write, the sections of the results page.

Each `expert_NAME.py` has `HELP` (one line), `add_options(parser)` and `train(options)` for train_expert.py,
`add_evaluation_options(parser)` and `evaluate(options) -> str` (the Markdown of its section, without the heading) for
evaluate_expert.py.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from talkface.checkpoint import load_bundle
from talkface.training.averaged import Budget

EXPERTS = {
    "emotion": "expert_emotion",
    "clip": "expert_clip",
    "identity": "expert_identity",
    "lipreading": "expert_lipreading",
    "sync": "expert_sync",
}
TITLE = """# What the experts are worth

Written by `scripts/evaluate_expert.py`, a section at a time. Held-out renders are of people that no training saw.
"""
WORDS = "### In words"


def module_of(name: str) -> ModuleType:
    """The script that trains and evaluates the expert `name`."""
    return importlib.import_module(EXPERTS[name])


def description_of(name: str) -> str:
    """`HELP` of the script, read without running it."""
    tree = ast.parse((Path(__file__).parent / f"{EXPERTS[name]}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HELP":
            return str(ast.literal_eval(node.value))
    return ""


def add_picture_options(parser: argparse.ArgumentParser, corpus: str, what: str | None = None) -> None:
    """Of the training of an expert that looks at single pictures; `corpus`: where they are unless it is said."""
    parser.add_argument("--corpus", type=Path, default=Path(corpus), help=what)
    parser.add_argument(
        "--start-from", default="default", help="bundle whose landmark network gives the first stages"
    )


def add_test_options(parser: argparse.ArgumentParser, corpus: str) -> None:
    """Of the evaluation of experts that look at single pictures."""
    parser.add_argument("--corpus", type=Path, default=Path(corpus))
    parser.add_argument("--experts", type=Path, nargs="+", required=True, metavar="SAFETENSORS")
    parser.add_argument("--limit", type=int, default=10**6, help="pictures of the test split")


def started(network: Any, bundle: str) -> Any:
    """`network`, all of it to be trained, with the first stages of the bundle's landmark network."""
    network.start_from(load_bundle(bundle, parts=["landmarks"]).part("landmarks"))
    return network.requires_grad_(True)


def budget_of(options: argparse.Namespace) -> Budget:
    """How long to train, where the state is kept, and who is told."""
    return {
        "seconds": 60 * options.minutes,
        "checkpoint": Path(f"{options.out}.state.pt"),
        "log": lambda line: print(line, flush=True),
    }


def parameters_of(network: nn.Module) -> float:
    """Parameters in millions."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def save_expert(
    network: nn.Module, out: Path, class_path: str, init_args: dict[str, object], card: str
) -> None:
    """Write `<out>.safetensors` (parameters in half precision, buffers as they are), `.json` and `.md`."""
    parameters = {name for name, _ in network.named_parameters()}
    weights = {
        name: (value.half() if name in parameters else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    # not with_suffix: a name may have a point in it
    weights_file = Path(f"{out}.safetensors")
    save_file(weights, weights_file, metadata={"format": "pt"})
    weights_file.chmod(0o644)  # written for the owner only, but given away
    Path(f"{out}.json").write_text(
        json.dumps({"class_path": class_path, "init_args": init_args}, indent=1) + "\n"
    )
    Path(f"{out}.md").write_text(card)


@torch.no_grad()
def in_parts(network: Callable[[Tensor], Tensor], images: Tensor, size: int = 32) -> Tensor:
    """`network(images)`, some at a time."""
    return torch.cat([network(part) for part in images.split(size)])


@torch.no_grad()
def through_first_stage(images: Tensor) -> Tensor:
    """Pictures (N, 3, S, S) in [-1, 1] as the default bundle's first stage gives them back."""
    coder = load_bundle("default", parts=["first_stage"]).part("first_stage")
    with torch.autocast("cpu", torch.bfloat16):
        return in_parts(lambda part: coder.decode(coder.encode(part)).float(), images)


def with_section(page: str, name: str, text: str) -> str:
    """`page` with the section `## name` replaced by `text`, or added; others, and words in it, are kept.

    What stands in the old section from "### In words" on was written by a person and stays.
    """
    pieces = re.split(r"(?m)^(?=## )", page)
    title = pieces[0] if pieces and not pieces[0].startswith("## ") else ""
    sections = [piece for piece in pieces if piece.startswith("## ")]
    made = f"## {name}\n\n{text.strip()}\n"
    for place, old in enumerate(sections):
        if old.splitlines()[0].strip() == f"## {name}":
            if WORDS in old:
                made += "\n" + old[old.index(WORDS) :].strip() + "\n"
            sections[place] = made
            break
    else:
        sections.append(made)
    return "\n".join(piece.strip() + "\n" for piece in [title.strip() or TITLE, *sections])
