"""What cached latents save: training steps with and without, and how much of a step is encoding.

    python scripts/bench_latents.py                  # the sizes of conf/smoke, conf/synth and the paper
    python scripts/bench_latents.py --only synth

Times are processor time of one thread, and runs with and without take turns, so that other work on the machine falls on
both. A step is what a loader and the trainer do for one batch: read and decode the files (one process), encode or read
latents, the network forwards and backwards, AdamW. Weights are random: time does not depend on them. The share
of encoding is also counted in floating-point operations, since one thread says little about a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from talkface.checkpoint import instantiate
from talkface.data.base import Clip, Corpus
from talkface.data.labelled import LabelledPictures
from talkface.data.latents import LatentStore, compute_latents
from talkface.data.writer import CorpusWriter, encode_jpeg
from talkface.training.diffusion import DiffusionModule
from talkface.training.start import step_generator

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"smoke": "smoke/ldm.yaml", "synth": "synth/ldm.yaml", "paper": "ldm_affectnet.yaml"}
BATCH = {"smoke": 4, "synth": 8, "paper": 1}
PICTURES = 64


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=tuple(SIZES), help="one of the sizes")
    parser.add_argument("--steps", type=int, default=7, help="of each kind; the median is taken")
    parser.add_argument(
        "--batch-size", type=int, help="default: " + ", ".join(f"{k} {v}" for k, v in BATCH.items())
    )
    return parser.parse_args(argv)


def load(size: str) -> tuple[DiffusionModule, int]:
    """The model of a configuration, and the side of its pictures."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / SIZES[size]))
    arguments = config["model"]["init_args"]
    side = int(config["data"]["init_args"]["image_size"])
    for name in ("network", "first_stage", "schedule", "conditioner"):
        arguments[name] = instantiate(arguments[name])
    arguments.pop("first_stage_weights", None)
    return DiffusionModule(**arguments), side


def write_corpus(folder: Path, side: int) -> Corpus:
    """Pictures with as much detail as faces: smooth noise."""
    rng = np.random.default_rng(0)
    writer = CorpusWriter(folder, name="noise", licence="none", source="bench", fps=25, image_size=side)
    with writer.shard("train-0") as shard:
        for number in range(PICTURES):
            noise = rng.normal(128, 60, (side // 4, side // 4, 3)).clip(0, 255).astype(np.uint8)
            image = np.asarray(cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
            frames = [encode_jpeg(image, 95)]
            shard.add(Clip(f"p{number}", "train", f"p{number}", frames, emotion=number % 8))
    writer.finish(["train-0"])
    return Corpus(folder)


def batches(data: LabelledPictures, size: int) -> Iterator[dict[str, Tensor]]:
    """Batches without end."""
    for start in count(0, size):
        yield default_collate([data[start + place] for place in range(size)])


def measure(size: str, steps: int, batch_size: int) -> dict[str, float]:
    """Processor seconds of a step with pictures and with latents, and of the parts of the former."""
    module, side = load(size)
    module.train()
    optimizer: Any = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-5)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "corpus", side)
        pictures, latents = (LabelledPictures(corpus, image_size=side) for _ in range(2))
        few = latents.pictures[: max(8, batch_size)]
        latents.pictures = latents.pictures[: len(few)]
        pictures.pictures = pictures.pictures[: len(few)]
        latents.use_latents(
            LatentStore(
                compute_latents(corpus, few, latents.read, module.first_stage, "bench", batch_size=8)
            ),
            None,
        )
        loaders = {"pictures": batches(pictures, batch_size), "latents": batches(latents, batch_size)}

        def step(kind: str, number: int) -> float:
            start = time.process_time()
            batch = next(loaders[kind])
            module.loss(batch, step_generator(1, number), drop=True).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return time.process_time() - start

        def clock(work: Callable[[], object]) -> float:
            start = time.process_time()
            work()
            return time.process_time() - start

        found: dict[str, list[float]] = {"pictures": [], "latents": [], "read": [], "encode": []}
        for number in range(steps + 1):
            for kind in ("pictures", "latents"):
                found[kind].append(step(kind, number))
            batch: dict[str, Tensor] = {}
            # called at once, inside of this turn of the loop: what the closures hold cannot change under them
            found["read"].append(clock(lambda: batch.update(next(loaders["pictures"]))))  # noqa: B023
            found["encode"].append(clock(lambda: module.encode(batch)))  # noqa: B023
        share = operations(module, batch)
    return {kind: median(times[1:]) for kind, times in found.items()} | {"operations": share}


def operations(module: DiffusionModule, batch: dict[str, Tensor]) -> float:
    """Share of the floating-point operations of a step that encoding takes."""
    with FlopCounterMode(display=False) as encoding:
        latents = module.encode(batch)[0]
    with FlopCounterMode(display=False) as training:
        module.loss(batch | {"target_latents": latents}, step_generator(0), drop=True).backward()
    module.zero_grad(set_to_none=True)
    return encoding.get_total_flops() / (encoding.get_total_flops() + training.get_total_flops())


def main(argv: list[str] | None = None) -> None:
    """Print a table for `docs/benchmarks.md`."""
    options = parse(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(
        "| size | batch | s a step, pictures | latents | times faster | reading | encoding | operations: encoding |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in [options.only] if options.only else SIZES:
        batch = options.batch_size or BATCH[size]
        found = measure(size, options.steps, batch)
        whole = found["pictures"]
        print(
            f"| {size} | {batch} | {whole:.3f} | {found['latents']:.3f} | {whole / found['latents']:.2f} | "
            f"{found['read'] / whole:.0%} | {found['encode'] / whole:.0%} | "
            f"{found['operations']:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
