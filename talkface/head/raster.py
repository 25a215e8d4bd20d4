"""Batched z-buffer triangle rasteriser in plain PyTorch: the same code runs on CPU and CUDA, without display
or GL.

Every triangle of the batch is cut into pixel rows and every row into the span of pixels whose centre lies
inside (scan conversion, Wylie et al. 1967); rows and spans are expanded to flat lists with
`repeat_interleave`, so that no Python loop runs over triangles or pictures. Visibility is one
`scatter_reduce(amin)` on 64-bit keys (depth bits above, triangle number below), hence independent of the
order of execution. Interpolation is perspective correct: 1/z and attribute/z are linear on the screen (Blinn
1992).

It is not differentiable with respect to visibility and does no anti-aliasing: render larger and average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_EMPTY = torch.iinfo(torch.int64).max
_NEAR = 1e-4
_EDGE_SLACK = 1e-4
"""Pixels; two triangles that share an edge both claim a pixel centre on it, so that rounding leaves no
hole."""


class Window(NamedTuple):
    """Pixels of a picture: rows from `top` to before `bottom`, columns from `left` to before `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.right)

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def scaled(self, factor: int) -> Window:
        """The same part of a picture that is `factor` times as large."""
        return Window(*(factor * value for value in self))


@dataclass
class Fragments:
    """The visible pixels of a batch of pictures, as a flat list of P entries sorted by pixel."""

    pixel: Tensor
    """(P,) int64, ((batch * height) + row) * width + column, rows and columns counted in the window."""
    face: Tensor
    """(P,) int64, row of `faces`."""
    batch: Tensor
    """(P,) int64, number of the picture."""
    barycentric: Tensor
    """(P, 3) perspective-correct weights, sum 1."""
    depth: Tensor
    """(P,) same unit as the z of the vertices."""

    def select(self, which: Tensor) -> Fragments:
        """The fragments numbered `which` (Q,)."""
        return Fragments(*(getattr(self, name).index_select(0, which) for name in Fragments.__annotations__))

    def interpolate(self, faces: Tensor, values: Tensor) -> Tensor:
        """Values (B, V, C) or (V, C) at the vertices -> (P, C) at the pixels."""
        corners = faces.index_select(0, self.face)
        if values.dim() == 3:
            corners = corners + (self.batch * values.shape[1])[:, None]
            values = values.reshape(-1, values.shape[-1])
        weights = self.barycentric.to(values.dtype)
        result = values.index_select(0, corners[:, 0]) * weights[:, 0:1]
        result = result.addcmul_(values.index_select(0, corners[:, 1]), weights[:, 1:2])
        return result.addcmul_(values.index_select(0, corners[:, 2]), weights[:, 2:3])


def rasterize_fragments(
    vertices_screen: Tensor,
    faces: Tensor,
    height: int,
    width: int,
    *,
    cull: bool = True,
    window: Window | None = None,
) -> Fragments:
    """Find the nearest triangle at every pixel centre.

    Args:
        vertices_screen: (B, V, 3): x to the right and y downwards in pixels (centre of the first pixel =
        0.5), z = distance
            from the camera along its axis, > 0. Triangles with a corner nearer than 1e-4 are left out.
        faces: (F, 3) vertex numbers, counter-clockwise seen from outside.
        cull: leave out triangles that show their back.
        window: the part of the pictures that is wanted, within `height` and `width`; None: all. Its pixels are exactly
            those of the whole.
    """
    seen = Window(0, height, 0, width) if window is None else window
    batch_size, device = vertices_screen.shape[0], vertices_screen.device
    points = vertices_screen.float()
    corners = [points.index_select(1, faces[:, corner]) for corner in range(3)]  # each (B, F, 3)
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = (corner.unbind(-1) for corner in corners)

    # 1. Keep the triangles that can cover a pixel centre. Screen y points down, so an outside view has
    # negative area.
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    facing = ((area < -1e-9) if cull else (area.abs() > 1e-9)).reshape(-1).nonzero().squeeze(1)
    triangle_x, triangle_y, triangle_z = (
        torch.stack([value.reshape(-1)[facing] for value in axis], dim=1)
        for axis in ((x0, x1, x2), (y0, y1, y2), (z0, z1, z2))
    )
    top = (triangle_y.amin(1) - 0.5).ceil().clamp(min=seen.top)
    bottom = (triangle_y.amax(1) - 0.5).floor().clamp(max=seen.bottom - 1)
    keep = (bottom >= top) & (triangle_z.amin(1) > _NEAR)
    keep &= (triangle_x.amax(1) > seen.left) & (triangle_x.amin(1) < seen.right)
    which = facing[keep]
    triangle_x, triangle_y, top, bottom = triangle_x[keep], triangle_y[keep], top[keep], bottom[keep]
    inverse_z = triangle_z[keep].reciprocal()
    sign = area.reshape(-1)[which].sign()

    # 2. Edge functions e_i(px, py) = a_i px + b_i py + c_i: twice the area opposite corner i, positive
    # inside.
    next_x, next_y = triangle_x[:, [1, 2, 0]], triangle_y[:, [1, 2, 0]]
    last_x, last_y = triangle_x[:, [2, 0, 1]], triangle_y[:, [2, 0, 1]]
    a = (next_y - last_y) * sign[:, None]
    b = (last_x - next_x) * sign[:, None]
    c = -(a * next_x + b * next_y)
    total = (a * triangle_x + b * triangle_y + c).mean(1, keepdim=True)
    gradient_x = (a * inverse_z / total).sum(1)
    gradient_y = (b * inverse_z / total).sum(1)
    offset = inverse_z[:, 0] - gradient_x * triangle_x[:, 0] - gradient_y * triangle_y[:, 0]

    # 3. One entry per triangle and pixel row: the span of columns inside all three edges. What a row needs of
    # its triangle is packed side by side: one gather fetches it. Level edges bound no side; the corners do.
    rows = (bottom - top + 1).long()
    divisor = torch.where(a == 0, 1.0, a)
    packed = torch.cat(
        [-b / divisor, -c / divisor, a, triangle_x.amin(1, keepdim=True), triangle_x.amax(1, keepdim=True)]
        + [value[:, None] for value in (offset, gradient_y, gradient_x, top)],
        dim=1,
    )
    triangle = torch.repeat_interleave(torch.arange(len(which), device=device), rows)
    of_row = packed.index_select(0, triangle)
    start = (rows.cumsum(0) - rows).index_select(0, triangle)
    row = torch.arange(len(triangle), device=device) - start + of_row[:, 14].long()
    row_centre = row.float() + 0.5
    crossing = torch.addcmul(of_row[:, 3:6], of_row[:, 0:3], row_centre[:, None])
    slope = of_row[:, 6:9]
    left = torch.maximum(torch.where(slope > 0, crossing, -float("inf")).amax(1), of_row[:, 9])
    right = torch.minimum(torch.where(slope < 0, crossing, float("inf")).amin(1), of_row[:, 10])
    first = (left - 0.5 - _EDGE_SLACK).ceil().clamp(min=seen.left).long()
    last = (right - 0.5 + _EDGE_SLACK).floor().clamp(max=seen.right - 1).long()
    columns = (last - first + 1).clamp(min=0)

    # 4. One entry per covered pixel; nearest wins.
    span = torch.repeat_interleave(torch.arange(len(columns), device=device), columns)
    picture = which // max(faces.shape[0], 1)
    back = first - (columns.cumsum(0) - columns)  # column of a pixel = its place in the list + back
    line_start = (picture.index_select(0, triangle) * seen.height + row - seen.top) * seen.width - seen.left
    whole = torch.stack([line_start, back, triangle], dim=1)
    whole = whole.index_select(0, span)
    line = torch.stack([torch.addcmul(of_row[:, 11], of_row[:, 12], row_centre), of_row[:, 13]], dim=1)
    line = line.index_select(0, span)
    column = torch.arange(len(span), device=device) + whole[:, 1]
    depth = torch.addcmul(line[:, 0], line[:, 1], column.float() + 0.5).clamp(min=1e-9).reciprocal()
    key = (depth.view(torch.int32).long() << 32) | whole[:, 2]
    buffer = torch.full((batch_size * seen.height * seen.width,), _EMPTY, dtype=torch.int64, device=device)
    buffer.scatter_reduce_(0, whole[:, 0] + column, key, "amin")

    # 5. Barycentric weights of the winners, from screen-linear to perspective-correct.
    pixel = (buffer != _EMPTY).nonzero().squeeze(1)
    winner = buffer.index_select(0, pixel) & 0xFFFFFFFF
    column_centre = (pixel % seen.width + seen.left).float() + 0.5
    row_centre = ((pixel // seen.width) % seen.height + seen.top).float() + 0.5
    edge = torch.cat([a, b, c, inverse_z], dim=1).index_select(0, winner)
    weights = torch.addcmul(edge[:, 6:9], edge[:, 0:3], column_centre[:, None])
    weights = weights.addcmul_(edge[:, 3:6], row_centre[:, None]).clamp_(min=0)
    # screen weights w_i of corners with depth z_i: 1/z = sum w_i / z_i
    inverse_depth = (weights * edge[:, 9:12]).sum(1, keepdim=True)
    depth = (weights.sum(1, keepdim=True) / inverse_depth.clamp(min=1e-20)).squeeze(1)
    weights = weights * edge[:, 9:12] / inverse_depth.clamp(min=1e-20)
    chosen = which.index_select(0, winner)
    return Fragments(pixel, chosen % max(faces.shape[0], 1), picture.index_select(0, winner), weights, depth)


def rasterize(
    vertices_screen: Tensor, faces: Tensor, height: int, width: int, *, cull: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Dense form of `rasterize_fragments`.

    Returns:
        face index (B, H, W) int64 with -1 where nothing is seen; barycentric weights (B, H, W, 3),
        perspective correct, 0 where nothing is seen; depth (B, H, W), infinite where nothing is seen.
    """
    found = rasterize_fragments(vertices_screen, faces, height, width, cull=cull)
    shape, device = (vertices_screen.shape[0], height, width), vertices_screen.device
    face = torch.full(shape, -1, dtype=torch.int64, device=device)
    barycentric = torch.zeros((*shape, 3), device=device)
    depth = torch.full(shape, float("inf"), device=device)
    face.view(-1)[found.pixel] = found.face
    barycentric.view(-1, 3)[found.pixel] = found.barycentric
    depth.view(-1)[found.pixel] = found.depth
    return face, barycentric, depth
