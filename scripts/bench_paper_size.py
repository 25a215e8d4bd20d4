"""Seconds a frame of the paper's networks: the thesis's sampling procedure against ours, in the same run.

The networks have the paper's sizes (UNet 163.16 M, VQGAN 60.61 M, window of 17 features of 768) and random
weights: time does not depend on their values. Runs of both procedures alternate, so that other work on the
machine falls on both.

Thesis: one frame at a time, each with the previous latents as identity; masked frame encoded, 200 DDIM steps
with eta 1, decoded; float32, batch 1, no guidance. All its UNet calls cost the same: a few are timed, and a
frame is encode + 200 x median call + decode. It runs on our UNet with fused attention and channels_last
weights; the thesis's own code computes attention in separate products and is slower.

Ours: windowed sampling, the same networks and the same window of sound, in groups of frames, few steps; every
call of a group is run and timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from stage_clock import StageClock

from talkface.conditioning.audio import AudioConditioner
from talkface.conditioning.base import ConditionerSet
from talkface.conditioning.face import EmotionConditioner
from talkface.conditioning.frames import FramesConditioner
from talkface.diffusion.schedule import NoiseSchedule
from talkface.networks.unet import UNet
from talkface.networks.vqgan import VQGAN
from talkface.pipelines.face_painter import FacePainter, References, Sound
from talkface.pipelines.sampling import LatentSampler
from talkface.pipelines.sources import Shot
from talkface.portrait.crop import AlignedCrop

THESIS_STEPS = 200
SIZE, FPS, WINDOW, FEATURES = 128, 30, 8, 768


@dataclass(frozen=True)
class Variant:
    """One way to sample: steps, frames in a network call, precision."""

    steps: int
    group: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Timing:
    """Median seconds a frame, and of its parts."""

    name: str
    seconds: float
    encode: float
    sample: float
    decode: float


def build() -> tuple[UNet, VQGAN, ConditionerSet]:
    """The networks of `conf/talking_mead.yaml`, random weights, evaluation mode."""
    conditioner = ConditionerSet(
        {
            "emotion": EmotionConditioner(num_classes=8, dim=256),
            "audio": AudioConditioner(FEATURES, WINDOW, mode="attention"),
            "frames": FramesConditioner(order=("masked", "reference")),
        },
        context_mode="concatenate",
    )
    network = UNet(in_channels=9, out_channels=3, model_channels=160, context_dim=1024)
    parts = (network, VQGAN(), conditioner)
    for part in parts:
        part.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return parts


def shots(count: int) -> list[Shot]:
    """Frames with a face; what they show does not change the time."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    crop = AlignedCrop(image, np.eye(2, 3), SIZE, (SIZE, SIZE))
    points = rng.uniform(0.3, 0.7, (68, 2)) * SIZE
    return [Shot(k, (k + 0.5) / FPS, image, crop, points) for k in range(count)]


class PaperSize:
    """Both procedures on one set of networks."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.network, self.first_stage, self.conditioner = build()
        self.features = torch.randn(200, FEATURES, generator=torch.Generator().manual_seed(0))
        self.shots = shots(64)
        self.clock = StageClock(now)
        self.clock.wrap(self.network, "forward", "call")
        self.clock.wrap(self.first_stage, "encode", "encode")
        self.clock.wrap(self.first_stage, "decode", "decode")

    def _paint(self, variant: Variant, frames: int, eta: float, autoregressive: bool) -> float:
        sampler = LatentSampler(
            network=self.network,
            conditioner=self.conditioner,
            schedule=NoiseSchedule(),
            prediction_type="epsilon",
            num_inference_steps=variant.steps,
            scales={},
            eta=eta,
        )
        crop = self.shots[0].crop
        assert crop is not None
        painter = FacePainter(
            first_stage=self.first_stage,
            sampler=sampler,
            sound=Sound(self.features, 50.0, WINDOW, float(FPS)),
            references=References(crop),
            mask_kind="lower_face",
            seed=0,
            independent_noise=1.0 if autoregressive else 0.0,
            group=variant.group,
            batch_size=variant.group,
            device=torch.device("cpu"),
            dtype=variant.dtype,
            autoregressive=autoregressive,
        )
        self.clock.times.clear()
        start = self.clock.now()
        for _ in painter.paint(iter(self.shots[:frames]), lambda: None):
            pass
        return self.clock.now() - start

    def thesis_frame(self, timed_calls: int) -> tuple[float, float, float]:
        """Seconds of one encode, one UNet call (median), one decode, in a frame sampled with few calls."""
        self._paint(Variant(timed_calls, 1, torch.float32), 1, eta=1.0, autoregressive=True)
        times = self.clock.times
        return times["encode"][-1], median(times["call"]), times["decode"][-1]

    def our_group(self, variant: Variant) -> tuple[float, float, float, float]:
        """Seconds a frame of one group: all, encode (without the reference), sample, decode."""
        total = self._paint(variant, variant.group, eta=0.0, autoregressive=False)
        times, count = self.clock.times, variant.group
        reference = times["encode"][0]  # once for a whole film
        encode = self.clock.total("encode") - reference
        parts = (encode, self.clock.total("call"), self.clock.total("decode"))
        return ((total - reference) / count, *(part / count for part in parts))


def measure(
    variants: Sequence[Variant], rounds: int, timed_calls: int, now: Callable[[], float] = time.perf_counter
) -> list[Timing]:
    """Alternate both procedures; the thesis first, then the variants in order; medians over rounds."""
    bench = PaperSize(now)
    bench.thesis_frame(2)  # warm up: threads, memory, kernel choice
    thesis, ours = [], {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            thesis.append(bench.thesis_frame(timed_calls))
            ours[variant].append(bench.our_group(variant))
    encode, call, decode = (median(values) for values in zip(*thesis, strict=True))
    frame = encode + THESIS_STEPS * call + decode
    name = f"thesis: {THESIS_STEPS} steps, 1 frame, float32"
    results = [Timing(name, frame, encode, THESIS_STEPS * call, decode)]
    for variant, runs in ours.items():
        kind = str(variant.dtype).removeprefix("torch.")
        name = f"ours: {variant.steps} steps, {variant.group} frames, {kind}"
        results.append(Timing(name, *(median(values) for values in zip(*runs, strict=True))))
    return results


def table(results: Sequence[Timing]) -> str:
    """Markdown, with the ratio to the first row."""
    lines = ["| procedure | s a frame | encode | UNet | decode | times faster |", "|---" * 6 + "|"]
    for row in results:
        parts = " | ".join(f"{value:.3f}" for value in (row.seconds, row.encode, row.sample, row.decode))
        lines.append(f"| {row.name} | {parts} | {results[0].seconds / row.seconds:.1f} |")
    return "\n".join(lines)
