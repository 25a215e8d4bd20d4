"""The synthetic corpus: the plan keeps its promises, a clip repeats, a killed preparation continues."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkface.data import EMOTIONS, Corpus
from talkface.data.base import unpack_masks
from talkface.data.synthetic.clips import (
    SyntheticRecipe,
    corpus_writer,
    make_clip,
    plan_clips,
    prepare_synthetic,
)
from talkface.data.synthetic.sentences import loose_words, sentence
from talkface.errors import TalkfaceError

pytest.importorskip("espeakng_loader")

TINY = SyntheticRecipe(
    identities=2,
    clips_per_identity=1,
    size=48,
    fps=10.0,
    max_seconds=0.4,
    val_share=0.5,
    test_share=0.0,
    families=("espeak",),
    supersample=1,
    clips_per_shard=1,
)


def test_plan_keeps_subjects_apart_and_covers_all_emotions() -> None:
    recipe = SyntheticRecipe(identities=40, clips_per_identity=20, seed=3)
    shards = plan_clips(recipe)
    plans = [plan for members in shards.values() for plan in members]
    assert len(plans) == 800 == len({plan.id for plan in plans})
    assert all(name.startswith(plan.split) for name, members in shards.items() for plan in members)
    homes = {plan.subject: plan.split for plan in plans}
    assert all(homes[plan.subject] == plan.split for plan in plans)
    assert Counter(homes.values()) == {"train": 36, "val": 2, "test": 2}
    emotions = Counter(plan.emotion for plan in plans)
    assert set(emotions) == set(range(len(EMOTIONS)))
    assert emotions[0] / 800 == pytest.approx(0.3, abs=0.06)
    assert {plan.level for plan in plans if plan.emotion} == {1, 2, 3}
    assert {plan.level for plan in plans if not plan.emotion} == {0}
    assert max(map(len, shards.values())) == recipe.clips_per_shard
    assert plan_clips(recipe) == shards
    assert plan_clips(SyntheticRecipe(identities=40, clips_per_identity=20, seed=4)) != shards


def test_prepared_corpus_has_exact_truth_and_is_left_alone(tmp_path: Path) -> None:
    lines: list[str] = []
    prepare_synthetic(tmp_path, TINY, report=lines.append)
    assert any("min left" in line for line in lines)
    corpus = Corpus(tmp_path)
    assert "CC0-1.0" in corpus.info["licence"] and corpus.info["sample_rate"] == 16000
    names = corpus.info["config"]["names"]
    for clip in corpus:
        truth, meta = corpus.read_truth(clip), corpus.read_meta(clip)
        count = clip.num_frames
        assert count == round(clip.duration * 10) >= 2
        assert truth["landmarks"].shape == (count, 68, 2) and truth["visible"].shape == (count, 68)
        assert truth["actions"].shape == (count, len(names["actions"])) and truth["pose"].shape == (count, 6)
        assert set(truth["phoneme"]) <= set(range(len(names["phoneme"])))
        assert set(truth["viseme"]) <= set(range(len(names["viseme"])))
        face, mouth = (unpack_masks(truth[name], 48) for name in ("face_mask", "mouth_mask"))
        assert face.shape == (count, 48, 48) and 0.05 < face.mean() < 0.9
        # the lips' landmarks lie on the mouth, the mouth in the face
        for frame in range(count):
            x, y = truth["landmarks"][frame, 48:68].mean(0).astype(int)
            assert mouth[frame, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].any()
        assert (face | ~mouth).mean() > 0.99
        assert meta["voice"].startswith("espeak") and meta["voice_licence"] and clip.transcript

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    lines.clear()
    prepare_synthetic(tmp_path, TINY, report=lines.append)
    assert not lines and before == {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    with pytest.raises(TalkfaceError, match="other settings"):
        prepare_synthetic(tmp_path, SyntheticRecipe(identities=3, families=("espeak",), test_share=0.0))

    # losing one shard is repaired with the very same bytes
    lost = tmp_path / "shards" / "train-00000.tar"
    content = lost.read_bytes()
    lost.unlink()
    (tmp_path / "parts" / "train-00000.json").unlink()
    prepare_synthetic(tmp_path, TINY, report=lines.append)
    assert lost.read_bytes() == content and lines[0].startswith("synthetic corpus: 1 clips in 1 shards")


def test_two_processes_write_the_bytes_of_one(tmp_path: Path) -> None:
    recipe = replace(TINY, identities=3, size=32)
    for workers in (1, 2):
        prepare_synthetic(tmp_path / str(workers), recipe, workers, report=lambda line: None)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "shards").iterdir()} for name in "12"
    )
    assert len(one) == 3 and one == two
    ids = [[clip.id for clip in Corpus(tmp_path / name)] for name in "12"]
    assert len(ids[0]) == 3 and ids[0] == ids[1]  # also in the order in which they are listed


def test_a_clip_depends_on_its_plan_only() -> None:
    plan = plan_clips(TINY)["train-00000"][0]
    first, second = make_clip(TINY, plan), make_clip(TINY, plan)
    assert first.frames == second.frames and first.audio is not None and second.audio is not None
    assert np.array_equal(first.audio, second.audio)
    assert len(first.audio) <= 0.4 * 16000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"identities": 0}, "identities: 0"),
        ({"identities": 1}, "leave none for training"),
        ({"max_seconds": 0.01}, "less than two frames"),
        ({"view": "lips"}, "view: .lips.; allowed face, mouth"),
        ({"loose_words": 1.5}, "loose_words: 1.5; allowed 0 to 1"),
    ],
)
def test_impossible_recipes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TalkfaceError, match=message):
        SyntheticRecipe(**options)


def test_the_mouth_view_shows_the_mouth_in_the_middle() -> None:
    face = replace(TINY, size=64, max_seconds=1.0, seed=4)
    mouth = replace(face, view="mouth")
    plan = next(plan for plans in plan_clips(face).values() for plan in plans)
    assert plan == next(plan for plans in plan_clips(mouth).values() for plan in plans)
    whole, close = (make_clip(recipe, plan).truth["landmarks"][:, 48:68] for recipe in (face, mouth))
    assert np.abs(close.mean((0, 1)) - 32).max() < 3
    widths = [float(np.ptp(points[..., 0], axis=1).mean()) for points in (whole, close)]
    assert 1.6 < widths[1] / widths[0] < 2.2
    assert close.min() > 4 and close.max() < 60


def test_settings_that_are_left_alone_are_not_part_of_the_recipe(tmp_path: Path) -> None:
    """A corpus from before there were views is still complete."""
    plain = corpus_writer(tmp_path / "a", TINY).info["config"]["recipe"]
    assert "view" not in plain and "loose_words" not in plain
    changed = corpus_writer(tmp_path / "b", replace(TINY, view="mouth", loose_words=0.5)).info["config"][
        "recipe"
    ]
    assert changed["view"] == "mouth" and changed["loose_words"] == 0.5


def test_loose_words_are_not_those_of_the_test_split() -> None:
    said = {word for seed in range(400) for word in loose_words(seed).rstrip(".").split()}
    held_out, trained = (
        {word for seed in range(2000) for word in sentence(seed, split).lower().strip(".?").split()}
        for split in ("test", "train")
    )
    assert len(said) > 300 and not said & (held_out - trained)
    assert loose_words(5) == loose_words(5) != loose_words(6)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).resolve().parents[2] / "data_prep" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("prepare_synthetic_corpus", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    out = str(tmp_path / "corpus")
    options = [
        "--out",
        out,
        "--identities",
        "4",
        "--clips",
        "3",
        "--splits",
        "0.25,0",
        "--families",
        "espeak",
    ]
    assert script.main([*options, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert '"clips": 9' in printed and '"people": 1' in printed and not Path(out).exists()
    assert script.main(["--out", out, "--splits", "half"]) == 2
    assert "--splits: 'half'" in capsys.readouterr().err
