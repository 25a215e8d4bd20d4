"""Seconds and peak memory of a step of CLIP-guided finetuning: plain, checkpointed, one step of the path at a time.

    python scripts/bench_finetune.py                       # smoke and bundle size
    python scripts/bench_finetune.py --only paper --batch-size 1 --rounds 1

Every measurement is a process of its own: its peak is VmHWM (resident memory, Linux), what it had before the first step
is given too, for weights and libraries are the same in all; seconds are processor time of one thread, the median of
--rounds steps. Weights are random: neither depends on them. At paper size the experts are CLIP ViT-B/16 and IR-SE50 in
their real sizes; a batch of 4 of plain backpropagation does not fit small machines, so give --batch-size 1 there and
multiply what is above the start. The text features are measured in the same run: computed once for all 36 directions,
and as the thesis's code has it, 79 templates x 2 prompts x 4 samples = 632 sentences at every step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import markdown, positive, run
from torch import nn

from talkface.checkpoint import instantiate
from talkface.diffusion.tuning import MEMORY
from talkface.errors import TalkfaceError
from talkface.experts.clip import FaceCLIP, ImageTextEncoder
from talkface.experts.prompts import GUIDING_PROMPTS, IMAGENET_TEMPLATES, text_features
from talkface.experts.recognition import ArcFaceRecogniser, FaceEmbedder
from talkface.training.clip_guide import ClipGuide
from talkface.training.edit_path import EditPath
from talkface.training.finetune import ClipFinetuneModule

ROOT = Path(__file__).resolve().parents[1]
SIZES = {
    "smoke": "smoke/ldm.yaml",
    "bundle": "synth/clip_finetune.yaml",
    "paper": "clip_finetune_affectnet.yaml",
}
SIDES = {"smoke": 32, "bundle": 128, "paper": 128}
WORDS = sorted({word for prompt in GUIDING_PROMPTS for word in prompt.split()})


class RandomCLIP(ImageTextEncoder):
    """ViT-B/16 as OpenAI published it, with random weights and random words."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPConfig, CLIPModel

        vision = {"patch_size": 16, "hidden_size": 768, "intermediate_size": 3072}
        vision |= {"num_hidden_layers": 12, "num_attention_heads": 12}
        self.model = CLIPModel(CLIPConfig(text_config={}, vision_config=vision, projection_dim=512))
        self.image_size, self.dim = 224, 512

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        seen = nn.functional.interpolate(images, size=(224, 224), mode="bicubic", antialias=True)
        pooled = self.model.vision_model(pixel_values=seen).pooler_output
        return nn.functional.normalize(self.model.visual_projection(pooled), dim=-1)

    def encode_texts(self, texts: Any) -> torch.Tensor:
        rows = [[sum(map(ord, word)) % 49000 for word in text.split()][:16] for text in texts]
        tokens = torch.tensor([[49406, *row, *[49407] * (17 - len(row))] for row in rows])
        pooled = self.model.text_model(input_ids=tokens).pooler_output
        return nn.functional.normalize(self.model.text_projection(pooled), dim=-1)


def build(size: str, path: EditPath) -> ClipFinetuneModule:
    """The module of a configuration, random."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / SIZES[size]))
    model = config["model"]["init_args"]
    stage = model["first_stage"]["init_args"]
    factor = (stage.get("patch_size") or 1) * 2 ** (len(stage["channel_mult"]) - 1)
    stage["image_size"] = SIDES[size]
    model["network"]["init_args"]["image_size"] = SIDES[size] // factor
    if frames := model["conditioner"]["init_args"]["conditioners"].get("frames"):
        frames["init_args"] |= {
            "latent_channels": stage["latent_channels"],
            "latent_size": SIDES[size] // factor,
        }
    parts = {name: instantiate(model[name]) for name in ("network", "first_stage", "schedule", "conditioner")}
    experts = (
        (RandomCLIP(), ArcFaceRecogniser(weights=None))
        if size == "paper"
        else (FaceCLIP(vocabulary=WORDS), FaceEmbedder())
    )
    return ClipFinetuneModule(
        **parts, guide=ClipGuide(*experts), path=path, prediction_type=model["prediction_type"]
    )


def random_batch(module: ClipFinetuneModule, size: str, count: int) -> dict[str, torch.Tensor]:
    """What a step reads."""
    images, labels = torch.rand(count, 3, SIDES[size], SIDES[size]) * 2 - 1, torch.arange(count) % 8
    with torch.no_grad():
        latents = module.first_stage.encode(images)
    batch = {"noisy_latents": latents, "source": images, "label": labels, "target": (labels + 1) % 7}
    if size == "bundle":
        batch |= {"reference_latents": latents, "guide_latents": latents}
    return batch


def peak() -> float:
    """Of this process until now, MB (2^20 bytes)."""
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    return int(status["VmHWM"].split()[0]) / 1024


def measure(size: str, memory: str, steps: int, count: int, rounds: int) -> dict[str, float]:
    """One kind of step, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = build(size, EditPath(tuning_steps=steps, memory=memory))
    batch = random_batch(module, size, count)
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=1e-9)
    module.guide.directions(torch.device("cpu"))
    for (
        parameter
    ) in module.network.parameters():  # what every step needs: gradients and the optimizer's state
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    before, seconds = peak(), []
    for number in range(rounds):
        started = time.process_time()
        edited = module.edit(batch, memory, torch.Generator().manual_seed(number))
        module.guide.total(module.guide(edited, batch["source"], batch["label"], batch["target"])).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        seconds.append(time.process_time() - started)
    return {"seconds": median(seconds), "before": before, "peak": peak()}


def measure_texts(size: str) -> dict[str, float]:
    """Seconds of the sentences of one step, and of looking their directions up."""
    torch.set_num_threads(1)
    clip: ImageTextEncoder = RandomCLIP() if size == "paper" else FaceCLIP(vocabulary=WORDS)
    guide = ClipGuide(clip.eval(), templates="imagenet")
    sources, targets = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 4])
    started = time.process_time()
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):  # 2 x 79 sentences for each sample
            text_features(clip, [GUIDING_PROMPTS[source], GUIDING_PROMPTS[target]], IMAGENET_TEMPLATES)
    again = time.process_time() - started
    started = time.process_time()
    guide.directions(torch.device("cpu"))
    once = time.process_time() - started
    started = time.process_time()
    for _ in range(1000):
        _ = guide.directions(torch.device("cpu"))[sources, targets]
    return {"again": again, "once": once, "looked_up": (time.process_time() - started) / 1000}


def child(*arguments: str) -> dict[str, float]:
    """Run this script for one measurement. Raises: TalkfaceError: it failed."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", *arguments], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise TalkfaceError(
            f"measurement {' '.join(arguments)}: exit code {done.returncode}, see its message above"
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=tuple(SIZES), nargs="+", default=["smoke", "bundle"])
    parser.add_argument(
        "--steps", type=positive, nargs="+", default=[2, 6, 8], help="T_tune (default: 2 6 8)"
    )
    parser.add_argument("--memory", choices=MEMORY, nargs="+", default=list(MEMORY))
    parser.add_argument("--batch-size", type=positive, default=4)
    parser.add_argument(
        "--rounds", type=positive, default=3, help="steps, of which the median is taken (default: 3)"
    )
    parser.add_argument("--no-texts", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        size, memory, *numbers = options.child
        found = measure_texts(size) if memory == "texts" else measure(size, memory, *map(int, numbers))
        print(json.dumps(found))
        return 0
    if not Path("/proc/self/status").is_file():
        raise TalkfaceError("peak memory: /proc/self/status does not exist; measure on Linux")
    for size in options.only:
        body = []
        for memory in options.memory:
            first = None
            for steps in options.steps:
                found = child(size, memory, str(steps), str(options.batch_size), str(options.rounds))
                first = first or found["peak"]
                grown = f"{found['peak'] / first - 1:+.0%}"
                numbers = [
                    f"{found['seconds']:.2f}",
                    f"{found['peak']:.0f}",
                    f"{found['peak'] - found['before']:.0f}",
                ]
                body.append([memory, str(steps), *numbers, grown])
                print(f"{size} {memory} {steps}: {found}", file=sys.stderr, flush=True)
        print(f"{size}, batch {options.batch_size}\n")
        heads = [
            "",
            "T_tune",
            "s a step",
            "peak MB",
            "of it the step's",
            f"peak against T_tune {options.steps[0]}",
        ]
        print(markdown(heads, body) + "\n", flush=True)
        if not options.no_texts:
            texts = child(size, "texts")
            print(
                f"Texts: {texts['again']:.2f} s for 632 sentences at every step; {texts['once']:.2f} s once for all "
                f"directions and {1e6 * texts['looked_up']:.0f} us a step: {texts['again'] / texts['looked_up']:.0f} "
                "times as fast.\n",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    run("bench_finetune", main)
