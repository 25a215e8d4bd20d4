"""A photograph animated by its fitted head: the guide of the talking face, and by itself a film without any network.

The mesh is drawn at the wanted actions and pose. A pixel of skin or lips looks the photograph up where the same place
of the skin was seen under the photograph's own expression; inside of the mouth, teeth and tongue are shaded by the
model in the light that the photograph's skin shows. What the mesh does not cover is left as it is given.

Only the lower face is drawn, from below the eyes to below the chin; towards the eyes and the ears it fades into the
canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.head.fit import FittedHead
from talkface.head.inside import COLOURS, GUM, light_inside, lip_line, tooth_pattern
from talkface.head.light import light_on, luminance
from talkface.head.lookup import colours_at, linear_colours
from talkface.head.model import PARTS, HeadModel
from talkface.head.raster import Fragments, Window, rasterize_fragments
from talkface.head.softening import REACH_OF_EDGES, soften_edges
from talkface.head.teeth import lip_edges, own_teeth

# metres on the mean head, whose origin lies between the eyeballs. What is drawn at all: the whole front, since the
# upper face hides what lies behind it; and where the drawing fades out: towards the eyes and towards the ears.
_DRAWN_TOP, _DRAWN_BOTTOM, _DRAWN_BACK = 0.045, -0.150, -0.085
_FADE_TOP, _FADE_BACK = (-0.022, -0.012), (-0.005, -0.035)
_TEETH = ("upper_teeth", "lower_teeth")
_INSIDE = ("mouth", "tongue", *_TEETH)
_TOOTH_WIDTH, _TOOTH_GAP = 0.0078, 0.25
_LIP_MARGIN = 0.012  # of the picture's side


@dataclass(frozen=True)
class GuideSource:
    """B photographs with their heads, ready to be animated.

    Attributes:
        images: (B, 3, S, S) in [-1, 1]. places: (B, V, 2), where each vertex is seen, in [-1, 1] of the picture.
        light: (B, 3), linear RGB: how bright white would be in the photograph's light.
        teeth: (B, 1, S, S) in [0, 1]: where the photograph shows teeth.
        teeth_tint: (B, 3): colour of the teeth relative to the model's, in linear RGB.
        opening: (B,) metres between the lips in the photograph.
    """

    fitted: FittedHead
    images: Tensor
    places: Tensor
    light: Tensor
    teeth: Tensor
    teeth_tint: Tensor
    opening: Tensor

    def __getitem__(self, rows: slice | Tensor) -> GuideSource:
        return GuideSource(
            self.fitted[rows],
            *(getattr(self, name)[rows] for name in GuideSource.__annotations__ if name != "fitted"),
        )


class Drawing(NamedTuple):
    """What is drawn.

    Attributes:
        pictures: (T, 3, S, S) in [-1, 1].
        covered, inside: (T, 1, S, S) in [0, 1], what the mesh covers, and what of it lies inside of the mouth.
        flow: (T, 2, S, S), pixels right and down from a place to where the photograph was looked up for it.
    """

    pictures: Tensor
    covered: Tensor
    inside: Tensor
    flow: Tensor


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
        self.shown[self.faces[self.is_inside].unique()] = 1.0
        self.outline = self.faces[(self.shown[self.faces] > 0).any(1)].unique()
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
        x, y = self.mean[lips, :2].unbind(1)
        marks = head.mean[head.landmarks, :2]
        upper, lower = lip_edges(x, marks)
        # metres on the mean head from where the lips meet; more towards the corners, none but lips are near
        self.from_line = torch.ones_like(self.mean[:, 0])
        towards_corner = ((x / marks[64, 0]).abs() - 0.75).clamp(min=0)
        self.from_line[lips] = (y - 0.5 * (upper + lower)).abs() + 0.008 * towards_corner

    def _shape(self, identity: Tensor, actions: Tensor) -> Tensor:
        moved = identity.to(self.mean) @ self.identity + actions.to(self.mean) @ self.actions
        return self.mean + moved.view(len(moved), -1, 3)

    def source(self, images: Tensor, fitted: FittedHead, points: Tensor | None = None) -> GuideSource:
        """Look at photographs once.

        Args:
            images: (B, 3, S, S) in [-1, 1]; `fitted`: their B heads, in the pixels of these pictures.
            points: (B, 68, 2) landmarks; given, lips are never looked up between the lips of an open mouth, or teeth
                would stay painted on them; and teeth that show there are the person's own from then on.
        """
        shaped = self._shape(fitted.identity, fitted.actions)
        seen = fitted.project(shaped)[..., :2]
        if points is not None:
            seen = self._off_the_teeth(seen, points.to(seen), _LIP_MARGIN * images.shape[-1])
        places = seen * (2.0 / images.shape[-1]) - 1.0
        skin = linear_colours(images, places[:, self.skin])
        brightness = skin.quantile(0.7, dim=1)
        light = light_on(brightness)
        teeth, tint = torch.zeros_like(images[:, :1]), torch.ones_like(light)
        if points is not None:
            teeth, tint = own_teeth(images, points.to(seen), light, luminance(brightness))
        return GuideSource(fitted, images, places, light, teeth, tint, self._opening(shaped))

    def _opening(self, shaped: Tensor) -> Tensor:
        lips = shaped[:, self.lip_rows]
        return (lips[:, 0, 1] - lips[:, 1, 1]).clamp(min=0)

    def _off_the_teeth(self, seen: Tensor, points: Tensor, margin: float) -> Tensor:
        """Move lips (B, V, 2) that were fitted into the open mouth back over its edge. Heads stand about upright."""
        result = seen.clone()
        for number, face in enumerate(points):
            for rows, sign in ((self.upper_lip, -1.0), (self.lower_lip, 1.0)):
                x, y = seen[number, rows].unbind(1)
                upper, lower = lip_edges(x, face)
                own = upper if sign < 0 else lower
                parted = (lower - upper > 2 * margin) & (x > face[60, 0]) & (x < face[64, 0])
                bound = torch.maximum(sign * y, sign * own + margin) * sign
                result[number, rows, 1] = torch.where(parted, bound, y)
        return result

    def __call__(self, source: GuideSource, actions: Tensor, pose: FittedHead, canvas: Tensor) -> Drawing:
        """Draw.

        Args:
            source: T photographs or one.
            actions: (T, 52) in [0, 1]: the wanted expression, not a change of the photograph's.
            pose: T heads or one, whose rotation, scale and translation are taken, in the pixels of the result.
            canvas: (T or 1, 3, S, S) in [-1, 1], S as in `source`: what shows where no mesh is.
        """
        count, size = len(actions), canvas.shape[-1]
        canvas = canvas.expand(count, -1, -1, -1)
        shaped = self._shape(source.fitted.identity.expand(count, -1), actions)
        whole = FittedHead(
            *(getattr(pose, name).expand(count, *getattr(pose, name).shape[1:]) for name in _POSE)
        )
        screen = whole.project(shaped)
        fine, window = self.supersample, self._window(screen, size)
        seen = rasterize_fragments(
            screen * screen.new_tensor([fine, fine, 1.0]),
            self.faces,
            size * fine,
            size * fine,
            window=window.scaled(fine),
        )

        # 1. skin and lips come from the photograph; what only hides others is not needed any more
        fixed = torch.stack([self.shown, self.from_line], dim=1)[None]
        places = torch.cat([source.places, fixed.expand(len(source.places), -1, -1)], dim=2)
        at = seen.interpolate(self.faces, places.expand(count, -1, -1))
        drawn = (at[:, 2] > 0).nonzero().squeeze(1)
        seen, at = seen.select(drawn), at[drawn]
        colour = colours_at(source.images, seen, at[:, :2], "bicubic" if fine == 1 else "bilinear")
        shown = at[:, 2:3].to(canvas)
        colour = (colour + 1.0) * (1.0 - self._lip_line(seen, at[:, 3], shaped, source)) - 1.0
        # 2. the inside of the mouth from the model, but for teeth that the photograph shows
        is_inner = self.is_inside[seen.face]
        inner = is_inner.nonzero().squeeze(1)
        if len(inner):
            colour[inner] = self._inside(seen.select(inner), at[inner, :2], colour[inner], shaped, source)
        # 3. average down over the canvas
        tall, wide = window.height * fine, window.width * fine
        own = torch.stack(
            [
                seen.pixel.remainder(wide) + window.left * fine,
                seen.pixel.div(wide, rounding_mode="floor").remainder(tall) + window.top * fine,
            ],
            dim=1,
        )
        flow = 0.5 * size * (at[:, :2] + 1.0) - (own + 0.5) / fine
        flat = canvas.new_zeros(count * tall * wide, 7)
        flat[seen.pixel] = torch.cat([colour * shown, shown, is_inner[:, None], flow * shown], dim=1).to(flat)
        small = flat.view(count, tall, wide, 7).permute(0, 3, 1, 2)
        small = F.avg_pool2d(small, fine) if fine > 1 else small.contiguous()
        behind = canvas[:, :, window.rows, window.columns]
        part = soften_edges(behind * (1.0 - small[:, 3:4]) + small[:, :3], small[:, 4:5], small[:, 5:], size)
        result = torch.cat([canvas, canvas.new_zeros(count, 4, size, size)], dim=1)
        result[:, :, window.rows, window.columns] = torch.cat([part, small[:, 3:]], dim=1)
        return Drawing(result[:, :3], result[:, 3:4], result[:, 4:5], result[:, 5:])

    def _lip_line(self, seen: Fragments, from_line: Tensor, shaped: Tensor, source: GuideSource) -> Tensor:
        """(P, 1) how dark the line is where lips meet that the photograph shows apart, see `inside.lip_line`."""
        before, now = source.opening.expand(len(shaped)), self._opening(shaped)
        return lip_line(from_line, before[seen.batch], now[seen.batch])[:, None]

    def _window(self, screen: Tensor, size: int) -> Window:
        """Outside of it nothing is drawn; vertices (T, V, 3) in pixels."""
        outline = screen[:, self.outline, :2].flatten(0, 1)
        low = (outline.amin(0).floor() - REACH_OF_EDGES).clamp(0, size - 1).int().tolist()
        high = (outline.amax(0).ceil() + REACH_OF_EDGES).clamp(1, size).int().tolist()
        return Window(low[1], max(high[1], low[1] + 1), low[0], max(high[0], low[0] + 1))

    def _inside(
        self, seen: Fragments, places: Tensor, photographed: Tensor, shaped: Tensor, source: GuideSource
    ) -> Tensor:
        """Colours (Q, 3) in [-1, 1]: darker the farther behind the lips, less so the wider they part.

        Args:
            places: (Q, 2) in [-1, 1] of the photograph. photographed: (Q, 3) in [-1, 1], what it shows there.
        """
        count = len(shaped)
        lips = shaped[:, self.lip_rows]
        behind = (lips[:, :, 2].mean(1, keepdim=True) - shaped[..., 2])[..., None]
        values = seen.interpolate(self.faces, torch.cat([behind, self.mean.expand(count, -1, -1)], dim=2))
        depth, place = values[:, 0], values[:, 1:]
        own = colours_at(source.teeth, seen, places)
        now = self._opening(shaped)[seen.batch]
        before = source.opening.expand(count)[seen.batch]
        light, tint = (part.expand(count, -1)[seen.batch] for part in (source.light, source.teeth_tint))
        result = torch.zeros_like(place)
        numbers = self.parts[seen.face]
        for name in _INSIDE:
            rows = (numbers == PARTS.index(name)).nonzero().squeeze(1)
            if not len(rows):
                continue
            reached = light_inside(name, depth[rows], now[rows])
            albedo = place.new_tensor(COLOURS[name]).expand(len(rows), -1)
            if name not in _TEETH:
                result[rows] = albedo * light[rows] * reached
                continue
            bright, gum = tooth_pattern(place[rows], name == "upper_teeth", _TOOTH_WIDTH, _TOOTH_GAP)
            albedo = torch.lerp(albedo * tint[rows] * bright[:, None], place.new_tensor(GUM), gum[:, None])
            shown = ((photographed[rows] + 1.0) / 2.0).clamp(0, 1) ** 2.2
            change = reached / light_inside(name, depth[rows], before[rows]).clamp(min=1e-3)
            result[rows] = torch.lerp(
                albedo * light[rows] * reached, shown * change.clamp(0.4, 1.1), own[rows]
            )
        return result.clamp(1e-4, 1.0) ** (1 / 2.2) * 2.0 - 1.0


_POSE = tuple(FittedHead.__annotations__)


def _fade(values: Tensor, start: float, end: float) -> Tensor:
    """1 up to `start`, smoothly down to 0 at `end`."""
    t = ((end - values) / (end - start)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
