"""Pictures inverted once: what finetuning of an emotion model trains on, kept in a folder.

`<corpus>/inverted/<key>/` holds a `.safetensors` for each picture, named by its content hash and frame: the latents at
t_0, what the first stage makes of the picture, and for a model that is shown people, their latents and those of their
guides. The key names the model (a hash of its weights), how pictures are cut and how far, in how many steps and with
which guidance they were inverted, so nothing else ever reads them; an interrupted run goes on at the next picture.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkface.data.features import encoder_key
from talkface.data.labelled import LabelledPictures
from talkface.data.latents import Picture
from talkface.data.writer import to_json
from talkface.errors import TalkfaceError
from talkface.head.emotions import emotion_actions
from talkface.head.expressing import Expresser
from talkface.head.expression import as_commands
from talkface.media import to_tensor
from talkface.portrait.crop import alignment_matrix, transform

Invert = Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]
"""(pictures (B, 3, S, S), labels (B,), guides (B, T, 3, S, S) or None) -> what is kept, (B, ...) by name."""


def inversion_key(model: Sequence[nn.Module], settings: dict[str, Any]) -> str:
    """Name of the folder: a hash of the model's networks and of everything else that decides the latents."""
    digest = hashlib.sha256(encoder_key(nn.ModuleList(model)).encode())
    digest.update(to_json(settings))
    return digest.hexdigest()[:16]


def balanced_choice(labels: np.ndarray, count: int, seed: int, without: Sequence[int] = ()) -> list[int]:
    """`count` places of `labels`, drawn with every label equally often as far as they go; unknown (-1) left out.

    Args:
        without: labels to leave out, too.
    """
    rng = np.random.default_rng([seed, 0x1A7])
    turns: list[tuple[int, int, int]] = []
    for label in sorted(set(labels.tolist()) - {-1, *without}):
        members = rng.permutation(np.flatnonzero(labels == label))
        turns += [(turn, int(label), int(member)) for turn, member in enumerate(members)]
    return [member for _, _, member in sorted(turns)[:count]]


class InvertedPictures(Dataset[dict[str, Tensor]]):
    """Items: what was kept of a picture, `label`, `target`, `number` (of the picture in `data`), and of a guided model
    the `guide_latents` of that target.

    Args:
        data: the pictures; chosen: which of them.
        targets: labels to edit to; a picture is never edited to its own.
        folder: the cache.
        seed: of the targets.
        drawn: targets are drawn anew in every epoch; False: they take turns, the same in every epoch.
    """

    def __init__(
        self,
        data: LabelledPictures,
        chosen: Sequence[int],
        targets: Sequence[int],
        folder: Path,
        seed: int = 0,
        drawn: bool = True,
    ) -> None:
        self.data, self.chosen, self.targets = data, list(chosen), list(targets)
        self.folder, self.seed, self.drawn = folder, seed, drawn

    def __len__(self) -> int:
        return len(self.chosen)

    def target(self, key: int) -> int:
        """The label that item `key` (epoch * length + index) is edited to."""
        epoch, index = divmod(key, len(self))
        allowed = [t for t in self.targets if t != self.data.labels[self.chosen[index]]]
        if self.drawn:
            return allowed[int(np.random.default_rng([self.seed, epoch, index]).integers(len(allowed)))]
        # pictures take turns through the labels already, so that the next target is due when all labels were there
        wanted = self.targets[(index + index // 8) % len(self.targets)]
        return wanted if wanted in allowed else allowed[index % len(allowed)]

    def __getitem__(self, key: int) -> dict[str, Tensor]:
        number = self.chosen[key % len(self)]
        kept = read_inverted(self.folder, self.data.pictures[number])
        target = self.target(key)
        item = {
            "noisy_latents": kept["noisy_latents"].float(),
            "source": kept["source"].float() / 127.5 - 1.0,
            "label": torch.tensor(int(self.data.labels[number])),
            "target": torch.tensor(target),
            "number": torch.tensor(number),
        }
        if "guide_latents" in kept:
            item["reference_latents"] = kept["reference_latents"].float()
            item["guide_latents"] = kept["guide_latents"][self.targets.index(target)].float()
        return item


def place_of(folder: Path, picture: Picture) -> Path:
    """The file of a picture."""
    return folder / f"{picture.key.replace(':', '-')}.safetensors"


def read_inverted(folder: Path, picture: Picture) -> dict[str, Tensor]:
    """What was kept of a picture; `source` is uint8. Raises: TalkfaceError: it is missing or damaged."""
    path = place_of(folder, picture)
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise TalkfaceError(
            f"inverted picture: {path} is missing or damaged; delete it and start again, it is made anew"
        ) from error


def invert_pictures(
    data: LabelledPictures,
    chosen: Sequence[int],
    folder: Path,
    invert: Invert,
    guides: Sequence[str] = (),
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Invert what is missing of `chosen`.

    Args:
        guides: emotions that guides are drawn for; none for a model that is shown nobody.
        progress: called with (pictures done, pictures in all).
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in chosen if not place_of(folder, data.pictures[number]).is_file()]
    draw = GuideDrawer(data, guides) if guides and missing else None
    done = len(chosen) - len(missing)
    for start in range(0, len(missing), batch_size):
        numbers = missing[start : start + batch_size]
        images = torch.cat([to_tensor(data.read(data.pictures[number])) for number in numbers])
        labels = torch.from_numpy(data.labels[numbers])
        drawn = None
        if draw is not None:
            pairs = zip(images, numbers, strict=True)
            drawn = torch.stack([draw(image, data.pictures[number]) for image, number in pairs])
        made = invert(images.to(device), labels.to(device), None if drawn is None else drawn.to(device))
        made["source"] = ((made["source"] + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        for row, number in enumerate(numbers):
            _save({name: rows[row] for name, rows in made.items()}, place_of(folder, data.pictures[number]))
        done += len(numbers)
        if progress is not None:
            progress(done, len(chosen))


class GuideDrawer:
    """Pictures animated to emotions by their fitted heads, from the corpus's landmarks.

    Args:
        data: the pictures, cut in the canonical way.
        emotions: names.

    Raises:
        TalkfaceError: pictures that are cut in another way.
    """

    def __init__(self, data: LabelledPictures, emotions: Sequence[str]) -> None:
        if data.alignment != "canonical":
            raise TalkfaceError(
                f"alignment: {data.alignment}; allowed is canonical for a model with guides, drawn by landmarks"
            )
        self.data, self.expresser = data, Expresser()
        self.actions = np.stack([as_commands(emotion_actions(name, 1.0)) for name in emotions]).clip(0.0, 1.0)

    def __call__(self, image: Tensor, picture: Picture) -> Tensor:
        """(3, S, S) in [-1, 1] -> (T, 3, S, S)."""
        truth = self.data.corpus.read_truth(picture.clip, ("landmarks",))["landmarks"][picture.frame]
        points = transform(alignment_matrix(truth, self.data.image_size), truth)
        return self.expresser(image, points.astype(np.float32), self.actions)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    halved = {
        # the noise at t_0 decides the picture to its last detail: it is kept as it is
        name: (value if name == "noisy_latents" or not value.is_floating_point() else value.half())
        .cpu()
        .contiguous()
        for name, value in tensors.items()
    }
    save_file(halved, temporary)
    os.replace(temporary, path)
