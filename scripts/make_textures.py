"""Write pictures of random overlapping shapes ("dead leaves") that teach a first stage what edges and textures are.

    python scripts/make_textures.py --out textures --num 600

The dead-leaves model (Lee, Mumford & Huang, "Occlusion models for natural images", IJCV 2001) has the edge and
scale statistics of photographs. A first stage trained on rendered faces alone has seen little of hair, cloth, stubble
and film grain; mixed with these pictures it reconstructs photographs better. Everything is drawn from a seed: the
pictures belong to nobody.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from talkface.media import write_image


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float around a random colour: smooth gradient, band-limited noise, stripes or fine grain."""
    # Mostly the muted colours of skin, hair and cloth: saturated ones would take most of a small codebook.
    colour = rng.uniform(10, 245) + rng.normal(0, rng.choice([6, 18, 60], p=[0.4, 0.45, 0.15]), 3)
    base = np.broadcast_to(colour, (size, size, 3)).astype(np.float32)
    kind = rng.integers(4)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    if kind == 0:
        return base + (along * rng.uniform(-80, 80))[..., None]
    if kind == 1:
        cells = int(rng.integers(4, size // 2))
        noise: np.ndarray = rng.normal(
            0, rng.uniform(5, 40), (cells, cells, 3 if rng.random() < 0.3 else 1)
        ).astype(np.float32)
        noise = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
        return base + (noise if noise.ndim == 3 else noise[..., None])
    if kind == 2:
        waves = np.sin(along * rng.uniform(20, 300) + 3 * np.sin(y * rng.uniform(2, 12)))
        return base + (waves * rng.uniform(5, 40))[..., None]
    return base + rng.normal(0, rng.uniform(2, 14), (size, size, 1)).astype(np.float32)


def dead_leaves(rng: np.random.Generator, size: int) -> np.ndarray:
    """One picture (size, size, 3) uint8: shapes with power-law radii, each with a texture of its own."""
    picture = np.clip(texture(rng, size), 0, 255)
    exponent, smallest = rng.uniform(1.3, 2.5), rng.uniform(2, 6)
    for _ in range(int(rng.integers(60, 260))):
        radius = min(size / 2, smallest * rng.pareto(exponent) + smallest)
        centre = rng.uniform(-0.1, 1.1, 2) * size
        mask = np.zeros((size, size), np.uint8)
        if rng.random() < 0.5:
            axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.1, 1))))
            cv2.ellipse(
                mask, centre.astype(int).tolist(), axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA
            )
        else:
            corners = int(rng.integers(3, 8))
            angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
            reach = radius * rng.uniform(0.5, 1, corners)
            points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None]
            cv2.fillPoly(mask, [points.astype(np.int32)], 255, cv2.LINE_AA)
        alpha = mask[..., None].astype(np.float32) / 255
        picture = picture * (1 - alpha) + np.clip(texture(rng, size), 0, 255) * alpha
    if rng.random() < 0.7:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.4))
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_textures(folder: Path, num: int, size: int, seed: int) -> None:
    """Write `num` PNG files; files that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        path = folder / f"leaves{index:05d}.png"
        if not path.is_file():
            write_image(path, dead_leaves(np.random.default_rng([seed, index]), size))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num", type=int, default=600)
    parser.add_argument("--size", type=int, default=160, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_textures(arguments.out, arguments.num, arguments.size, arguments.seed)
