"""What the parts of the default bundle are trained on: crops of pictures, and encoded training pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from bundle_spec import IMAGE_SIZE, WINDOW, WINDOW_RATE
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm import tqdm

from talkface.data.base import Corpus
from talkface.data.images import Photometry
from talkface.data.synthetic.visemes import SpeakingStyle, speech_actions
from talkface.data.talking import TalkingDataset
from talkface.head.model import ACTIONS
from talkface.media import read_image, to_tensor
from talkface.portrait.blend import generation_mask


class Crops(IterableDataset[dict[str, Tensor]]):
    """Endless random crops (3, size, size) of pictures, scaled and re-lit a little.

    A convolutional first stage learns as much from a crop of 64 pixels as from a face of 128, at a quarter of the cost.
    """

    def __init__(self, sources: list[tuple[float, list[np.ndarray]]], size: int, seed: int) -> None:
        self.sources, self.size, self.seed = sources, size, seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(self.seed)
        shares = np.array([share for share, _ in self.sources])
        while True:
            pictures = self.sources[rng.choice(len(self.sources), p=shares / shares.sum())][1]
            picture = pictures[rng.integers(len(pictures))]
            side = int(np.clip(self.size * rng.uniform(0.7, 1.4), 16, min(picture.shape[:2])))
            top, left = (int(rng.integers(extent - side + 1)) for extent in picture.shape[:2])
            crop = cv2.resize(
                picture[top : top + side, left : left + side],
                (self.size, self.size),
                interpolation=cv2.INTER_AREA,
            )
            if rng.random() < 0.5:
                crop = crop[:, ::-1]
            if rng.random() < 0.25:  # skin alone would teach it few colours
                crop = crop[..., rng.permutation(3)]
            yield {"images": to_tensor(Photometry(rng, 1.0)(np.ascontiguousarray(crop)))[0]}


class Latents(Dataset[dict[str, Tensor]]):
    """Training pairs whose pictures were encoded beforehand; kept in memory as float16, pixels as bytes."""

    def __init__(self, stored: dict[str, Tensor]) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored["emotion"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = {name: values[index] for name, values in self.stored.items()}
        for name, value in item.items():
            if value.is_floating_point():
                item[name] = value.float()
            elif value.dtype == torch.uint8:
                item[name] = value.float() / 127.5 - 1.0
        return item


def picture_sources(work: Path, folders: list[str]) -> list[tuple[float, list[np.ndarray]]]:
    """(share, pictures): rendered faces, dead leaves, and the pictures of `folders`."""
    frames = Corpus(work / "corpus", "train")
    faces = [frames.read_frame(clip, frame) for clip in frames for frame in range(0, clip.num_frames, 3)]
    leaves = [read_image(path) for path in sorted((work / "textures").glob("*.png"))]
    sources = [(0.7, faces), (0.2, leaves)]
    own = [read_image(path) for folder in folders for path in sorted(Path(folder).iterdir())]
    return [*sources, (0.1, own)] if own else sources


def draw_pairs(work: Path, pairs_per_clip: int, workers: int, clips: int = 10**6, **changes: Any) -> None:
    """Draw what the diffusion model reads, as pictures, into `work/pairs`; does nothing when they are there.

    `clips`: at most so many of the corpus. `changes`: options of the data that differ from the recipe's.
    """
    folder = work / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "numbers.pt").is_file():
        return
    recipe: dict[str, Any] = {
        "image_size": IMAGE_SIZE,
        "jitter": 0.5,
        "photometric": 0.7,
        "guide_error": 1.0,
        "samples_per_clip": pairs_per_clip,
        "seed": 5,
    }
    corpus = Corpus(work / "corpus", "train")
    dataset = TalkingDataset(corpus.subset(corpus.clips[:clips]), **recipe | changes)
    shape = (len(dataset), 3, IMAGE_SIZE, IMAGE_SIZE)
    drawn = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape)
        for name in ("target", "reference", "guide")
    }
    numbers: dict[str, list[Tensor]] = {}
    place = 0
    for batch in tqdm(DataLoader(dataset, batch_size=32, num_workers=workers), desc="pairs"):
        count = len(batch["target"])
        for name, pictures in drawn.items():
            pictures[place : place + count] = ((batch[name] + 1.0) * 127.5).round().byte().numpy()
        for name in ("emotion", "clip", "frame"):
            numbers.setdefault(name, []).append(batch[name])
        place += count
    for pictures in drawn.values():
        pictures.flush()
    torch.save({name: torch.cat(values) for name, values in numbers.items()}, folder / "numbers.pt")


@torch.no_grad()
def encoded_pairs(work: Path, stage: Any, device: str) -> dict[str, Tensor]:
    """Everything the diffusion model reads, by name; computed once and kept in `work`."""
    path = work / "latents.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    folder = work / "pairs"
    drawn = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("target", "reference", "guide")
    }
    hidden = torch.from_numpy(generation_mask(IMAGE_SIZE))
    stored = dict(torch.load(folder / "numbers.pt", weights_only=True))
    columns: dict[str, list[Tensor]] = {}
    with torch.autocast(device, torch.bfloat16):
        for start in tqdm(range(0, len(drawn["target"]), 32), desc="encode"):
            images = {
                name: torch.from_numpy(pictures[start : start + 32].copy()).float() / 127.5 - 1.0
                for name, pictures in drawn.items()
            }
            images["masked"] = images["target"] * (1.0 - hidden) - hidden
            latents = stage.encode(torch.cat(list(images.values())).to(device)).half().cpu()
            for name, values in zip(images, latents.chunk(len(images)), strict=True):
                columns.setdefault(f"{name}_latents", []).append(values)
    stored |= {name: torch.cat(values) for name, values in columns.items()}
    torch.save(stored, path)
    return stored


def spoken_pairs(work: Path, stage: nn.Module, encoder: Any, device: str) -> dict[str, Tensor]:
    """What the diffusion model is trained on: `encoded_pairs`, what is said in them, and where it matters."""
    stored = encoded_pairs(work, stage, device)
    stored |= {"audio": spoken_windows(work, encoder, stored.pop("clip"), stored.pop("frame"))}
    return stored | {"mask": region_weights().expand(len(stored["emotion"]), -1, -1, -1)}


def masked_window() -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what the network paints, on the grid of the latents: what the pipeline decodes."""
    rows, columns = np.nonzero(generation_mask(IMAGE_SIZE))
    left, top = (4 * (int(places.min()) // 4) for places in (columns, rows))
    right, bottom = (min(IMAGE_SIZE, 4 * (int(places.max()) // 4 + 1)) for places in (columns, rows))
    return left, top, right, bottom


def window_pixels(work: Path, window: tuple[int, int, int, int]) -> dict[str, Tensor]:
    """Targets and guides as pixels, `<name>_pixels` uint8 (N, 3, h, w): a window of the pairs."""
    left, top, right, bottom = window
    pictures = {name: np.load(work / "pairs" / f"{name}.npy", mmap_mode="r") for name in ("target", "guide")}
    return {
        f"{name}_pixels": torch.from_numpy(np.ascontiguousarray(values[:, :, top:bottom, left:right]))
        for name, values in pictures.items()
    }


def region_weights() -> Tensor:
    """(1, h, w) float16 at the size of the latents: 1 = generated; lips and jaw, which the sound decides, 4."""
    side = IMAGE_SIZE // 4
    mask = torch.from_numpy(generation_mask(IMAGE_SIZE))[None, None]
    mask = nn.functional.interpolate(mask, size=(side, side), mode="area")[0].half()
    top, bottom, left, right = (round(part * side) for part in (0.57, 0.88, 0.3, 0.7))
    mask[:, top:bottom, left:right] *= 4
    return mask


def spoken_windows(work: Path, encoder: Any, clips: Tensor, frames: Tensor) -> Tensor:
    """What a perfect `encoder` (an ArticulationEncoder) would say around each frame: (N, 2 * WINDOW + 1, D) float16.

    The network learns on the exact articulation of the corpus and is driven by the encoder's estimate of it, so that
    a better encoder can be put in without training the network again, and its mistakes are not learned as truth.
    """
    corpus = Corpus(work / "corpus", "train")
    columns = [ACTIONS.index(name if name in ACTIONS else f"{name}Left") for name in encoder.actions]
    mean, std = encoder.mean.numpy(), encoder.std.numpy()
    offsets = np.arange(-WINDOW, WINDOW + 1) / WINDOW_RATE
    windows = np.zeros((len(clips), len(offsets), len(columns)), np.float16)
    for number in clips.unique().tolist():
        rows = np.flatnonzero(clips.numpy() == number)
        clip, meta = corpus.clips[number], corpus.read_meta(corpus.clips[number])
        times = np.array([clip.frame_time(int(frame)) for frame in frames[rows]])[:, None] + offsets
        style = SpeakingStyle.sample(meta["plan"]["person_seed"])
        actions = speech_actions(meta["phonemes"], times.ravel(), style)[:, columns]
        windows[rows] = ((actions - mean) / std).reshape(len(rows), len(offsets), -1)
    return torch.from_numpy(windows)
