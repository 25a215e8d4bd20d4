"""Processor seconds of editing one 128-pixel picture with the paper's networks: the thesis's procedure and ours.

    python scripts/bench_editing.py --calls 2 --rounds 3
    python scripts/bench_editing.py --no-speed --bundle emotion --pictures faces/

Both use the same weights (UNet 156.76 M, VQGAN 60.61 M, random: time does not depend on their values), 40 steps up, 40
down, guidance 3 both ways. Runs alternate, so that other work on the machine falls on all alike; one thread, time that
the processor worked. All network calls of a procedure cost the same: a few are timed, a picture is
encode + 80 x median call + decode.

The thesis's procedure is written anew here: float32, attention by separate products, channels first, one picture at a
time. Its code puts both branches of guidance into one batch; two calls are shown beside it. Ours is the pipeline:
fused attention, channels last, both branches and `group` pictures in a batch, bfloat16 where asked; it decodes twice,
since it shows differences.

With --pictures (aligned faces), what solvers of a bundle lose on the way to noise and back under the same expression,
against the first stage's reconstruction.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import MethodType
from typing import Any

import torch
from measuring import PICTURES, files_in, positive
from torch import Tensor, nn

from talkface.checkpoint import Bundle
from talkface.conditioning.base import ConditionerSet, Conditioning
from talkface.conditioning.face import EmotionConditioner
from talkface.diffusion.timesteps import editing_timesteps
from talkface.errors import TalkfaceError
from talkface.media import read_image
from talkface.metrics.paired import psnr
from talkface.networks.layers import CrossAttention
from talkface.networks.unet import UNet
from talkface.networks.vqgan import VQGAN
from talkface.pipelines.emotion_edit import EmotionEditPipeline
from talkface.pipelines.expression import single
from talkface.pipelines.latent_editing import EditSettings

STEPS, GUIDANCE, SIZE, SEED = 40, 3.0, 128, 0
CYCLES = (("ddim", 40), ("ddim", 10), ("plms", 10), ("dpm++2m", 10), ("dpm++2m", 20), ("dpm++2m", 40))


@dataclass(frozen=True)
class Cost:
    """Processor seconds for one picture: encoding, one network call, decoding."""

    encode: float
    call: float
    decode: float

    def picture(self, steps: int = STEPS) -> float:
        """The whole edit."""
        return self.encode + 2 * steps * self.call + self.decode


def paper_bundle() -> Bundle:
    """The networks of conf/ldm_affectnet.yaml, random weights."""
    torch.manual_seed(SEED)
    conditioner = ConditionerSet({"emotion": EmotionConditioner(num_classes=8, dim=512)})
    network = UNet(in_channels=3, out_channels=3, model_channels=160, context_dim=512)
    parts: dict[str, nn.Module] = {"network": network, "first_stage": VQGAN(), "conditioner": conditioner}
    for part in parts.values():
        part.eval().requires_grad_(False)
        for parameter in part.parameters():
            if not parameter.any():  # layers that begin with zero must not be cheaper
                nn.init.normal_(parameter, std=0.02)
    schedule = {"class_path": "talkface.diffusion.schedule.NoiseSchedule"}
    meta = {"image_size": SIZE, "schedule": schedule, "prediction_type": "epsilon"}
    return Bundle(parts, {}, meta, Path("paper"), torch.device("cpu"))


def separate_attention(self: CrossAttention, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Attention as latent diffusion computed it: all products in memory, heads folded into the batch."""
    source = x if context is None else context
    batch, heads = x.shape[0], self.num_heads

    def fold(t: Tensor) -> Tensor:
        return t.reshape(batch, t.shape[1], heads, -1).permute(0, 2, 1, 3).flatten(0, 1)

    q, k, v = fold(self.to_q(x)), fold(self.to_k(source)), fold(self.to_v(source))
    weights = (torch.einsum("bid,bjd->bij", q, k) * q.shape[-1] ** -0.5).softmax(dim=-1)
    out = torch.einsum("bij,bjd->bid", weights, v)
    return self.to_out(out.reshape(batch, heads, x.shape[1], -1).permute(0, 2, 1, 3).flatten(2))


def as_the_thesis(module: nn.Module) -> Any:
    """A copy (of the same class) with the same weights, channels first and with separate attention."""
    import copy

    copied: Any = copy.deepcopy(module)
    copied.to(memory_format=torch.contiguous_format)
    for layer in copied.modules():
        if isinstance(layer, CrossAttention):
            # one layer of this copy computes as the thesis's code does; mypy knows methods of classes only
            layer.forward = MethodType(separate_attention, layer)  # type: ignore[method-assign]
    return copied


class Thesis:
    """Its procedure, one picture at a time; `double`: both branches of guidance in one batch, as its code has it."""

    def __init__(self, bundle: Bundle) -> None:
        self.network = as_the_thesis(bundle.part("network"))
        self.first_stage = as_the_thesis(bundle.part("first_stage"))
        self.conditioner = bundle.part("conditioner")
        self.levels = bundle.build("schedule").alpha_bar(torch.arange(1000)).tolist()

    def noise(self, x: Tensor, step: int, label: int, double: bool) -> Tensor:
        """eps(null) + 3 (eps(label) - eps(null))."""
        rows = [self.conditioner({"emotion": torch.tensor([one])}) for one in (-1, label)]
        time_ = torch.full((1,), step)
        if double:
            both = self.network(torch.cat([x, x]), torch.cat([time_, time_]), Conditioning.cat(rows))
            nothing, told = both.chunk(2)
        else:
            nothing, told = (self.network(x, time_, row) for row in rows)
        return nothing + GUIDANCE * (told - nothing)

    @torch.no_grad()
    def run(self, image: Tensor, calls: int, double: bool, now: Callable[[], float]) -> Cost:
        """Encode, the first `calls` steps of the inversion, decode."""
        start = now()
        x = self.first_stage.encode(image)
        encoded = now()
        times = [0, *editing_timesteps(STEPS, 500).tolist()]
        spent = []
        for before, after in pairwise(times[: calls + 1]):
            begun = now()
            eps = self.noise(x, after, 0, double)
            a, b = self.levels[before], self.levels[after]
            x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
            x = b**0.5 * x0 + (1 - b) ** 0.5 * eps
            spent.append(now() - begun)
        begun = now()
        self.first_stage.decode(x)
        return Cost(encoded - start, median(spent), now() - begun)


class Ours:
    """The pipeline, `group` pictures at a time."""

    def __init__(self, bundle: Bundle, precision: str, group: int) -> None:
        self.pipeline = EmotionEditPipeline(bundle, precision, finder=object(), group=group)
        self.group = group

    def run(self, image: Tensor, calls: int, now: Callable[[], float]) -> Cost:
        """Encode, `calls` steps of an inversion, decode twice; shares of one picture."""
        images = image.expand(self.group, -1, -1, -1)
        sources = [single(0, self.pipeline.emotions)] * self.group
        settings = EditSettings(num_inference_steps=calls, guidance_scale=GUIDANCE)
        start = now()
        latents = self.pipeline.encode(images)
        encoded = now()
        noisy = self.pipeline.editor.invert(latents, sources, settings, shown=self.pipeline.shown(latents))
        inverted = now()
        for part in (latents, noisy):
            self.pipeline.decode(part)
        parts = (encoded - start, (inverted - encoded) / calls, now() - inverted)
        return Cost(*(part / self.group for part in parts))


def speed(rounds: int, calls: int, groups: list[int], precisions: list[str]) -> str:
    """Markdown: the parts, whole pictures, how many times faster than the thesis's procedure."""
    torch.set_num_threads(1)
    now = time.process_time
    bundle = paper_bundle()
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(SEED)) * 2 - 1
    thesis = Thesis(bundle)  # copied before the pipeline changes the layout of the weights
    runs: dict[str, Callable[[], Cost]] = {
        "thesis: 1 picture, float32": lambda: thesis.run(image, calls, True, now),
        "the same, two calls for guidance": lambda: thesis.run(image, calls, False, now),
    }
    for precision in precisions:
        for group in groups:
            ours = Ours(bundle, precision, group)
            runs[f"ours: {group} pictures, {precision}"] = partial(ours.run, image, calls, now)
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            cost = run()
            if number:  # the first round warms up
                costs[name].append(cost)
        print(f"round {number} of {rounds} done", file=sys.stderr)
    lines = [
        f"Measured: {calls} calls of each procedure, {rounds} rounds; a picture is extrapolated to {STEPS} + {STEPS} "
        "steps. Processor seconds, one thread.",
        "",
        "| procedure | encode | one guided call | decode | s a picture | times faster |",
        "|---|---|---|---|---|---|",
    ]
    first = None
    for name, found in costs.items():
        middle = Cost(
            *(median(getattr(cost, field) for cost in found) for field in ("encode", "call", "decode"))
        )
        first = first or middle.picture()
        lines.append(
            f"| {name} | {middle.encode:.2f} | {middle.call:.3f} | {middle.decode:.2f} | {middle.picture():.1f} "
            f"| {first / middle.picture():.2f} |"
        )
    return "\n".join(lines)


def cycles(bundle: str, folder: Path, most: int) -> str:
    """Markdown: PSNR of the cycle against the first stage's reconstruction, by solver, steps and guidance."""
    pipeline = EmotionEditPipeline.from_pretrained(bundle)
    files = files_in(folder, PICTURES, "--pictures")[:most]
    images = pipeline.images([pipeline.cut(read_image(path), str(path), aligned=True) for path in files])
    latents = pipeline.encode(images)
    plain = pipeline.decode(latents)
    sources = pipeline.sources(images, pipeline.source_expression("auto"))
    lines = [
        f"{len(files)} pictures, strength 500.",
        "",
        "| solver | steps | guidance | PSNR | least |",
        "|---" * 5 + "|",
    ]
    for scale in (1.0, GUIDANCE):
        for solver, steps in CYCLES:
            settings = replace(
                pipeline.defaults, solver=solver, num_inference_steps=steps, guidance_scale=scale, grid=None
            )
            back = pipeline.decode(
                pipeline.editor.edit(latents, sources, sources, settings, None, pipeline.shown(latents))
            )
            found = psnr(back, plain)
            lines.append(
                f"| {solver} | {steps} + {steps} | {scale:g} | {found.mean():.2f} | {found.min():.2f} |"
            )
            print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--calls", type=positive, default=2, help="network calls timed in each run (default: 2)")
    add(
        "--rounds",
        type=positive,
        default=3,
        help="runs of each procedure, after one that warms up (default: 3)",
    )
    add("--groups", type=positive, nargs="+", default=[1, 4], help="pictures in a batch (default: 1 4)")
    add("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"], help="default: both")
    add("--no-speed", action="store_true", help="only the cycles")
    add("--bundle", default="emotion", help="whose cycles (default: emotion)")
    add(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="aligned faces for the cycles; without it there are none",
    )
    add("--most", type=positive, default=32, help="pictures used (default: 32)")
    return made


def main() -> int:
    """Print the tables."""
    options = parser().parse_args()
    try:
        if not options.no_speed:
            print(speed(options.rounds, options.calls, options.groups, options.precisions))
        if options.pictures is not None:
            print(cycles(options.bundle, options.pictures, options.most))
    except TalkfaceError as error:
        print(f"bench_editing: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
