"""Train the mouth stage of the landmarks on rendered mouths: render once into a cache, then train for some time.

    python scripts/train_mouth.py --out build/mouth --pictures 6000 --minutes 15

Both halves resume: rendered parts stay in `<out>/renders`, the state of training in `<out>/state.pt`. The result is
`<out>/mouth.safetensors` and `<out>/mouth.json` (class path and arguments). No photograph of a person is used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from talkface.data.base import EMOTIONS
from talkface.data.synthetic.appearance import Person, sample_person
from talkface.data.synthetic.motion import emotion_actions
from talkface.data.synthetic.pose import move
from talkface.data.synthetic.scene import Scene, render
from talkface.experts.mouth_network import MouthNetwork
from talkface.head.model import ACTIONS, HeadModel
from talkface.training.mouth import train_mouth
from talkface.training.mouth_crops import MouthSampler

SIDE = 160
# The camera stands close: the crop that the network sees takes about two thirds of the picture.
FACE_SCALE, MOUTH_BELOW_CENTRE = 1.45, 0.175
FRAMES_PER_PERSON = 8
PICTURES_PER_PART = 256


def random_mouths(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 52) facial actions, mostly of the mouth. Some exceed 1: the widest smiles of people do, too."""
    column = {name: index for index, name in enumerate(ACTIONS)}
    actions = np.zeros((count, len(ACTIONS)), np.float32)

    def put(row: np.ndarray, value: float, *names: str) -> None:
        for name in names:
            for side in [name] if name in column else [name + "Left", name + "Right"]:
                row[column[side]] = value

    for row in actions:
        kind, strength = rng.random(), float(rng.beta(1.3, 1.3))
        busy = rng.random(len(ACTIONS)) < rng.uniform(0.0, 0.25)
        row[:] = np.where(busy, 0.7 * rng.beta(1.2, 3.0, len(ACTIONS)), 0)
        put(row, 0.0, "jawOpen", "mouthClose", "tongueOut", "mouthLowerDown", "mouthUpperUp", "mouthFunnel")
        if kind < 0.24:  # the teeth show, the jaw is nearly closed
            put(row, 1.6 * strength, "mouthSmile")
            put(row, float(rng.uniform(0.0, 1.6)), "mouthUpperUp")
            put(row, float(rng.uniform(0.0, 1.6)), "mouthLowerDown")
            put(row, 0.6 * rng.random() ** 2, "mouthStretch")
            put(row, max(0.0, float(rng.uniform(-0.25, 0.3))), "jawOpen")
        elif kind < 0.48:
            put(row, strength if rng.random() < 0.4 else 0.5 * strength, "jawOpen")
            put(row, max(0.0, float(rng.uniform(-0.6, 0.8))), "mouthUpperUp")
            put(row, max(0.0, float(rng.uniform(-0.6, 1.0))), "mouthLowerDown")
        elif kind < 0.60:
            put(row, strength, "mouthPucker" if rng.random() < 0.6 else "mouthFunnel")
            put(row, max(0.0, float(rng.uniform(-0.2, 0.5))), "jawOpen")
        elif kind < 0.68:
            put(row, strength, "mouthStretch")
            put(row, max(0.0, float(rng.uniform(-0.2, 0.6))), "jawOpen")
        elif kind < 0.88:  # closed in one of many ways
            name = (
                "mouthPress",
                "mouthSmile",
                "mouthFrown",
                "mouthRollLower",
                "mouthShrugLower",
                "mouthDimple",
            )
            put(row, 0.8 * strength, name[int(rng.integers(len(name)))])
            if rng.random() < 0.25:
                opened = float(rng.uniform(0.1, 0.8))
                put(row, opened, "jawOpen", "mouthClose")
        else:
            feeling = EMOTIONS[int(rng.integers(len(EMOTIONS)))]
            row[:] = np.maximum(row, emotion_actions(feeling, float(rng.uniform(0.3, 1.2))))
            put(row, max(0.0, float(rng.uniform(-0.3, 0.6))), "jawOpen")
        if rng.random() < 0.3:  # one side follows less
            side = "Left" if rng.random() < 0.5 else "Right"
            row[[index for name, index in column.items() if name.endswith(side)]] *= float(rng.random())
    return actions


def random_poses(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 6) head poses: yaw to 60 degrees, pitch to 30, small roll (crops are rolled later)."""
    pose = np.zeros((count, 6), np.float32)
    yaw = np.where(rng.random(count) < 0.65, rng.normal(0, 14, count), rng.uniform(-60, 60, count))
    pose[:, 0] = np.deg2rad(np.clip(rng.normal(0, 11, count), -30, 30))
    pose[:, 1] = np.deg2rad(np.clip(yaw, -60, 60))
    pose[:, 2] = np.deg2rad(rng.normal(0, 5, count))
    return pose


def mouth_person(number: int, head: HeadModel, rng: np.random.Generator) -> Person:
    """A person whose lips may be as pale as the skin, and whose teeth vary more than the corpus needs."""
    person = sample_person(number, head)
    paleness = float(rng.random()) if rng.random() < 0.6 else 0.0
    lips = torch.lerp(person.lips, person.skin * float(rng.uniform(0.75, 1.1)), paleness)
    numbers = person.numbers | {"teeth_drop": float(rng.uniform(-0.002, 0.004))}
    teeth = person.teeth * float(rng.uniform(0.8, 1.9))
    return replace(person, lips=lips, teeth=teeth, glasses=False, numbers=numbers)


def render_person(
    head: HeadModel, rng: np.random.Generator, number: int, size: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and landmarks of one person, the mouth in the middle."""
    person = mouth_person(number, head, rng)
    scene = Scene(number, face_scale=FACE_SCALE * float(rng.uniform(0.9, 1.1)), jitter=0.0)
    scene.shift = (0.0, -MOUTH_BELOW_CENTRE * scene.face_scale)
    pose = torch.from_numpy(random_poses(rng, FRAMES_PER_PERSON)).to(device)
    still = torch.zeros(1, len(ACTIONS), device=device)
    lips = head(person.identity[None].to(device), still)[0, head.landmarks[48:]].mean(0)
    # The head turns about its neck: the shift that brings the mouth back before the camera.
    pose[:, 3:] = lips - move(lips.expand(len(pose), 1, 3), pose, torch.ones(1, device=device))[:, 0]
    actions = torch.from_numpy(random_mouths(rng, FRAMES_PER_PERSON))
    # No supersampling: crops are shrunk and blurred anyway.
    frames = render(head, person, actions, pose, scene, size=size, supersample=1, device=device)
    return frames.images.cpu().numpy(), frames.landmarks.cpu().numpy()


def render_mouths(
    folder: Path, pictures: int, *, seed: int = 0, device: str = "cpu", size: int = SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Render at least `pictures` mouths into `folder` in parts; parts that exist are kept.

    Returns:
        (N, size, size, 3) uint8 pictures and (N, 68, 2) float32 landmarks, many of them outside the picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    head = HeadModel.load().to(device)
    images, landmarks = [], []
    for part in range(math.ceil(pictures / PICTURES_PER_PART)):
        path = folder / f"part{part:04d}_{size}_{seed}.npz"
        if not path.exists():
            rng = np.random.default_rng([seed, part, 0x307])
            frames = []
            for person in range(PICTURES_PER_PART // FRAMES_PER_PERSON):
                number = (seed * 10_000 + part) * 1_000 + 500 + person
                frames.append(render_person(head, rng, number, size, device))
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, images=np.concatenate([f[0] for f in frames]),
                     landmarks=np.concatenate([f[1] for f in frames]))  # fmt: skip
            partial.replace(path)
            print(f"rendered {(part + 1) * PICTURES_PER_PART} mouths", flush=True)
        with np.load(path) as stored:
            images.append(stored["images"])
            landmarks.append(stored["landmarks"])
    return np.concatenate(images), np.concatenate(landmarks)


def train(
    folder: Path,
    *,
    pictures: int,
    seconds: float,
    seed: int = 0,
    device: str = "cpu",
    bfloat16: bool = True,
    start: Path | None = None,
    learning_rate: float = 2e-3,
) -> MouthNetwork:
    """Render, train and save under `folder`; picks up where an earlier run stopped.

    Args:
        start: weights (`mouth.safetensors`, of a bundle perhaps) to begin with.
    """
    images, landmarks = render_mouths(folder / "renders", pictures, seed=seed, device=device)
    torch.manual_seed(seed)
    network = MouthNetwork()
    if start is not None:
        network.load_state_dict(safetensors.torch.load_file(start))
    train_mouth(
        network,
        MouthSampler(images, landmarks, size=network.image_size, seed=seed),
        seconds=seconds,
        learning_rate=learning_rate,
        device=device,
        bfloat16=bfloat16,
        checkpoint=folder / "state.pt",
        log=lambda line: print(line, flush=True),
    )
    save(network, folder)
    return network


def save(network: MouthNetwork, folder: Path) -> None:
    """Write `mouth.safetensors` and `mouth.json`."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, folder / "mouth.safetensors")
    spec = {"class_path": "talkface.experts.mouth_network.MouthNetwork", "init_args": {}}
    (folder / "mouth.json").write_text(json.dumps(spec, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for renders, state and weights")
    parser.add_argument("--pictures", type=int, default=6_000, help="rendered mouths (default 6000)")
    parser.add_argument("--minutes", type=float, default=15.0, help="training time (default 15)")
    parser.add_argument(
        "--start", type=Path, help="mouth.safetensors to begin with (default: nothing learnt)"
    )
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at its highest (default 2e-3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    train(
        options.out,
        pictures=options.pictures,
        seconds=60 * options.minutes,
        seed=options.seed,
        device=options.device,
        start=options.start,
        learning_rate=options.learning_rate,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
