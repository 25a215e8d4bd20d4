"""Training pairs of the emotion model: a person's picture, what the person shall show, and the picture that shows it.

With each pair goes a guide: the picture animated to the wanted emotion, drawn as in use, from landmarks with the
mistakes that a finder makes (`talkface.data.guides`). In a tenth of the pairs nothing is to change: picture, guide and
result are the same.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkface.data.base import Corpus
from talkface.data.guides import GuideMaker
from talkface.data.labelled import LabelledPictures
from talkface.data.latents import LatentStore
from talkface.head.emotions import emotion_actions
from talkface.head.expressing import Expresser
from talkface.head.expression import as_commands
from talkface.media import to_tensor, to_uint8
from talkface.portrait.crop import alignment_matrix, transform

UNCHANGED = 0.1
UNGUIDED = 0.3  # of the pairs are shown the picture as its own guide: the label alone tells what is wanted
MISTAKES = 0.5  # of those that dubbing must bear: here no second film has to be met
TOLD = ("actions", "intensity")


def pictures(corpus: Path, size: int) -> LabelledPictures:
    """The training pictures, cut out by their true landmarks."""
    return LabelledPictures(Corpus(corpus, "train"), image_size=size, alignment="canonical", truth=TOLD)


def draw_guides(corpus: Path, work: Path, size: int, rounds: int, workers: int) -> None:
    """Draw what is missing of the guides: one for each picture and round, in a file for each shard and round."""
    (work / "guides").mkdir(parents=True, exist_ok=True)
    shards = sorted({picture.clip.shard for picture in pictures(corpus, size).pictures})
    jobs = [
        (corpus, work / "guides" / f"{shard}-{turn}.npz", size, shard, turn)
        for turn in range(rounds)
        for shard in shards
    ]
    missing = [job for job in jobs if not job[1].is_file()]
    with ProcessPoolExecutor(max(1, workers), mp_context=multiprocessing.get_context("spawn")) as pool:
        for number, _ in enumerate(pool.map(_draw_shard, *zip(*missing, strict=True)) if missing else (), 1):
            print(f"guides: {number}/{len(missing)} shards", flush=True)


def _draw_shard(corpus: Path, path: Path, size: int, shard: str, turn: int) -> None:
    torch.set_num_threads(1)
    data, expresser, maker = pictures(corpus, size), Expresser(), GuideMaker(MISTAKES)
    people: dict[str, list[int]] = {}
    for number, picture in enumerate(data.pictures):
        people.setdefault(picture.clip.subject, []).append(number)
    targets = [number for number, picture in enumerate(data.pictures) if picture.clip.shard == shard]
    rows = []
    for target in targets:
        rng = np.random.default_rng([turn, target])
        others = [number for number in people[data.pictures[target].clip.subject] if number != target]
        same = rng.random() < UNCHANGED or not others
        source = target if same else others[int(rng.integers(len(others)))]
        image = data.read(data.pictures[source])
        clip = data.pictures[source].clip
        truth = data.corpus.read_truth(clip, ("landmarks",))["landmarks"][data.pictures[source].frame]
        points = transform(alignment_matrix(truth, size), truth)
        found = maker.disturbed(points[None], size, maker.habit(size, rng), rng)[0].numpy()
        wanted = data.pictures[target].clip
        strength = float(data.corpus.read_truth(wanted, ("intensity",))["intensity"][0])
        actions = as_commands(emotion_actions(wanted.emotion, strength)[None])
        drawn = image if same else to_uint8(expresser(to_tensor(image)[0], found, actions))[0]
        rows.append((target, source, drawn))
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial.npz")
    np.savez(
        temporary,
        target=[row[0] for row in rows],
        source=[row[1] for row in rows],
        guides=np.stack([row[2] for row in rows]),
    )
    os.replace(temporary, path)


@torch.no_grad()
def encode_guides(work: Path, stage: nn.Module, device: str) -> dict[str, Tensor]:
    """Rows of pairs: `target` and `source`, numbers of pictures, and `guide`, latents (N, C, h, w) float16."""
    made: dict[str, list[Tensor]] = {"target": [], "source": [], "guide": []}
    for path in sorted((work / "guides").glob("[!.]*.npz")):
        encoded = path.with_suffix(".safetensors")
        if not encoded.is_file():
            with np.load(path) as stored:
                images = to_tensor(stored["guides"])
                rows = {
                    name: torch.from_numpy(stored[name].astype(np.int64)) for name in ("target", "source")
                }
            with torch.autocast(device, torch.bfloat16):
                # to mypy an attribute of a Module is a Tensor or a Module; every first stage can encode
                latents = [stage.encode(some.to(device)) for some in images.split(32)]  # type: ignore[operator]
            rows["guide"] = torch.cat(latents).half().cpu().contiguous()
            temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial")
            save_file(rows, temporary)
            os.replace(temporary, encoded)
        for name, values in load_file(encoded).items():
            made[name].append(values)
    return {name: torch.cat(values) for name, values in made.items()}


class EditPairs(Dataset[dict[str, Tensor]]):
    """Items: `target_latents`, `reference_latents` and `guide_latents` (C, h, w), `label`, `intensity`, `actions`.

    Args:
        data: the pictures; latents: their store; pairs: of `encode_guides`.
    """

    def __init__(self, data: LabelledPictures, latents: LatentStore, pairs: dict[str, Tensor]) -> None:
        self.pairs = pairs
        self.latents = torch.stack(
            [torch.from_numpy(latents.read(picture)).half() for picture in data.pictures]
        )
        self.labels = torch.from_numpy(data.labels)
        told = [data.corpus.read_truth(picture.clip, TOLD) for picture in data.pictures]
        self.told = {
            name: torch.from_numpy(np.stack([row[name][0] for row in told])).float() for name in TOLD
        }

    def __len__(self) -> int:
        return len(self.pairs["target"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        target, source = (int(self.pairs[name][index]) for name in ("target", "source"))
        reference, guide = self.latents[source], self.pairs["guide"][index]
        return {
            "target_latents": self.latents[target].float(),
            "reference_latents": reference.float(),
            "guide_latents": (reference if torch.rand(()) < UNGUIDED else guide).float(),
            "label": self.labels[target],
        } | {name: values[target] for name, values in self.told.items()}
