"""Seconds a frame of the paper's networks: the thesis's sampling procedure against ours, in the same run.

The networks have the paper's sizes (UNet 163.16 M, VQGAN 60.61 M, window of 17 features of 768) and random
weights: time does not depend on their values. Runs of both procedures alternate, so that other work on the
machine falls on both.

Thesis: one frame at a time, each with the previous latents as identity; masked frame encoded, 200 DDIM steps
with eta 1, decoded; float32, batch 1, no guidance. It runs on our UNet with fused attention and channels_last
weights; the thesis's own code computes attention in separate products and is slower.

Ours: windowed sampling, the same networks, mask and window of sound, groups of frames, few steps. Where the face is
a picture, the masked frame is the same for the whole film and encoded once; the thesis's code encodes it every time.

All UNet calls of a procedure cost the same, so both are treated alike: a few are timed, and a frame of N
steps is encode + N x median call + decode + the rest (conditioning, noise).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
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
from talkface.pipelines.device import fast_layout
from talkface.pipelines.face_painter import FacePainter, References, Sound
from talkface.pipelines.sampling import LatentSampler
from talkface.pipelines.sources import Shot
from talkface.portrait.crop import AlignedCrop

THESIS_STEPS = 200
SIZE, FPS, WINDOW, FEATURES = 128, 30, 8, 768


@dataclass(frozen=True)
class Variant:
    """Frames in a network call, precision, and whether all frames show one picture."""

    group: int
    dtype: torch.dtype
    still: bool = False


@dataclass(frozen=True)
class Parts:
    """Seconds a frame."""

    encode: float
    call: float
    decode: float
    rest: float

    def frame(self, steps: int) -> float:
        """Seconds of a whole frame."""
        return self.encode + steps * self.call + self.decode + self.rest


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
        fast_layout(part.eval().requires_grad_(False))
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

    def paint(self, variant: Variant, calls: int, thesis: bool) -> Parts:
        """Paint one group with `calls` steps: the thesis's way (frame after frame, eta 1) or ours."""
        sampler = LatentSampler(
            network=self.network,
            conditioner=self.conditioner,
            schedule=NoiseSchedule(),
            prediction_type="epsilon",
            num_inference_steps=calls,
            scales={},
            eta=1.0 if thesis else 0.0,
        )
        crop = self.shots[0].crop
        assert crop is not None
        painter = FacePainter(
            first_stage=self.first_stage,
            sampler=sampler,
            sound=Sound(self.features, 50.0, WINDOW, float(FPS)),
            references=References(crop),
            image_size=128,
            mask_kind="lower_face",
            seed=0,
            independent_noise=1.0 if thesis else 0.0,
            group=variant.group,
            batch_size=variant.group,
            device=torch.device("cpu"),
            dtype=variant.dtype,
            autoregressive=thesis,
            still=variant.still,
        )
        self.clock.times.clear()
        start = self.clock.now()
        for _ in painter.paint(iter(self.shots[: variant.group]), lambda: None):
            pass
        total = self.clock.now() - start
        times, count = self.clock.times, variant.group
        # the reference is encoded once for a whole film, and so is the masked frame of a picture
        encodes = [] if variant.still else times["encode"][1:]
        known = sum(times["encode"]) + sum(times["call"]) + sum(times["decode"])
        parts = (sum(encodes), median(times["call"]), sum(times["decode"]), total - known)
        return Parts(*(part / count for part in parts))


def measure(
    variants: Sequence[Variant], rounds: int, calls: int, now: Callable[[], float] = time.perf_counter
) -> tuple[Parts, dict[Variant, Parts]]:
    """The thesis's procedure and ours in turn, `rounds` times; medians."""
    bench = PaperSize(now)
    single = Variant(1, torch.float32)
    bench.paint(single, 1, thesis=True)  # warm up: threads, memory, kernel choice
    thesis: list[Parts] = []
    ours: dict[Variant, list[Parts]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            thesis.append(bench.paint(single, calls, thesis=True))
            ours[variant].append(bench.paint(variant, calls, thesis=False))
    return middle(thesis), {variant: middle(runs) for variant, runs in ours.items()}


def middle(runs: Sequence[Parts]) -> Parts:
    """Median of each part."""
    return Parts(*(median(values) for values in zip(*map(astuple, runs), strict=True)))


def table(thesis: Parts, ours: dict[Variant, Parts], steps: Sequence[int] = (1, 4, 8, 10, 20)) -> str:
    """Markdown: the parts, then whole frames and how many times faster than the thesis's procedure."""

    def kind(variant: Variant) -> str:
        shown = ", a picture" if variant.still else ""
        return f"{variant.group} frames, {str(variant.dtype).removeprefix('torch.')}{shown}"

    rows = {"thesis: 1 frame, float32": thesis, **{f"ours: {kind(v)}": parts for v, parts in ours.items()}}
    lines = ["| seconds a frame | encode | one UNet call | decode | rest |", "|---" * 5 + "|"]
    for name, parts in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in astuple(parts)) + " |")
    whole = thesis.frame(THESIS_STEPS)
    lines += ["", "| procedure | steps | s a frame | times faster |", "|---" * 4 + "|"]
    lines.append(f"| thesis: 1 frame, float32 | {THESIS_STEPS} | {whole:.2f} | 1.0 |")
    for variant, parts in ours.items():
        for count in steps:
            seconds = parts.frame(count)
            lines.append(f"| ours: {kind(variant)} | {count} | {seconds:.2f} | {whole / seconds:.1f} |")
    return "\n".join(lines)
