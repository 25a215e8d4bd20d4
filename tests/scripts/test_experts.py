"""The scripts of experts: the page of results, the command lines, the files that are written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import expert_files
import train_expert

from talkface.experts.emotion import EmotionNetwork
from talkface.experts.registry import load_expert


def test_a_section_is_replaced_and_the_others_stay():
    page = expert_files.with_section("", "clip", "| a |\n")
    assert page.startswith("# What the experts are worth") and page.endswith("## clip\n\n| a |\n")
    page = expert_files.with_section(page, "emotion", "first\n\n### In detail\n\nx")
    page += "\n### In words\n\nIt errs.\n"
    page = expert_files.with_section(page, "clip", "| b |")
    assert page.index("## clip") < page.index("## emotion") and "| a |" not in page and "| b |" in page
    page = expert_files.with_section(page, "emotion", "second")
    assert "first" not in page and "In detail" not in page and "second\n\n### In words\n\nIt errs.\n" in page
    assert expert_files.with_section(page, "emotion", "second") == page
    assert page.count("# What the experts are worth") == 1 and "| b |" in page


@pytest.mark.parametrize("name", list(expert_files.EXPERTS))
def test_every_expert_has_its_script(name):
    module = expert_files.module_of(name)
    assert module.HELP == expert_files.description_of(name) != ""
    options = train_expert.build_parser(name).parse_args(
        [name, "--out", "x", "--minutes", "1.5", "--seed", "3"]
    )
    assert (options.expert, options.out, options.minutes, options.seed) == (name, Path("x"), 1.5, 3)
    assert callable(module.train) and callable(module.evaluate) and callable(module.add_evaluation_options)


def test_experts_are_saved_in_half_precision_and_read_again(tmp_path):
    torch.manual_seed(0)
    widths = {"channels": (8, 8, 8, 8), "blocks": (0, 0, 0, 1), "features": 16}
    network = EmotionNetwork(**widths).eval()
    network.stem[0][1].running_var += 0.123456789
    out = tmp_path / "emotion0.5"  # a point in the name is no ending
    expert_files.save_expert(network, out, "talkface.experts.emotion.EmotionNetwork", widths, "# Card\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "emotion0.5.json",
        "emotion0.5.md",
        "emotion0.5.safetensors",
    ]
    loaded = load_expert(f"{out}.safetensors")
    assert torch.equal(loaded.emotion.weight, network.emotion.weight.half().float())
    assert torch.equal(loaded.stem[0][1].running_var, network.stem[0][1].running_var)
