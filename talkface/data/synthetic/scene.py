"""Cameras, lights and backgrounds, and the renderer of synthetic people.

`render` shapes the head (`talkface.head`), moves it, rasterises it larger than the picture, shades every
pixel (a key light with wrapped diffuse term, a first-order spherical-harmonic ambient light, Blinn-Phong
highlights, baked occlusion), blends
hair, lashes and glasses over it and averages down. Alongside come exact landmarks and masks. It is not a
path tracer: no cast shadows, no refraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from talkface.data.synthetic.appearance import Person
from talkface.data.synthetic.atlas import FaceAtlas, atlas_coordinates, shared_atlas
from talkface.data.synthetic.background import make_background
from talkface.data.synthetic.pose import move, turn
from talkface.data.synthetic.shading import Light, Surface, shade_layer, shade_surface
from talkface.data.synthetic.texture import paint
from talkface.data.synthetic.wear import KINDS, Rigid, build_glasses, build_long_hair, layer_faces
from talkface.head import PARTS, HeadModel, rasterize_fragments
from talkface.head.model import ACTIONS, vertex_normals

_ANCHORS = ((0.365, 0.36), (0.635, 0.36), (0.5, 0.554))
"""Places of the eye centres and the nose base in the canonical crop."""


@dataclass
class RenderedFrames:
    """Pictures of one person with exact truth; pixel coordinates have (0, 0) at the outer corner of the
    first pixel."""

    images: Tensor
    """(T, S, S, 3) uint8 sRGB."""
    landmarks: Tensor
    """(T, 68, 2) float32 pixels, iBUG order."""
    visible: Tensor
    """(T, 68) bool: inside the picture and not hidden by another part of the head, hair or a dark lens."""
    face_mask: Tensor
    """(T, S, S) bool: the face, from the hairline to the jaw, with eyes and mouth, without hair and ears."""
    mouth_mask: Tensor
    """(T, S, S) bool: lips and what shows between them."""


class Scene:
    """Camera, light and background drawn from one seed.

    Args:
        seed: the same seed gives the same scene.
        face_scale: share of the picture's side that the canonical crop of the neutral, unmoved head takes.
        jitter: 1 varies `face_scale` by 12 % and the place of the face by 5 % of the picture; 0 frames it
        exactly.
        background_pictures: folder of the user's own pictures to mix in as backgrounds (half of the time).
    """

    def __init__(
        self,
        seed: int,
        *,
        face_scale: float = 0.8,
        jitter: float = 1.0,
        background_pictures: str | Path | None = None,
    ) -> None:
        self.seed = int(seed)
        self.background_pictures = Path(background_pictures) if background_pictures is not None else None
        generator = torch.Generator().manual_seed(self.seed * 2 + 7)

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        self.face_scale = face_scale * (1 + jitter * uniform(-0.12, 0.12))
        self.shift = (jitter * uniform(-0.05, 0.05), jitter * uniform(-0.05, 0.05))
        self.distance = 0.45 * math.exp(uniform(0.0, 1.4))
        self.exposure = math.exp(uniform(-0.55, 0.25))
        self.vignette = max(0.0, uniform(-0.3, 0.35))
        balance = uniform(-0.10, 0.10)
        self.white_balance = torch.tensor([1 + balance, 1.0, 1 - balance])

        # Mostly from above and in front; sometimes strongly from a side.
        azimuth, height = uniform(-1.0, 1.0) * (1.5 if uniform(0, 1) < 0.35 else 0.8), uniform(-0.25, 1.1)
        direction = torch.tensor(
            [math.sin(azimuth) * math.cos(height), math.sin(height), math.cos(azimuth) * math.cos(height)]
        )
        warmth = uniform(-0.18, 0.18)
        key = torch.tensor([1 + warmth, 1.0, 1 - warmth])
        softness = uniform(0.25, 0.85)
        ambient = torch.zeros(4, 3)
        ambient[0] = 1 + 0.15 * torch.randn(3, generator=generator)
        ambient[1:] = 0.28 * torch.randn(3, 1, generator=generator) + 0.08 * torch.randn(
            3, 3, generator=generator
        )
        ambient[2] += 0.18
        key, ambient = key * (1 - softness) * 1.5, ambient * softness
        # what a surface that faces the camera receives is brought near 1: cameras expose for faces
        front = key * max(0.15, float(direction[2])) + (ambient[0] + ambient[3]).clamp(min=0.1)
        level = float(front.mean())
        self.light = Light(direction, key / level, ambient / level)

    def focal_and_centre(self, head: HeadModel, neutral: Tensor, size: int) -> tuple[float, float, float]:
        """Focal length and principal point in pixels that frame the neutral head (V, 3) as asked."""
        marks = neutral[head.landmarks].cpu().double()
        points = torch.stack([marks[36:42].mean(0), marks[42:48].mean(0), marks[31:36].mean(0)])
        flat = torch.complex(points[:, 0], -points[:, 1]) / (self.distance - points[:, 2])
        target = torch.tensor([complex(*anchor) for anchor in _ANCHORS], dtype=torch.complex128)
        centred = flat - flat.mean()
        slope = (centred.conj() * (target - target.mean())).sum() / (centred.abs() ** 2).sum()
        middle = (complex(0.5, 0.5) - target.mean()) / slope + flat.mean()
        focal = float(slope.abs()) * self.face_scale * size
        x = size * (0.5 + self.shift[0]) - focal * float(middle.real)
        y = size * (0.5 + self.shift[1]) - focal * float(middle.imag)
        return focal, x, y

    def centre_on_mouth(self, head: HeadModel, person: Person, pose: Tensor) -> None:
        """Change `shift` so that the lips of a clip with the poses (T, 6) lie around the middle of the picture."""
        identity = person.identity.to(pose.device)[None]
        neutral = head(identity, torch.zeros(1, len(ACTIONS), device=pose.device))[0]
        focal, x, y = self.focal_and_centre(head, neutral, 1)
        lips = neutral[head.landmarks[48:68]].expand(len(pose), -1, -1)
        moved = move(lips, pose, torch.ones(lips.shape[1], device=pose.device))
        depth = self.distance - moved[..., 2]
        across = x + focal * float((moved[..., 0] / depth).mean())
        down = y - focal * float((moved[..., 1] / depth).mean())
        self.shift = (self.shift[0] + 0.5 - across, self.shift[1] + 0.5 - down)


@torch.no_grad()
def render(
    head: HeadModel,
    person: Person,
    actions: Tensor,
    pose: Tensor | None = None,
    scene: Scene | None = None,
    size: int = 128,
    supersample: int = 2,
    device: str | torch.device = "cpu",
    chunk: int = 4,
) -> RenderedFrames:
    """Draw a person.

    Args:
        head: model on `device`.
        actions: (T, 52) facial actions in the order of `talkface.head.ACTIONS`.
        pose: (T, 6): rotations x, y, z in radians (see `rotation_matrices`) about the neck joint, then
        translation x, y, z
            in metres; None = straight.
        scene: camera, light, background; None = `Scene(person.seed)`.
        size: side of the pictures; supersample: z-buffer pixels per picture pixel and axis.
        chunk: frames drawn at once; it changes speed and memory, not the result.
    """
    device = torch.device(device)
    scene = scene if scene is not None else Scene(person.seed)
    actions = actions.to(device, torch.float32)
    count = len(actions)
    pose = torch.zeros(count, 6, device=device) if pose is None else pose.to(device, torch.float32)
    stage = _Stage(head, person, scene, size, supersample, device)
    parts = [stage.draw(actions[k : k + chunk], pose[k : k + chunk]) for k in range(0, count, chunk)]
    return RenderedFrames(
        *(torch.cat([getattr(part, name) for part in parts]) for name in RenderedFrames.__annotations__)
    )


class _Stage:
    """Everything about one person and scene that does not change from frame to frame."""

    def __init__(
        self, head: HeadModel, person: Person, scene: Scene, size: int, supersample: int, device: torch.device
    ) -> None:
        self.head, self.person, self.scene, self.device = head, person, scene, device
        self.size, self.supersample, self.large = size, supersample, size * supersample
        self.atlas: FaceAtlas = shared_atlas(head)
        self.texture = paint(self.atlas, person).to(device)
        self.identity = person.identity.to(device)[None]
        self.neutral = head(self.identity, torch.zeros(1, 52, device=device))[0]
        self.focal, self.centre_x, self.centre_y = scene.focal_and_centre(head, self.neutral, size)
        solid = ~head.part("lashes")
        self.faces, self.parts = head.faces[solid], head.parts[solid]
        self.wear_faces, self.wear_kinds = layer_faces(head, self.atlas, person)
        self.rigid = self._rigid()
        # both sides of hair and frames are lit as the outside
        outward = (self.rigid.vertices - torch.tensor([0.0, 0.0, -0.10])) * torch.tensor([1.0, 0.3, 1.0])
        self.rigid_normals = functional.normalize(outward, dim=-1).to(device)
        self.wear_faces = torch.cat([self.wear_faces, self.rigid.faces.to(device) + 2 * head.num_vertices])
        self.wear_kinds = torch.cat([self.wear_kinds, self.rigid.kinds.to(device)])
        texel = self.atlas.texel.to(device)
        number = self.atlas.index(texel)
        height, beard = self.texture.hair_height[number], self.texture.beard_height[number]
        self.lift = 0.0008 + person.numbers["hair_volume"] * height
        self.beard_lift = person.numbers["beard_depth"] * beard
        self.stiffness = ((head.mean[:, 1] + 0.235) / 0.115).clamp(0, 1)
        upper = torch.zeros(head.num_vertices, device=device)
        upper[head.faces[head.part("upper_teeth")].unique()] = 1
        self.teeth_drop = upper * person.numbers["teeth_drop"]
        self.background = make_background(scene, self.large).to(device)
        self.light = scene.light
        # per-vertex values that never change: atlas place, occlusion, mean position
        self.static = torch.cat([texel, head.occlusion[:, None], head.mean], dim=1)

    def _rigid(self) -> Rigid:
        """Glasses and long hair, empty when the person wears neither."""
        rigid = Rigid(
            torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, dtype=torch.long)
        )
        neutral = self.neutral.cpu()
        if self.person.glasses:
            rigid = rigid.joined(build_glasses(self.head, self.person, neutral))
        if self.person.hair_style in ("long", "long_fringe"):
            rigid = rigid.joined(build_long_hair(self.head, self.person, neutral))
        return rigid

    def project(self, points: Tensor) -> Tensor:
        """Camera axes (…, 3) metres -> (…, 3) column, row in picture pixels, distance."""
        depth = self.scene.distance - points[..., 2]
        x = self.centre_x + self.focal * points[..., 0] / depth
        y = self.centre_y - self.focal * points[..., 1] / depth
        return torch.stack([x, y, depth], dim=-1)

    def draw(self, actions: Tensor, pose: Tensor) -> RenderedFrames:
        head, person, side, batch = self.head, self.person, self.large, len(actions)
        # 1. Shape and move.
        shaped = head(self.identity, actions)
        shaped[..., 1] -= self.teeth_drop
        true_marks = self.project(move(shaped[:, head.landmarks], pose, self.stiffness[head.landmarks]))
        rest_normals = vertex_normals(shaped, head.faces)
        if person.numbers["beard_depth"] > 0:
            shaped = shaped + rest_normals * self.beard_lift[:, None]
        moved = move(shaped, pose, self.stiffness)
        normals = turn(rest_normals, pose, self.stiffness)
        to_large = torch.tensor([self.supersample, self.supersample, 1.0], device=self.device)

        # 2. First layer: skin, eyes, mouth, body.
        seen = rasterize_fragments(self.project(moved) * to_large, self.faces, side, side)
        part = self.parts.index_select(0, seen.face)
        lip_plane = shaped[:, head.landmarks[[62, 66]], 2].mean(1)
        opening = (shaped[:, head.landmarks[62], 1] - shaped[:, head.landmarks[66], 1]).clamp(min=0)
        behind = lip_plane[:, None] - shaped[..., 2]
        everywhere = torch.cat([normals, self.static[:, :3].expand(batch, -1, -1)], dim=-1)
        values = seen.interpolate(self.faces, everywhere)
        texel = self.atlas.index(values[:, 3:5])
        # all but plain skin and lips needs its place on the mean head, too
        special = (part > PARTS.index("lips")).nonzero().squeeze(1)
        details = seen.select(special).interpolate(
            self.faces, torch.cat([behind[..., None], self.static[:, 3:].expand(batch, -1, -1)], dim=-1)
        )
        surface = Surface(
            part=part, texel=texel, normal=functional.normalize(values[:, :3], dim=-1),
            occlusion=values[:, 5], special=special, behind=details[:, 0], place=details[:, 1:],
            opening=opening[seen.batch[special]],
        )  # fmt: skip
        picture = self.background.expand(batch, side, side, 3).reshape(-1, 3).clone()
        picture.index_copy_(
            0, seen.pixel, shade_surface(surface, person, self.texture, self.light, self.atlas)
        )
        depth = torch.full((batch * side * side,), float("inf"), device=self.device)
        depth[seen.pixel] = seen.depth
        face_seen = torch.zeros(batch * side * side, dtype=torch.bool, device=self.device)
        face_seen[seen.pixel] = (
            self.texture.face_region[texel] & (part != PARTS.index("body")) & (part != PARTS.index("ear"))
        )
        in_mouth = torch.zeros_like(face_seen)
        in_mouth[seen.pixel] = self._is_mouth(part)
        inside = (part != PARTS.index("skin")) & (part != PARTS.index("ear")) & (part != PARTS.index("body"))
        face_seen[seen.pixel] |= inside

        # 3. Second layer: hair, lashes, glasses, blended where it is nearer.
        covered = torch.zeros_like(face_seen)
        self._draw_wear(shaped, rest_normals, moved, normals, pose, to_large, picture, depth, covered, batch)
        face_seen &= ~covered
        in_mouth &= ~covered

        # 4. Camera response, averaging, truth.
        images = self._develop(picture.view(batch, side, side, 3))
        landmarks = true_marks[..., :2].contiguous()
        visible = self._visible(true_marks, depth.view(batch, side, side), covered.view(batch, side, side))
        return RenderedFrames(
            images, landmarks, visible, self._shrink(face_seen, batch), self._shrink(in_mouth, batch)
        )

    def _is_mouth(self, part: Tensor) -> Tensor:
        flags = torch.tensor(
            [name in ("lips", "mouth", "upper_teeth", "lower_teeth", "tongue") for name in PARTS],
            device=self.device,
        )
        return flags[part]

    def _draw_wear(
        self, shaped: Tensor, rest_normals: Tensor, moved: Tensor, normals: Tensor, pose: Tensor,
        to_large: Tensor, picture: Tensor, depth: Tensor, covered: Tensor, batch: int,
    ) -> None:  # fmt: skip
        side = self.large
        cap = move(shaped + rest_normals * self.lift[:, None], pose, self.stiffness)
        vertices = [moved, cap]
        extra_static = [self.static, self.static]
        rigid = self.rigid.vertices.to(self.device)
        vertices.append(move(rigid.expand(batch, -1, -1), pose, torch.ones(len(rigid), device=self.device)))
        texel = self.atlas.to_texels(atlas_coordinates(rigid))
        extra_static.append(torch.cat([texel, torch.ones(len(rigid), 1, device=self.device), rigid], dim=1))
        layer = torch.cat(vertices, dim=1)
        seen = rasterize_fragments(self.project(layer) * to_large, self.wear_faces, side, side)
        nearer = seen.depth < depth.index_select(0, seen.pixel) + 0.0002
        seen = seen.select(nearer.nonzero().squeeze(1))
        stiff = torch.ones(len(self.rigid_normals), device=self.device)
        rigid_normals = turn(self.rigid_normals.expand(batch, -1, -1), pose, stiff)
        layer_normals = torch.cat([normals, normals, rigid_normals], dim=1)
        values = functional.normalize(seen.interpolate(self.wear_faces, layer_normals), dim=-1)
        fixed = seen.interpolate(self.wear_faces, torch.cat(extra_static))
        kind = self.wear_kinds[seen.face]
        colour, opacity = shade_layer(
            kind,
            self.atlas.index(fixed[:, :2]),
            values,
            fixed[:, 3:],
            self.person,
            self.texture,
            self.light,
            self.atlas,
        )
        picture.index_copy_(
            0, seen.pixel, torch.lerp(picture.index_select(0, seen.pixel), colour, opacity[:, None])
        )
        hides = (opacity > 0.6) & (kind != KINDS.index("lashes")) & (kind != KINDS.index("frame"))
        covered[seen.pixel] = hides

    def _develop(self, picture: Tensor) -> Tensor:
        scene, factor = self.scene, self.supersample
        small = functional.avg_pool2d(picture.permute(0, 3, 1, 2), factor)
        # light skin is exposed shorter than dark skin, by less than the difference
        measured = 0.92 * (0.28 / float(self.person.skin.mean())) ** 0.3
        small = small * (measured * scene.exposure * scene.white_balance.to(self.device))[:, None, None]
        if scene.vignette > 0:
            place = torch.linspace(-1, 1, self.size, device=self.device)
            small = small * (1 - scene.vignette * 0.5 * (place[:, None] ** 2 + place[None, :] ** 2))
        # soft shoulder instead of clipping
        small = torch.where(small > 0.7, 1 - 0.3 * torch.exp(-(small - 0.7) / 0.3), small)
        return (small.clamp(0, 1) ** (1 / 2.2) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _shrink(self, mask: Tensor, batch: int) -> Tensor:
        share = functional.avg_pool2d(mask.view(batch, 1, self.large, self.large).float(), self.supersample)
        return share[:, 0] >= 0.5

    def _visible(self, marks: Tensor, depth: Tensor, covered: Tensor) -> Tensor:
        batch = torch.arange(len(marks), device=self.device)[:, None]
        inside = ((marks[..., :2] >= 0) & (marks[..., :2] < self.size)).all(-1)
        place = (marks[..., :2] * self.supersample).long().clamp(0, self.large - 1)
        nearest = depth[batch, place[..., 1], place[..., 0]]
        tolerance = 0.012 + torch.zeros(68, device=self.device)
        return inside & (marks[..., 2] <= nearest + tolerance) & ~covered[batch, place[..., 1], place[..., 0]]
