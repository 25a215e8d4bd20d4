"""An ablation in small: rows begin alike, differ in what they say, and are judged once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import ablate_talking

from talkface.checkpoint import bundle_folder
from talkface.data.synthetic.clips import SyntheticRecipe, prepare_synthetic
from talkface.errors import TalkfaceError
from talkface.experts.sync import SyncNetwork

ROWS = ["control", "drop", "pose", "shared", "again", "sequences", "sync"]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A few rendered people, and sync experts that know nothing."""
    folder = tmp_path_factory.mktemp("ablation")
    recipe = SyntheticRecipe(
        identities=5, clips_per_identity=1, fps=25, size=128, max_seconds=1.2, val_share=0, test_share=0.4,
        families=("espeak",),
    )  # fmt: skip
    prepare_synthetic(folder / "corpus", recipe, report=lambda line: None)
    for frames in (5, 16):
        torch.manual_seed(frames)
        sizes: dict[str, Any] = {
            "num_frames": frames,
            "speech_channels": 8,
            "dilations": [1],
            "dim": 8,
            "width": 8,
        }
        expert = SyncNetwork(**{**sizes, "actions": ["jawOpen"]})
        save_file(expert.state_dict(), folder / f"sync{frames}.safetensors")
        spec = {
            "class_path": "talkface.experts.sync.SyncNetwork",
            "init_args": {**sizes, "actions": ["jawOpen"]},
        }
        (folder / f"sync{frames}.json").write_text(json.dumps(spec))
    given = {
        "work": "work", "corpus": "corpus", "talk-corpus": "corpus",
        "sync": "sync16.safetensors", "judge": "sync5.safetensors",
    }  # fmt: skip
    paths = [word for name, path in given.items() for word in (f"--{name}", str(folder / path))]
    return [*paths, "--steps", "2", "--batch-size", "2", "--clips", "2", "--judged-clips", "2"]


@pytest.mark.timeout(900)  # half a minute of a quiet core
def test_rows_differ_in_what_they_say(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    work = Path(arguments[1])
    with pytest.raises(TalkfaceError, match="drop without control, its control"):
        ablate_talking.main([*arguments, "--stage", "train", "--rows", "drop"])
    ablate_talking.main([*arguments, "--stage", "draw", "train"])
    rows = {name: json.loads((work / "rows" / name / "row.json").read_text()) for name in ROWS}

    assert len({row["start"] for row in rows.values()}) == 1
    assert all(row["end"] != row["start"] and row["steps"] == 2 for row in rows.values())
    always = {"says", "end", "seconds"}
    changed = {
        name: {key for key in row if row[key] != rows[row["control"]][key]} - always
        for name, row in rows.items()
    }
    assert changed == {
        "control": set(), "drop": {"audio_drop", "drop_rates"}, "pose": {"data"}, "shared": {"data"},
        "again": {"seed"}, "sequences": set(), "sync": {"sync_weight"},
    }  # fmt: skip
    rates = {name: rows[name]["drop_rates"] for name in ("control", "drop")}
    assert rates["drop"] == {**rates["control"], "audio": 0.2} != rates["control"]
    # what the sync expert says changes the weights; so do other references and other noise
    for name in ("pose", "shared", "again", "sync"):
        assert rows[name]["end"] != rows[rows[name]["control"]]["end"], name

    pairs = {name: work / "data" / name / "pairs" for name in ablate_talking.DATA}
    drawn = {name: np.load(folder / "target.npy") for name, folder in pairs.items()}
    assert all(np.array_equal(drawn["recipe"], other) for other in drawn.values())
    shown = {name: np.load(folder / "reference.npy") for name, folder in pairs.items()}
    assert not any(np.array_equal(shown["recipe"], shown[name]) for name in ("pose", "shared"))

    (work / "rows" / "control" / "row.json").unlink()  # one lost row is trained again, to the same weights
    written = (work / "rows" / "sync" / "row.json").stat().st_mtime_ns
    capsys.readouterr()
    ablate_talking.main([*arguments, "--stage", "draw", "train"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["control"]
    assert json.loads((work / "rows" / "control" / "row.json").read_text())["end"] == rows["control"]["end"]
    assert (work / "rows" / "sync" / "row.json").stat().st_mtime_ns == written

    few = [*arguments, "--rows", "control", "drop", "--stage", "judge", "table"]
    ablate_talking.main(few)
    text = (work / "ablation.md").read_text()
    assert text.count("| the recipe, continued |") == 1
    assert "sound dropped for 20 % instead of 10 % – the recipe, continued" in text
    judged = json.loads((work / "judged" / "sequences.json").read_text())
    assert set(judged) == {"start", "control", "drop"}
    assert all(len(numbers) == 2 for row in judged.values() for numbers in row["numbers"].values())
    capsys.readouterr()
    ablate_talking.main(few)
    assert "judged" not in capsys.readouterr().out
    guided = json.loads((work / "rows" / "sync" / "bundle" / "bundle.json").read_text())["meta"]["guided_by"]
    start = json.loads((bundle_folder("default") / "bundle.json").read_text())["meta"].get("guided_by", [])
    assert len(guided) == len(start) + 1
    assert set(start) < set(guided)
    with pytest.raises(TalkfaceError, match="guided"):  # who guided may not judge
        judge = [*arguments, "--judge", arguments[arguments.index("--sync") + 1]]
        ablate_talking.main([*judge, "--rows", "sync", "--stage", "judge"])
    with pytest.raises(TalkfaceError, match="--sync: none"):
        without = [word for word in arguments if "sync16" not in word and word != "--sync"]
        ablate_talking.main([*without, "--stage", "train"])
