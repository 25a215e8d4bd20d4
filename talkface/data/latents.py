"""Latents of a corpus' pictures, encoded once per first stage and kept in sidecar files.

`<corpus>/latents/<key>/` holds one `<shard>.npy` (pictures, C, h, w) float16 per corpus shard and beside it the content
hash and frame of every row. The key names the first stage (a hash of its class, settings and weights) and how
pictures are cut; a mirrored picture is another picture, since first stages are not symmetric. So another
first stage never reads these latents, a changed corpus encodes only what changed, and an interrupted run goes
on at the next shard.

Half precision moves a latent by at most 1/2048 of its size, far less than the first stage's own error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from talkface.data.base import ClipEntry, Corpus
from talkface.data.features import encoder_key
from talkface.data.writer import to_json, write_atomically
from talkface.errors import TalkfaceError
from talkface.media import to_tensor


class Picture(NamedTuple):
    """One frame of a clip; a picture is frame 0 of a clip of one."""

    clip: ClipEntry
    frame: int

    @property
    def key(self) -> str:
        """Content hash and frame."""
        return f"{self.clip.content_hash}:{self.frame}"


class LatentStore:
    """Read access to cached latents; the files are mapped, not loaded.

    Raises:
        TalkfaceError: there is no such cache.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "latents.json"
        if not path.is_file():
            raise TalkfaceError(
                f"latents: {self.folder} is missing or unfinished; train with cache_latents again"
            )
        self._places: dict[str, tuple[str, int]] = {
            key: (str(shard), int(row))
            for key, (shard, row) in json.loads(path.read_text())["places"].items()
        }
        self._files: dict[str, np.ndarray] = {}

    def read(self, picture: Picture) -> np.ndarray:
        """(C, h, w) float32.

        Raises:
            TalkfaceError: the picture is not in the cache.
        """
        place = self._places.get(picture.key)
        if place is None:
            raise TalkfaceError(
                f"frame {picture.frame} of clip {picture.clip.id} has no latents in {self.folder}; delete that folder"
            )
        shard, row = place
        if shard not in self._files:
            self._files[shard] = np.load(self.folder / f"{shard}.npy", mmap_mode="r", allow_pickle=False)
        return self._files[shard][row].astype(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_files": {}}


def compute_latents(
    corpus: Corpus,
    pictures: Sequence[Picture],
    read: Callable[[Picture], np.ndarray],
    first_stage: nn.Module,
    variant: str,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Encode what is missing of `pictures`; returns the folder for `LatentStore`.

    Args:
        pictures: of `corpus`.
        read: gives a picture as uint8 (S, S, 3), as training would see it.
        first_stage: `encode(images) -> latents`; used as it is, in float32.
        variant: how `read` cuts pictures; part of the key.
        progress: called with (pictures done, pictures in all).
    """
    folder = corpus.bring_sidecar("latents", f"{encoder_key(first_stage)}-{variant}")
    done_path = folder / "latents.json"
    places: dict[str, Any] = json.loads(done_path.read_text())["places"] if done_path.is_file() else {}
    if {picture.key for picture in pictures} <= set(places):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(pictures, key=lambda picture: (picture.clip.shard, picture.clip.id, picture.frame))
    done = 0
    for shard, group in groupby(ordered, key=lambda picture: picture.clip.shard):
        members = list(group)
        part = folder / f"{shard}.json"
        rows: dict[str, int] = json.loads(part.read_text()) if part.is_file() else {}
        missing = [picture for picture in members if picture.key not in rows]
        if missing:
            # old rows keep their places, so that an interruption between the two files does no harm
            latents = _encode(missing, read, first_stage, device, batch_size)
            if rows:
                latents = np.concatenate([np.load(folder / f"{shard}.npy")[: len(rows)], latents])
            _save(folder / f"{shard}.npy", latents)
            rows |= {picture.key: len(rows) + row for row, picture in enumerate(missing)}
            write_atomically(part, to_json(rows))
        places |= {key: (shard, row) for key, row in rows.items()}
        done += len(members)
        if progress is not None:
            progress(done, len(ordered))
    write_atomically(done_path, to_json({"places": places}))
    return folder


@torch.no_grad()
def _encode(
    pictures: Sequence[Picture],
    read: Callable[[Picture], np.ndarray],
    first_stage: nn.Module,
    device: torch.device | str,
    batch_size: int,
) -> np.ndarray:
    parts = []
    for start in range(0, len(pictures), batch_size):
        images = np.stack([read(picture) for picture in pictures[start : start + batch_size]])
        # to mypy an attribute of a Module is a Tensor or a Module; every first stage can encode
        latents = first_stage.encode(to_tensor(images).to(device))  # type: ignore[operator]
        parts.append(latents.float().cpu().numpy().astype(np.float16))
    return np.concatenate(parts)


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with temporary.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
