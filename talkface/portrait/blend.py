"""Put a generated face back: what is generated, what is shown, matching colours, pasting without a seam.

The mask of generation says what the network must repaint; the mask of blending says what of the result is
used. The latter is face-shaped, feathered, and lies inside the former. Not a segmentation of the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from talkface.errors import TalkfaceError
from talkface.portrait.crop import ANCHORS, AlignedCrop, invert, warp

MASK_KINDS = ("lower_face", "thesis", "nose")
LOWER_FACE = (0.12, 0.46, 0.88, 1.0)  # left, top, right, bottom
FEATHER = 0.07
# Detail of the source is kept where the generated crop differs from the source by less than about this.
DETAIL_TOLERANCE = 10.0


def _centres(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative x (1, size) and y (size, 1) of the pixel centres."""
    steps = (np.arange(size, dtype=np.float32) + 0.5) / size
    return steps[None, :], steps[:, None]


def generation_mask(size: int, kind: str = "lower_face", landmarks: np.ndarray | None = None) -> np.ndarray:
    """float32 (size, size); 1 where the network repaints, 0 where it sees the picture.

    Args:
        kind: "lower_face": a box from above the nose base to the bottom, fixed; "thesis": everything from
            just above the lips down, which needs the true film; "nose": everything from the nose base down.
        landmarks: (68, 2) in pixels of the crop; needed by "thesis", used by "nose".

    Raises:
        TalkfaceError: unknown kind, or landmarks missing.
    """
    x, y = _centres(size)
    if kind == "lower_face":
        left, top, right, bottom = LOWER_FACE
        inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    elif kind == "thesis":
        if landmarks is None:
            raise TalkfaceError("mask kind 'thesis' needs the landmarks of each frame; use 'lower_face'")
        top = float(np.min(landmarks[48:68, 1])) / size - 5 / 128
        inside = (y >= top) & (x >= 0)
    elif kind == "nose":
        top = float(ANCHORS[2, 1]) if landmarks is None else float(np.mean(landmarks[31:36, 1])) / size
        inside = (y >= top) & (x >= 0)
    else:
        raise TalkfaceError(f"mask kind: '{kind}'; allowed are {', '.join(MASK_KINDS)}")
    return inside.astype(np.float32)


def _ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """Smoothstep: 0 at distance <= 0, 1 at distance >= width."""
    t = np.clip(distance / width, 0, 1)
    return t * t * (3 - 2 * t)


def blend_mask(size: int, generation: np.ndarray | None = None) -> np.ndarray:
    """float32 (size, size) in [0, 1]: how much of the generated crop is shown.

    Reaches from beside the nose over both cheeks to below the chin of a wide open mouth, with soft edges.

    Args:
        generation: the mask of generation, default "lower_face"; the result is 0 wherever it is 0.
    """
    x, y = _centres(size)
    across, down = (x - 0.5) / 0.37, (y - 0.62) / 0.37
    oval = _ramp(0.37 * (1 - np.sqrt(across**2 + down**2)), FEATHER)
    below = _ramp(y - 0.475, FEATHER)
    if generation is None:
        generation = generation_mask(size)
    # distance to the nearest pixel that is not generated, or to the border of the crop
    framed = np.pad((generation > 0.5).astype(np.uint8), 1)
    inner = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1] / size
    return (oval * below * _ramp(inner, FEATHER / 2)).astype(np.float32)


def face_mask(size: int) -> np.ndarray:
    """float32 (size, size) in [0, 1]: how much of a whole edited face is shown, from forehead to below the chin.

    A wide oval that fades out towards the border of the crop, for changes that are small there anyway.
    """
    x, y = _centres(size)
    across, down = (x - 0.5) / 0.48, (y - 0.5) / 0.49
    return _ramp(0.48 * (1 - np.sqrt(across**2 + down**2)), 2 * FEATHER).astype(np.float32)


def mouth_area(size: int) -> np.ndarray:
    """float32 (size, size) in [0, 1]: where an opened mouth may show teeth and tongue, with soft edges."""
    x, y = _centres(size)
    across, down = (x - 0.5) / 0.22, (y - 0.71) / 0.17
    return _ramp(0.2 * (1 - np.sqrt(across**2 + down**2)), FEATHER).astype(np.float32)


def colour_ring(size: int) -> np.ndarray:
    """bool (size, size): skin of nose and upper cheeks on both sides of the upper edge of generation.

    Speech hardly moves it, so the generated crop and the original should agree there.
    """
    x, y = _centres(size)
    return (y >= 0.40) & (y <= 0.53) & (np.abs(x - 0.5) <= 0.29)


@dataclass(frozen=True, eq=False)
class ColourMap:
    """Per channel of RGB in [0, 255]: out = gain * in + offset, each float64 (3,)."""

    gain: np.ndarray
    offset: np.ndarray

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) RGB -> the same, recoloured."""
        levels = np.arange(256, dtype=np.float32)[:, None]
        recoloured = levels * self.gain.astype(np.float32) + self.offset.astype(np.float32)
        table = np.clip(np.rint(recoloured), 0, 255).astype(np.uint8)
        found: np.ndarray = cv2.LUT(image, table[None])
        return found

    def towards(self, other: ColourMap, share: float) -> ColourMap:
        """Move by `share` (0 to 1) to `other`."""
        gain = self.gain + share * (other.gain - self.gain)
        return ColourMap(gain, self.offset + share * (other.offset - self.offset))


def estimate_colour(generated: np.ndarray, original: np.ndarray, ring: np.ndarray) -> ColourMap:
    """Mean and spread of each channel of `generated` -> those of `original`, over `ring`, outliers left out.

    Reinhard et al., "Color transfer between images", 2001, restricted to pixels that should be equal: those
    whose difference is far from the median difference (a moved edge, an occlusion) do not count. In RGB, not
    in the paper's opponent space: on skin with planted shifts of gain, offset, gamma, contrast, saturation
    and exposure both leave the same error.

    Args:
        generated, original: uint8 (S, S, 3) RGB.
        ring: bool (S, S).
    """
    chosen = np.flatnonzero(ring)
    if len(chosen) < 16:
        return ColourMap(np.ones(3), np.zeros(3))
    # channels first: each of the steps below reads along long rows
    source, target = (
        np.ascontiguousarray(image.reshape(-1, 3)[chosen].T).astype(np.float64)
        for image in (generated, original)
    )
    difference = target - source
    distance = np.abs(difference - np.median(difference, axis=1, keepdims=True)).max(axis=0)
    kept = distance <= max(3.0, 3 * 1.4826 * float(np.median(distance)))
    source, target = source[:, kept], target[:, kept]
    # a flat ring says nothing about the spread; the added variance then holds the gain at 1
    gain = np.sqrt((target.var(axis=1) + 9.0) / (source.var(axis=1) + 9.0))
    gain = np.clip(gain, 0.8, 1.25)
    return ColourMap(gain, target.mean(axis=1) - gain * source.mean(axis=1))


def match_colour(generated: np.ndarray, original: np.ndarray, ring: np.ndarray | None = None) -> np.ndarray:
    """Recolour `generated` so that it agrees with `original` over `ring`, default `colour_ring`."""
    ring = colour_ring(generated.shape[0]) if ring is None else ring
    return estimate_colour(generated, original, ring).apply(generated)


class ColourMatcher:
    """`match_colour` for the frames of one clip: the correction changes slowly, so that nothing flickers.

    Args:
        inertia: share of the previous correction that is kept, 0 to below 1. A matcher serves one clip.
        ring: bool (S, S), default `colour_ring`.
    """

    def __init__(self, inertia: float = 0.9, ring: np.ndarray | None = None):
        self.inertia = inertia
        self.ring = ring
        self._current: ColourMap | None = None

    def __call__(self, generated: np.ndarray, original: np.ndarray) -> np.ndarray:
        """uint8 (S, S, 3) both; returns `generated` recoloured."""
        ring = colour_ring(generated.shape[0]) if self.ring is None else self.ring
        found = estimate_colour(generated, original, ring)
        self._current = found if self._current is None else self._current.towards(found, 1 - self.inertia)
        return self._current.apply(generated)


def paste(
    frame: np.ndarray,
    generated: np.ndarray,
    crop: AlignedCrop,
    mask: np.ndarray,
    *,
    keep_detail: bool = True,
    flow: np.ndarray | None = None,
) -> np.ndarray:
    """Return `frame` with `generated` put where `crop` was cut, weighted by `mask`; `frame` is not changed.

    Only pixels that the warped mask reaches are touched. With `keep_detail`, pores and grain that the way to the crop
    and back costs are taken from the frame wherever the generated crop agrees with the original one, so that the face
    does not get a blurred patch; pasting the crop itself then gives the frame back exactly. With
    `flow`, skin that moved takes its pores and grain along.

    Args:
        frame: uint8 (H, W, 3), the picture that `crop` was cut from.
        generated: uint8 (G, G, 3); G may differ from the size of the crop.
        mask: float32 (M, M) in [0, 1], see `blend_mask`.
        flow: float32 (S, S, 3) on the grid of the crop: pixels right and down to where the skin shown at a place is
            in the crop, and how much of it is skin (0 to 1).
    """
    return PlaceOfCrop(frame, crop, mask)(generated, keep_detail=keep_detail, flow=flow)


class PlaceOfCrop:
    """`paste` for many generated pictures in the same place of the same frame.

    Args:
        frame, crop, mask: see `paste`; neither is copied.
    """

    def __init__(self, frame: np.ndarray, crop: AlignedCrop, mask: np.ndarray) -> None:
        self.frame, self.crop, self.mask = frame, crop, mask
        self._back = invert(crop.matrix)
        height, width = frame.shape[:2]
        self._left = self._top = self._right = self._bottom = 0
        rows, columns = np.nonzero(mask > 0)
        if len(rows) == 0:
            return
        # one more pixel around the mask, because interpolation spreads it
        low = np.array([columns.min() - 1, rows.min() - 1]) * crop.size / mask.shape[0]
        high = np.array([columns.max() + 2, rows.max() + 2]) * crop.size / mask.shape[0]
        corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
        box = corners @ self._back[:, :2].T + self._back[:, 2]
        self._left, self._top = np.clip(np.floor(box.min(axis=0)).astype(int), 0, (width, height))
        self._right, self._bottom = np.clip(np.ceil(box.max(axis=0)).astype(int), 0, (width, height))

    @property
    def _is_empty(self) -> bool:
        return bool(self._left >= self._right or self._top >= self._bottom)

    @cached_property
    def _original(self) -> np.ndarray:
        return self.frame[self._top : self._bottom, self._left : self._right].astype(np.float32)

    @cached_property
    def _weight(self) -> np.ndarray:
        warped = self._to_frame(self.mask.astype(np.float32), cv2.BORDER_CONSTANT)
        weight: np.ndarray = np.clip(warped, 0, 1)[:, :, None]
        return weight

    @cached_property
    def _finer(self) -> np.ndarray:
        """What the frame has beyond the crop."""
        finer: np.ndarray = self._original - self._to_frame(self.crop.image.astype(np.float32))
        return finer

    @cached_property
    def _places(self) -> np.ndarray:
        y, x = np.indices(self._original.shape[:2], dtype=np.float32)
        return np.stack([x, y], axis=-1)

    def _to_frame(self, image: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        scaled = self._back[:, :2] * (self.crop.size / image.shape[0])
        matrix = np.column_stack([scaled, self._back[:, 2] - (self._left, self._top)])
        return warp(image, matrix, self._bottom - self._top, self._right - self._left, border)

    def __call__(
        self, generated: np.ndarray, *, keep_detail: bool = True, flow: np.ndarray | None = None
    ) -> np.ndarray:
        """The frame with `generated`; see `paste`."""
        result = self.frame.copy()
        if self._is_empty:
            return result
        blended = self._to_frame(generated.astype(np.float32))
        if keep_detail:
            blended += self._detail(generated, flow)
        blended -= self._original
        blended *= self._weight
        blended += self._original
        np.rint(blended, out=blended)
        # where the weight is 0 the frame's own bytes come back
        np.clip(blended, 0, 255, out=blended)
        result[self._top : self._bottom, self._left : self._right] = blended.astype(np.uint8)
        return result

    def _detail(self, generated: np.ndarray, flow: np.ndarray | None) -> np.ndarray:
        """What the frame has beyond the crop: in its place where the generated crop agrees with the original; elsewhere
        where the flow leads, turned and scaled to the frame."""
        size, detail = self.crop.size, self._finer
        resized = cv2.resize(generated, (size, size), interpolation=cv2.INTER_AREA)
        red, green, blue = cv2.split(cv2.absdiff(resized, self.crop.image))
        difference = cv2.max(cv2.max(red, green), blue).astype(np.float32)
        spread = cv2.dilate(cv2.GaussianBlur(difference, (0, 0), 0.01 * size), np.ones((3, 3), np.uint8))
        agreed = np.exp(-((spread / DETAIL_TOLERANCE) ** 2))
        share = self._to_frame(agreed)[:, :, None]
        if flow is None:
            kept: np.ndarray = share * detail
            return kept
        moved = self._to_frame(flow)
        at = moved[:, :, :2] @ self._back[:, :2].T.astype(np.float32) + self._places
        carried: np.ndarray = cv2.remap(
            detail, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
        carried *= (1.0 - share) * moved[:, :, 2:]
        carried += share * detail
        return carried
