"""Sound features of a corpus, computed once per encoder and kept in sidecar shards.

`<corpus>/features/<key>/` holds one tar per corpus shard with `<content hash>.npy` (T, D) float16, `features.json`
(encoder, rate, dimension) and the byte offsets keyed by the content hash of each clip. The key is a hash of
the encoder's class, plain settings and weights: another encoder never reads these features, the same one
always does.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from talkface.data.base import ClipEntry, Corpus, ShardFiles
from talkface.data.writer import to_json, write_atomically
from talkface.errors import TalkfaceError


def encoder_key(encoder: nn.Module) -> str:
    """A folder name that identifies the encoder: its class, and a hash of class, settings and weights."""
    digest = hashlib.sha256(f"{type(encoder).__module__}.{type(encoder).__qualname__}".encode())
    plain = {
        name: value
        for name, value in sorted(vars(encoder).items())
        if not name.startswith("_") and name != "training" and isinstance(value, bool | int | float | str)
    }
    digest.update(to_json(plain))
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"{type(encoder).__name__.lower()}-{digest.hexdigest()[:12]}"


class FeatureStore:
    """Read access to the cached features of one encoder.

    Args:
        folder: `<corpus>/features/<key>`.

    Raises:
        TalkfaceError: there is no such cache, or a clip is not in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / "features.json"
        if not path.is_file():
            raise TalkfaceError(
                f"sound features: {self.folder} is missing or unfinished; give the data an encoder"
            )
        info = json.loads(path.read_text())
        self.feature_rate = float(info["feature_rate"])
        self.feature_dim = int(info["feature_dim"])
        self._places: dict[str, tuple[str, int, int]] = {
            key: (str(shard), int(offset), int(size)) for key, (shard, offset, size) in info["places"].items()
        }
        self._shards = ShardFiles(self.folder)

    def read(self, clip: ClipEntry) -> np.ndarray:
        """(T, D) float32."""
        place = self._places.get(clip.content_hash)
        if place is None:
            raise TalkfaceError(
                f"clip {clip.id} has no features in {self.folder} (the corpus changed); delete that folder"
            )
        return np.load(io.BytesIO(self._shards.read(*place)), allow_pickle=False).astype(np.float32)


def compute_features(
    corpus: Corpus,
    encoder: nn.Module,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Compute what is missing of the features of `encoder` for every clip with sound; returns the folder.

    Args:
        encoder: has `feature_rate` (Hz), `feature_dim` and `encode_long(waveform (samples,)) -> (T, D)`.
        progress: called with (clips done, clips in all) after every clip.

    Raises:
        TalkfaceError: `encoder` is no sound encoder.
    """
    for name in ("feature_rate", "feature_dim", "encode_long"):
        if not hasattr(encoder, name):
            raise TalkfaceError(
                f"encoder: {type(encoder).__name__} has no '{name}'; allowed are the classes of "
                "talkface.experts.speech"
            )
    folder = corpus.bring_sidecar("features", encoder_key(encoder))
    clips = sorted((clip for clip in corpus if clip.has_audio), key=lambda clip: clip.shard)
    wanted = {clip.content_hash for clip in clips}
    done_path = folder / "features.json"
    places: dict[str, Any] = json.loads(done_path.read_text())["places"] if done_path.is_file() else {}
    if wanted and wanted <= set(places):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    known: Any = encoder.to(device).eval()  # to have what was asked for above
    done = 0
    for shard, group in groupby(clips, key=lambda clip: clip.shard):
        members = list(group)
        part = folder / f"{shard}.json"
        rows: dict[str, Any] = json.loads(part.read_text()) if part.is_file() else {}
        missing = [clip for clip in members if clip.content_hash not in rows]
        if missing:
            rows = _write_shard(corpus, folder, shard, missing, rows, known, device)
            write_atomically(part, to_json(rows))
        places |= rows
        done += len(members)
        if progress is not None:
            progress(done, len(clips))
    info = {
        "encoder": f"{type(encoder).__module__}.{type(encoder).__qualname__}",
        "feature_rate": float(known.feature_rate),
        "feature_dim": int(known.feature_dim),
        "places": places,
    }
    write_atomically(done_path, to_json(info))
    return folder


def _write_shard(
    corpus: Corpus,
    folder: Path,
    shard: str,
    clips: Iterable[ClipEntry],
    kept: dict[str, Any],
    encoder: Any,
    device: torch.device | str,
) -> dict[str, Any]:
    """The shard with what it holds already (`kept`, of other splits or an earlier run) and the features of `clips`.

    What is kept comes first and in its order, so its places stay what they were: an interruption between this file
    and the list of its rows does no harm.
    """
    places: dict[str, Any] = {}
    temporary = folder / f".{shard}.{os.getpid()}.partial"
    old = ShardFiles(folder)
    with (
        temporary.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):

        def add(content_hash: str, name: str, data: bytes) -> None:
            header = tarfile.TarInfo(f"{name}.npy")
            header.size = len(data)
            places[content_hash] = (shard, file.tell() + 512, header.size)
            tar.addfile(header, io.BytesIO(data))

        for content_hash, (_, offset, size) in sorted(kept.items(), key=lambda row: row[1][1]):
            add(content_hash, content_hash[:40], old.read(shard, offset, size))
        for clip in clips:
            samples = torch.from_numpy(corpus.read_audio(clip)).to(device)
            with torch.inference_mode():
                features = encoder.encode_long(samples)
            buffer = io.BytesIO()
            np.save(buffer, features.float().cpu().numpy().astype(np.float16))
            add(clip.content_hash, clip.content_hash[:40], buffer.getvalue())
    old.close()
    os.replace(temporary, folder / f"{shard}.tar")
    return places
