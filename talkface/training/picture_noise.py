"""What happens to a face between a clean render and a bad photograph: things in front of it, light, lens,
codec.

Everything works on uint8 (S, S, 3) pictures and takes a numpy generator.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def dead_leaves(rng: np.random.Generator, size: int, count: int = 160) -> Picture:
    """Discs, boxes and strokes that cover each other, sizes by a power law: the simplest model with the
    statistics of natural pictures (Lee, Mumford and Huang, "Occlusion models for natural images", IJCV 2001).
    Some are skin-coloured, some in groups of parallel fingers."""
    picture = np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
    base = rng.integers(0, 256, (4, 3))
    for _ in range(count):
        colour = base[rng.integers(4)] + rng.integers(-50, 51, 3)
        if rng.random() < 0.25:
            colour = _skin(rng)
        _leaf(rng, picture, np.clip(colour, 0, 255), size * 0.5 * (rng.random() ** 2.5 + 0.02))
    if rng.random() < 0.6:
        light = cv2.resize(
            rng.normal(1, 0.25, (4, 4)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
        )
        grain = rng.normal(0, rng.uniform(0, 14), (size, size, 1)).astype(np.float32)
        picture = np.clip(picture * light[..., None] + grain, 0, 255).astype(np.uint8)
    return picture


def _skin(rng: np.random.Generator) -> NDArray[np.int64]:
    tone = rng.uniform(0.25, 1.0)
    return (np.array([235, 185, 150]) * tone + rng.integers(-15, 16, 3)).astype(np.int64)


def _leaf(rng: np.random.Generator, picture: Picture, colour: NDArray[np.integer], radius: float) -> None:
    size = picture.shape[0]
    x, y = (int(value) for value in rng.integers(0, size, 2))
    paint = tuple(int(value) for value in colour)
    kind = rng.random()
    angle = float(rng.uniform(0, 180))
    if kind < 0.4:
        axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.3, 1))))
        cv2.ellipse(picture, (x, y), axes, angle, 0, 360, paint, -1, cv2.LINE_AA)
    elif kind < 0.75:
        box = cv2.boxPoints(((x, y), (2 * radius, 2 * radius * float(rng.uniform(0.1, 1))), angle))
        cv2.fillPoly(picture, [box.astype(np.int32)], paint, cv2.LINE_AA)
    else:
        direction = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
        width = max(2, int(radius * 0.3))
        for finger in range(int(rng.integers(1, 5))):
            start = np.array([x, y]) + finger * 1.15 * width * direction[::-1] * [1, -1]
            stop = start + direction * radius * rng.uniform(1, 2.2)
            cv2.line(picture, _integers(start), _integers(stop), paint, width, cv2.LINE_AA)


def _integers(point: NDArray[np.floating]) -> tuple[int, int]:
    return int(point[0]), int(point[1])


def cover_face(
    rng: np.random.Generator, picture: Picture, points: NDArray[np.floating] | None, texture: Picture
) -> Picture:
    """Put one thing in front: shapes, fingers, a textured patch; with known landmarks also a hat or dark
    glasses."""
    picture = picture.copy()
    size = picture.shape[0]
    kind = rng.random()
    if points is not None and kind < 0.25:  # a hat: everything above a line over the brows
        right, left = points[17:22].mean(0), points[22:27].mean(0)
        along = left - right
        up = np.array([along[1], -along[0]])
        lift = rng.uniform(0.15, 0.7)
        corners = [
            right - along + up * lift,
            left + along + up * lift,
            left + along + up * 3,
            right - along + up * 3,
        ]
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [np.array(corners).astype(np.int32)], 255, cv2.LINE_AA)
        cloth = np.full_like(picture, rng.integers(0, 256, 3)) if rng.random() < 0.6 else texture
        return np.where(mask[..., None] > 127, cloth, picture)
    if points is not None and kind < 0.4:  # dark glasses
        shade = tuple(int(value) for value in rng.integers(0, 60, 3))
        for eye in (points[36:42], points[42:48]):
            half = max(2.0, float(np.linalg.norm(np.ptp(eye, axis=0))))
            axes = (max(1, int(half * rng.uniform(0.6, 0.9))), max(1, int(half * rng.uniform(0.4, 0.7))))
            slope = points[45] - points[36]
            cv2.ellipse(
                picture, _integers(eye.mean(0)), axes, float(np.rad2deg(np.arctan2(slope[1], slope[0]))),
                0, 360, shade, -1, cv2.LINE_AA,
            )  # fmt: skip
        return picture
    if kind < 0.6:  # a patch of another picture
        low = rng.integers(0, size - 16, 2)
        high = np.minimum(low + rng.integers(16, size // 2, 2), size)
        picture[low[0] : high[0], low[1] : high[1]] = texture[low[0] : high[0], low[1] : high[1]]
        return picture
    for _ in range(int(rng.integers(1, 4))):
        colour = _skin(rng) if rng.random() < 0.5 else rng.integers(0, 256, 3)
        _leaf(rng, picture, np.clip(colour, 0, 255), size * rng.uniform(0.05, 0.22))
    return picture


def degrade(rng: np.random.Generator, picture: Picture) -> Picture:
    """Light, colour, lens, size, noise, compression, each with its own probability."""
    size = picture.shape[0]
    image: NDArray[Any] = picture.astype(np.float32) / 255
    if rng.random() < 0.15:  # flat regions and soft edges, as in paintings and in smoothed phone pictures
        image = cv2.medianBlur(picture, int(rng.choice([3, 5]))).astype(np.float32) / 255
    if rng.random() < 0.35:  # light from one side
        angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.75)
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        slope = ramp[None] * np.cos(angle) + ramp[:, None] * np.sin(angle)
        image *= np.clip(1 + strength * slope, 0.1, 2)[..., None].astype(np.float32)
    if rng.random() < 0.7:
        image = np.clip(image, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.3)))
        mean = image.mean()
        contrast, brightness = np.exp(rng.normal(0, 0.25)), rng.normal(0, 0.06)
        image = (image - mean) * np.float32(contrast) + mean + np.float32(brightness)
    if rng.random() < 0.5:
        image *= np.exp(rng.normal(0, 0.13, 3)).astype(np.float32)
    if rng.random() < 0.45:
        grey = image.mean(2, keepdims=True)
        amount = 0.0 if rng.random() < 0.5 else float(rng.uniform(0.2, 1.8))
        image = grey + (image - grey) * np.float32(amount)
    if rng.random() < 0.12:
        image *= np.float32(rng.uniform(0.12, 0.5))
    if rng.random() < 0.3:
        small = int(np.exp(rng.uniform(np.log(24), np.log(110))) * size / 128)
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    elif rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.8)))
    elif rng.random() < 0.12:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
        image = cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1e-6))
    if rng.random() < 0.4:
        grain = rng.standard_normal((size, size, 3 if rng.random() < 0.5 else 1), np.float32)
        image = image + grain * np.float32(rng.uniform(0.005, 0.07))
    result = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.35:
        _, code = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 95))])
        result = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return result
