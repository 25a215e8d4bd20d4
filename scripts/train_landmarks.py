"""Train the bundled landmark network on rendered heads: render once into a cache, then train for some time.

    python scripts/train_landmarks.py --out build/landmarks --pictures 12000 --minutes 15

Both halves resume: rendered parts stay in `<out>/renders`, the state of training in `<out>/state.pt`. The
result is `<out>/landmarks.safetensors` and `<out>/landmarks.json` (class path and arguments). No photograph
of a person is used; the pictures of scikit-image named below serve as examples of what is not a face, when
that package is installed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.scene import Scene, render
from talkface.experts.landmark_network import LandmarkNetwork
from talkface.head.model import ACTIONS, HeadModel
from talkface.training.landmark_crops import CropSampler, average_shape
from talkface.training.landmarks import train_landmarks

# Freely licensed pictures without a face, all shipped inside the scikit-image wheel.
FACELESS = ("coffee", "chelsea", "rocket", "hubble_deep_field", "brick", "grass", "gravel", "text")
SIDE = 192
FRAMES_PER_PERSON = 8
PICTURES_PER_PART = 256


def random_actions(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 52) facial actions: mouth shapes of speech and feeling, with more extremes than life."""
    actions = np.zeros((count, len(ACTIONS)), np.float32)
    column = {name: index for index, name in enumerate(ACTIONS)}

    def put(row: np.ndarray, value: float, *names: str) -> None:
        for name in names:
            row[column[name]] = value

    for row in actions:
        busy = rng.random(len(ACTIONS)) < rng.uniform(0.0, 0.3)
        row[:] = np.where(busy, rng.beta(1.2, 2.5, len(ACTIONS)), 0)
        put(row, 0.0, "mouthClose", "tongueOut")
        mouth = rng.random()
        strength = float(rng.beta(1.5, 1.2))
        if mouth < 0.3:
            put(row, strength, "jawOpen")
        elif mouth < 0.5:  # a smile, most of them with teeth
            put(row, strength, "mouthSmileLeft", "mouthSmileRight")
            put(row, strength * rng.random(), "mouthUpperUpLeft", "mouthUpperUpRight")
            put(row, strength * rng.random(), "mouthLowerDownLeft", "mouthLowerDownRight")
            put(row, 0.4 * rng.random(), "jawOpen")
        elif mouth < 0.62:
            put(row, strength, "mouthPucker" if rng.random() < 0.6 else "mouthFunnel")
            put(row, 0.5 * rng.random(), "jawOpen")
        elif mouth < 0.72:
            put(row, strength, "mouthStretchLeft", "mouthStretchRight")
            put(row, 0.6 * rng.random(), "jawOpen")
        if rng.random() < 0.25:
            put(row, float(rng.uniform(0.3, 1)), "eyeBlinkLeft", "eyeBlinkRight")
        gaze, tilt = rng.uniform(-0.7, 0.7, 2)
        put(row, max(gaze, 0), "eyeLookOutLeft", "eyeLookInRight")
        put(row, max(-gaze, 0), "eyeLookInLeft", "eyeLookOutRight")
        put(row, max(tilt, 0), "eyeLookUpLeft", "eyeLookUpRight")
        put(row, max(-tilt, 0), "eyeLookDownLeft", "eyeLookDownRight")
    return actions


def random_poses(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 6) head poses: yaw to 60 degrees, pitch to 30, small roll (crops are rolled later)."""
    pose = np.zeros((count, 6), np.float32)
    yaw = np.where(rng.random(count) < 0.5, rng.normal(0, 15, count), rng.uniform(-60, 60, count))
    pose[:, 0] = np.deg2rad(np.clip(rng.normal(0, 11, count), -30, 30))
    pose[:, 1] = np.deg2rad(np.clip(yaw, -60, 60))
    pose[:, 2] = np.deg2rad(rng.normal(0, 8, count))
    return pose


def _render_person(
    head: HeadModel, rng: np.random.Generator, number: int, size: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    person = sample_person(number, head)
    scene = Scene(number, face_scale=float(rng.uniform(0.5, 0.95)), jitter=1.0)
    frames = render(
        head,
        person,
        torch.from_numpy(random_actions(rng, FRAMES_PER_PERSON)),
        torch.from_numpy(random_poses(rng, FRAMES_PER_PERSON)),
        scene,
        size=size,
        supersample=1,  # crops are resampled and blurred anyway
        device=device,
    )
    return frames.images.cpu().numpy(), frames.landmarks.cpu().numpy()


def render_faces(
    folder: Path, pictures: int, *, seed: int = 0, device: str = "cpu", size: int = SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Render at least `pictures` faces into `folder` in parts; parts that exist are kept.

    Returns:
        (N, size, size, 3) uint8 pictures and (N, 68, 2) float32 landmarks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    head = HeadModel.load().to(device)
    images, landmarks = [], []
    for part in range(math.ceil(pictures / PICTURES_PER_PART)):
        path = folder / f"part{part:04d}_{size}_{seed}.npz"
        if not path.exists():
            rng = np.random.default_rng([seed, part])
            frames = []
            for person in range(PICTURES_PER_PART // FRAMES_PER_PERSON):
                number = (seed * 10_000 + part) * 1_000 + person
                frames.append(_render_person(head, rng, number, size, device))
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, images=np.concatenate([f[0] for f in frames]),
                     landmarks=np.concatenate([f[1] for f in frames]))  # fmt: skip
            partial.replace(path)
            print(f"rendered {(part + 1) * PICTURES_PER_PART} faces", flush=True)
        with np.load(path) as stored:
            images.append(stored["images"])
            landmarks.append(stored["landmarks"])
    return np.concatenate(images), np.concatenate(landmarks)


def faceless_pictures() -> list[np.ndarray]:
    """The pictures of `FACELESS` as (H, W, 3) uint8; none when scikit-image is absent."""
    try:
        from skimage import data
    except ImportError:
        return []
    pictures = [np.asarray(getattr(data, name)()) for name in FACELESS]
    return [
        np.repeat(p[..., None], 3, axis=2) if p.ndim == 2 else np.ascontiguousarray(p[..., :3])
        for p in pictures
    ]


def train(
    folder: Path,
    *,
    pictures: int,
    seconds: float,
    seed: int = 0,
    device: str = "cpu",
    bfloat16: bool = True,
) -> LandmarkNetwork:
    """Render, train and save under `folder`; picks up where an earlier run stopped."""
    images, landmarks = render_faces(folder / "renders", pictures, seed=seed, device=device)
    torch.manual_seed(seed)
    sampler = CropSampler(images, landmarks, faceless_pictures(), average_shape(landmarks), seed=seed)
    network = train_landmarks(
        LandmarkNetwork(),
        sampler,
        seconds=seconds,
        device=device,
        bfloat16=bfloat16,
        checkpoint=folder / "state.pt",
        log=lambda line: print(line, flush=True),
    )
    save(network, folder)
    return network


def save(network: LandmarkNetwork, folder: Path) -> None:
    """Write `landmarks.safetensors` and `landmarks.json`."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, folder / "landmarks.safetensors")
    spec = {"class_path": "talkface.experts.landmark_network.LandmarkNetwork", "init_args": {}}
    (folder / "landmarks.json").write_text(json.dumps(spec, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for renders, state and weights")
    parser.add_argument("--pictures", type=int, default=12_000, help="rendered faces (default 12000)")
    parser.add_argument("--minutes", type=float, default=15.0, help="training time (default 15)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    train(
        arguments.out, pictures=arguments.pictures, seconds=60 * arguments.minutes, seed=arguments.seed,
        device=arguments.device,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
