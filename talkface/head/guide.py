"""A photograph animated by its fitted head: the guide of the talking face, and by itself a film without any network.

The mesh is drawn at the wanted actions and pose. A pixel of skin or lips looks the photograph up where the same place
of the skin was seen under the photograph's own expression; inside of the mouth, teeth and tongue are shaded by the
model in the light that the photograph's skin shows. What the mesh does not cover is left as it is given.

Only the lower face is drawn, from below the eyes to below the chin; towards the eyes and the ears it fades into the
canvas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.head.fit import FittedHead
from talkface.head.model import PARTS, HeadModel
from talkface.head.raster import Fragments, rasterize_fragments

# metres on the mean head, whose origin lies between the eyeballs. What is drawn at all: the whole front, since the
# upper face hides what lies behind it; and where the drawing fades out: towards the eyes and towards the ears.
_DRAWN_TOP, _DRAWN_BOTTOM, _DRAWN_BACK = 0.045, -0.150, -0.085
_FADE_TOP, _FADE_BACK = (-0.022, -0.012), (-0.035, -0.065)
_INSIDE = ("mouth", "upper_teeth", "lower_teeth", "tongue")
# linear RGB of the inside under the light that makes skin of average colour look as bright as the photograph's
_INSIDE_COLOURS = {
    "mouth": (0.30, 0.065, 0.055),
    "upper_teeth": (0.62, 0.57, 0.50),
    "lower_teeth": (0.56, 0.51, 0.44),
    "tongue": (0.50, 0.15, 0.13),
}
_REACH = {
    "mouth": 0.007,
    "upper_teeth": 0.017,
    "lower_teeth": 0.017,
    "tongue": 0.0085,
}  # metres the light reaches in
_UPPER_EDGE, _LOWER_EDGE = (60, 61, 62, 63, 64), (60, 67, 66, 65, 64)  # landmarks along the inner lips
_LIP_MARGIN = 0.012  # of the picture's side
_SKIN_LIGHTNESS = 0.28  # linear luminance of average skin in even light


@dataclass(frozen=True)
class GuideSource:
    """B photographs with their heads, ready to be animated.

    Attributes:
        images: (B, 3, S, S) in [-1, 1]. places: (B, V, 2), where each vertex is seen, in [-1, 1] of the picture.
        light: (B, 3), linear RGB: how bright white would be in the photograph's light.
    """

    fitted: FittedHead
    images: Tensor
    places: Tensor
    light: Tensor

    def __getitem__(self, rows: slice | Tensor) -> GuideSource:
        return GuideSource(self.fitted[rows], self.images[rows], self.places[rows], self.light[rows])


class Guide:
    """Animates photographs with `head`.

    Args:
        head: the model.
        supersample: pixels of the z-buffer per pixel of the picture and axis; the edges are averages of them.
    """

    def __init__(self, head: HeadModel, supersample: int = 2) -> None:
        self.head, self.supersample = head, supersample
        corners = head.mean[head.faces]
        low, high = corners.amin(1), corners.amax(1)
        inside = head.part(*_INSIDE)
        near = (high[:, 1] < _DRAWN_TOP) & (low[:, 1] > _DRAWN_BOTTOM) & (low[:, 2] > _DRAWN_BACK)
        kept = (near & head.part("skin", "lips", "eye")) | inside
        used, compact = head.faces[kept].unique(return_inverse=True)
        self.vertices, self.faces, self.parts = used, compact.view(-1, 3), head.parts[kept]
        self.is_inside = inside[kept]
        self.mean, self.identity = head.mean[used], head.identity[:, used].flatten(1)
        self.actions = head.actions[:, used].flatten(1)
        self.shown = _fade(self.mean[:, 1], *_FADE_TOP) * _fade(
            -self.mean[:, 2], -_FADE_BACK[0], -_FADE_BACK[1]
        )
        self.lips = head.landmarks[[62, 66]]
        cheeks = head.part("skin")[kept] & (self.mean[self.faces][:, :, 1].amax(1) < -0.03)
        cheeks &= self.mean[self.faces][:, :, 2].amin(1) > -0.03
        self.skin = self.faces[cheeks].unique()
        index = torch.arange(len(used), device=used.device)
        place = torch.full((head.num_vertices,), -1, device=used.device).index_put((used,), index)
        self.lip_rows = place[self.lips]
        line = self.mean[self.lip_rows, 1].mean()
        lips = self.faces[self.parts == PARTS.index("lips")].unique()
        self.upper_lip, self.lower_lip = lips[self.mean[lips, 1] >= line], lips[self.mean[lips, 1] < line]

    def _shape(self, identity: Tensor, actions: Tensor) -> Tensor:
        moved = identity.to(self.mean) @ self.identity + actions.to(self.mean) @ self.actions
        return self.mean + moved.view(len(moved), -1, 3)

    def source(self, images: Tensor, fitted: FittedHead, points: Tensor | None = None) -> GuideSource:
        """Look at photographs once.

        Args:
            images: (B, 3, S, S) in [-1, 1]; `fitted`: their B heads, in the pixels of these pictures.
            points: (B, 68, 2) landmarks; given, lips are never looked up between the lips of an open mouth, or teeth
                would stay painted on them.
        """
        seen = fitted.project(self._shape(fitted.identity, fitted.actions))[..., :2]
        if points is not None:
            seen = self._off_the_teeth(seen, points.to(seen), _LIP_MARGIN * images.shape[-1])
        places = seen * (2.0 / images.shape[-1]) - 1.0
        skin = _look_up(images, places[:, self.skin])
        brightness = skin.quantile(0.7, dim=1)
        # half of what skin is darker or lighter than average is its own colour, half the light's
        light = (brightness / brightness.mean(1, keepdim=True).clamp(min=1e-3)) ** 0.3
        lightness = brightness @ brightness.new_tensor([0.2126, 0.7152, 0.0722])
        light = light * (lightness / _SKIN_LIGHTNESS)[:, None] ** 0.6
        return GuideSource(fitted, images, places, light)

    def _off_the_teeth(self, seen: Tensor, points: Tensor, margin: float) -> Tensor:
        """Move lips (B, V, 2) that were fitted into the open mouth back over its edge. Heads stand about upright."""
        result = seen.clone()
        for number, face in enumerate(points):
            for rows, edge, sign in ((self.upper_lip, _UPPER_EDGE, -1.0), (self.lower_lip, _LOWER_EDGE, 1.0)):
                x, y = seen[number, rows].unbind(1)
                upper = _interpolate(x, face[list(_UPPER_EDGE)])
                lower = _interpolate(x, face[list(_LOWER_EDGE)])
                own = upper if edge is _UPPER_EDGE else lower
                parted = (lower - upper > 2 * margin) & (x > face[60, 0]) & (x < face[64, 0])
                bound = torch.maximum(sign * y, sign * own + margin) * sign
                result[number, rows, 1] = torch.where(parted, bound, y)
        return result

    def __call__(
        self, source: GuideSource, actions: Tensor, pose: FittedHead, canvas: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw.

        Args:
            source: T photographs or one.
            actions: (T, 52) in [0, 1]: the wanted expression, not a change of the photograph's.
            pose: T heads or one, whose rotation, scale and translation are taken, in the pixels of the result.
            canvas: (T, 3, S, S) in [-1, 1], S as in `source`: what shows where no mesh is.

        Returns:
            pictures (T, 3, S, S) in [-1, 1]; coverage (T, 1, S, S) in [0, 1].
        """
        count, size = len(actions), canvas.shape[-1]
        shaped = self._shape(source.fitted.identity.expand(count, -1), actions)
        whole = FittedHead(
            *(getattr(pose, name).expand(count, *getattr(pose, name).shape[1:]) for name in _POSE)
        )
        screen = whole.project(shaped)
        fine = self.supersample
        seen = rasterize_fragments(
            screen * screen.new_tensor([fine, fine, 1.0]), self.faces, size * fine, size * fine
        )

        # 1. skin and lips come from the photograph
        places = torch.cat(
            [source.places, self.shown[None, :, None].expand(len(source.places), -1, 1)], dim=2
        )
        at = seen.interpolate(self.faces, places.expand(count, -1, -1))
        colour, shown = _sample(source.images, seen, at[:, :2]), at[:, 2:].to(canvas)
        # 2. the inside of the mouth from the model
        inner = self.is_inside[seen.face].nonzero().squeeze(1)
        if len(inner):
            colour[inner] = self._inside(seen.select(inner), shaped, source.light.expand(count, -1))
        # 3. average down over the canvas
        flat = canvas.new_zeros(count * (size * fine) ** 2, 4)
        flat[seen.pixel] = torch.cat([colour.to(flat) * shown, shown], dim=1)
        flat = flat.view(count, size * fine, size * fine, 4).permute(0, 3, 1, 2)
        small = F.avg_pool2d(flat, fine)
        covered = small[:, 3:]
        return canvas * (1.0 - covered) + small[:, :3], covered

    def _inside(self, seen: Fragments, shaped: Tensor, light: Tensor) -> Tensor:
        """Colours (Q, 3) in [-1, 1]: darker the farther behind the lips, less so the wider they part."""
        lips = shaped[:, self.lip_rows]
        opening = (lips[:, 0, 1] - lips[:, 1, 1]).clamp(min=0)
        behind = lips[:, :, 2].mean(1, keepdim=True) - shaped[..., 2]
        depth = seen.interpolate(self.faces, behind[..., None]).squeeze(1).clamp(min=0)
        numbers = self.parts[seen.face]
        table = torch.zeros(len(PARTS), 4, device=depth.device)
        for name in _INSIDE:
            table[PARTS.index(name)] = torch.tensor([*_INSIDE_COLOURS[name], _REACH[name]])
        albedo, reach = table[numbers][:, :3], table[numbers][:, 3]
        wide = opening[seen.batch]
        fall = torch.exp(-depth / (reach + 0.35 * wide)) * (0.35 + 0.65 * (wide / 0.010).clamp(max=1.0))
        linear = albedo * light[seen.batch] * fall[:, None]
        return linear.clamp(1e-4, 1.0) ** (1 / 2.2) * 2.0 - 1.0


_POSE = tuple(FittedHead.__annotations__)


def _fade(values: Tensor, start: float, end: float) -> Tensor:
    """1 up to `start`, smoothly down to 0 at `end`."""
    t = ((end - values) / (end - start)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _interpolate(x: Tensor, corners: Tensor) -> Tensor:
    """y (N,) at x (N,) of a line through corners (K, 2) from left to right, level beyond its ends."""
    right = torch.searchsorted(corners[:, 0].contiguous(), x.contiguous()).clamp(1, len(corners) - 1)
    (x0, y0), (x1, y1) = corners[right - 1].unbind(1), corners[right].unbind(1)
    return y0 + (y1 - y0) * ((x - x0) / (x1 - x0).clamp(min=1e-6)).clamp(0.0, 1.0)


def _look_up(images: Tensor, places: Tensor) -> Tensor:
    """Linear RGB (B, N, 3) of pictures at places (B, N, 2) in [-1, 1]."""
    found = F.grid_sample(
        images.float(), places[:, :, None].float(), padding_mode="border", align_corners=False
    )
    return ((found[..., 0].transpose(1, 2) + 1.0) / 2.0).clamp(0, 1) ** 2.2


def _sample(images: Tensor, seen: Fragments, places: Tensor) -> Tensor:
    """Colours (P, 3) of the fragments' places (P, 2) in [-1, 1], each in its picture."""
    if len(images) == 1:
        found = F.grid_sample(
            images, places[None, :, None].to(images), padding_mode="border", align_corners=False
        )
        return found[0, :, :, 0].T.contiguous()
    colours = []
    for number, part in enumerate(places.split(torch.bincount(seen.batch, minlength=len(images)).tolist())):
        grid = part[None, :, None].to(images)
        found = F.grid_sample(images[number : number + 1], grid, padding_mode="border", align_corners=False)
        colours.append(found[0, :, :, 0].T)
    return torch.cat(colours)
