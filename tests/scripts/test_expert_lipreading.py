"""The script of the lip readers: from a rendered corpus to weights and a section of the results page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import evaluate_expert
import expert_lipreading
import train_expert

from talkface.data.base import Corpus
from talkface.data.synthetic.clips import SyntheticRecipe, prepare_synthetic
from talkface.data.synthetic.visemes import VISEMES
from talkface.errors import TalkfaceError
from talkface.experts.registry import load_expert

pytest.importorskip("espeakng_loader")
pytest.importorskip("jiwer")


@pytest.fixture(scope="module")
def mouths(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lips") / "mouths"
    recipe = SyntheticRecipe(
        identities=3, clips_per_identity=1, size=40, max_seconds=0.7, supersample=1, view="mouth", val_share=0.67,
        test_share=0.0, families=("espeak",),
    )  # fmt: skip
    prepare_synthetic(folder, recipe, report=lambda line: None)
    return folder


def test_clips_keep_film_words_and_classes_together(mouths):
    clips, people = expert_lipreading.read_clips([mouths], "val")
    assert people == len(clips) == 2
    for clip in clips:
        length = len(clip.mouths)
        assert clip.mouths.shape == (length, 48, 48) and clip.actions.shape == (length, 52)
        assert len(clip.frame_visemes) == length <= 18
        assert (clip.visemes[1:] != clip.visemes[:-1]).all() and 0 not in clip.visemes
        shown = [one for one in clip.frame_visemes.tolist() if one]
        assert set(shown) <= set(clip.visemes.tolist())
        assert clip.mouths.std() > 5


def test_error_rates_and_trivial_answers():
    said = [("ab", "pp aa"), ("cd", "ss iy")]
    assert expert_lipreading.error_rates(said, said) == (0, 0)
    assert expert_lipreading.error_rates([("ax", "pp"), ("", "ss iy kk")], said) == (0.75, 0.5)
    assert expert_lipreading.typical([("ab", "pp"), ("ab", "aa"), ("xy", "aa")]) == (0.5, 0.5)


def test_trained_and_evaluated(mouths, tmp_path, capsys):
    out = tmp_path / "reader7"
    common = ["lipreading", "--corpora", str(mouths), "--threads", "1"]
    assert train_expert.main([*common, "--out", str(out), "--minutes", "0.01", "--batch-size", "2"]) == 0
    reader = load_expert(f"{out}.safetensors")
    assert reader.crop_size == 88 and reader.visemes[1:] == VISEMES[1:]
    page = tmp_path / "page.md"
    arguments = ["--experts", f"{out}.safetensors", "--splits", "val", "--out", str(page)]
    assert evaluate_expert.main([*common, *arguments]) == 0
    text = page.read_text()
    assert "| mouths val (2) | reader7 |" in text and text.count("| reader7 |") == 3
    assert "1 synthetic people" in Path(f"{out}.md").read_text()
    capsys.readouterr()


def test_other_rates_of_frames_are_refused(mouths, tmp_path):
    corpus = Corpus(mouths, "val")
    clip = corpus.clips[0]
    object.__setattr__(clip, "fps", 5.0)
    with pytest.raises(
        TalkfaceError, match=r"5 frames a second; allowed: 25; prepare the corpus with --fps 25"
    ):
        expert_lipreading.read_mouths(corpus, clip, 88, lambda pictures: pictures)
