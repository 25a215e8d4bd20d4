"""The recipe of the default bundle, start to end on two rendered people: not good, but whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from make_textures import write_textures

from talkface import TalkingFacePipeline
from talkface.checkpoint import WEIGHTS_FOLDER, load_bundle
from talkface.data.base import Corpus
from talkface.data.synthetic.clips import SyntheticRecipe, prepare_synthetic
from talkface.media import Audio

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def run(work: Path, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPTS / "train_bundle.py"), "--work", str(work), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the first stages leave it: corpus, textures, speech encoder and landmarks."""
    folder = tmp_path_factory.mktemp("recipe")
    recipe = SyntheticRecipe(
        identities=3, clips_per_identity=1, fps=5, size=128, max_seconds=2, val_share=0, test_share=0,
        families=("espeak",),
    )  # fmt: skip
    prepare_synthetic(folder / "corpus", recipe, report=lambda line: None)
    write_textures(folder / "textures", num=2, size=96, seed=0)
    description = json.loads((WEIGHTS_FOLDER / "default" / "bundle.json").read_text())
    given = load_bundle("default", parts=["speech", "landmarks"])
    for name in ("speech", "landmarks"):
        torch.save(given.part(name).state_dict(), folder / f"{name}.pt")
        (folder / f"{name}.json").write_text(json.dumps(description["parts"][name]))
    random = torchvision.models.vgg16(weights=None).features.state_dict()
    torch.save({f"features.{key}": value for key, value in random.items()}, folder / "vgg.pth")
    return folder


@pytest.mark.timeout(900)  # two minutes of a quiet core
def test_the_recipe_makes_a_bundle_that_speaks(work: Path) -> None:
    options = [
        "--minutes",
        "0.2",
        "--threads",
        "1",
        "--pairs-per-clip",
        "12",
        "--lpips-backbone",
        str(work / "vgg.pth"),
    ]
    said = run(
        work,
        "--stage",
        "pairs",
        "first_stage",
        "talking",
        "one_step",
        "change_decoder",
        "pack",
        "--out",
        str(work / "bundle"),
        *options,
    )
    stages = ["pairs", "first_stage", "talking", "one_step", "change_decoder", "pack"]
    assert [line.split(":")[0] for line in said.splitlines()] == stages

    latents = torch.load(work / "latents.pt", weights_only=True)
    assert latents["guide_latents"].shape == latents["target_latents"].shape == (36, 6, 32, 32)
    corpus = Corpus(work / "corpus")
    person = corpus.read_frame(corpus.clips[0], 0)
    film = TalkingFacePipeline(load_bundle(work / "bundle"), "fp32")(
        Audio(np.zeros(1600, np.float32), 16000), image=person
    )
    assert film.metadata["guide"] == "refined"
    assert [frame.shape for frame in film] == [person.shape] * 3

    before = (work / "pairs" / "guide.npy").stat().st_mtime_ns
    run(work, "--stage", "pairs", *options)
    assert (work / "pairs" / "guide.npy").stat().st_mtime_ns == before  # what is there is not drawn again
