"""What tests of whole programs share: drawn faces with known landmarks, a finder for them, a tiny bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from talkface.checkpoint import load_bundle, save_bundle
from talkface.experts.face_landmarks import FaceFinder, FaceLandmarks, check_image, suppress_overlaps
from talkface.experts.landmark_network import LandmarkNetwork

FACE_SIDES = (192, 128, 96, 72, 28)


def face_points(side: float) -> np.ndarray:
    """Landmarks (68, 2) of an average face in a square of `side` pixels."""
    return LandmarkNetwork().mean_shape.numpy() * side


def drawn_face(side: int) -> np.ndarray:
    """A frontal face, uint8 (side, side, 3), with the landmarks of `face_points(side)`."""
    scale = 4
    points = np.round(face_points(side * scale)).astype(np.int32)
    image = np.full((side * scale, side * scale, 3), (70, 90, 110), np.uint8)
    full = side * scale
    oval = (int(0.28 * full), int(0.4 * full))
    cv2.ellipse(image, (full // 2, int(0.45 * full)), oval, 0, 0, 360, (225, 180, 150), -1)
    for brow in (points[17:22], points[22:27]):
        cv2.polylines(image, [brow], False, (60, 40, 30), side * scale // 50)
    cv2.polylines(image, [points[27:36]], False, (180, 130, 110), side * scale // 60)
    for eye in (points[36:42], points[42:48]):
        cv2.fillPoly(image, [eye], (250, 250, 250))
        cv2.circle(image, tuple(int(v) for v in eye.mean(axis=0)), side * scale // 60, (30, 60, 40), -1)
    cv2.fillPoly(image, [points[48:60]], (190, 70, 80))
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


class DrawnFaceFinder(FaceFinder):
    """Finds the faces that `drawn_face` makes, in a few sizes, by normalised correlation."""

    def __init__(self) -> None:
        self.templates = {side: cv2.cvtColor(drawn_face(side), cv2.COLOR_RGB2GRAY) for side in FACE_SIDES}

    def find(self, image: np.ndarray) -> list[FaceLandmarks]:
        check_image(image)
        return self._search(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))

    def track(self, image: np.ndarray, previous: FaceLandmarks) -> FaceLandmarks | None:
        """Look for the face where it was, give or take a few pixels."""
        centre, reach = previous.points.mean(axis=0), np.ptp(previous.points[:, 0]) + 8
        left, top = np.maximum(centre - reach, 0).astype(int)
        right, bottom = (centre + reach).astype(int)
        faces = self._search(cv2.cvtColor(image[top:bottom, left:right].copy(), cv2.COLOR_RGB2GRAY))
        return FaceLandmarks.from_points(faces[0].points + np.float32([left, top])) if faces else None

    def _search(self, grey: np.ndarray) -> list[FaceLandmarks]:
        found: list[tuple[float, int, int, int]] = []
        for side, template in self.templates.items():
            if side <= min(grey.shape):
                likeness = cv2.matchTemplate(grey, template, cv2.TM_CCOEFF_NORMED)
                rows, columns = np.nonzero(likeness > 0.8)
                places = zip(rows.tolist(), columns.tolist(), strict=True)
                found += [(float(likeness[y, x]), x, y, side) for y, x in places]
        boxes = [np.array([x, y, x + side, y + side], np.float32) for _, x, y, side in found]
        kept = suppress_overlaps(boxes, [score for score, *_ in found], limit=0.1)
        faces = []
        for score, x, y, side in (found[index] for index in kept):
            faces.append(FaceLandmarks.from_points(face_points(side) + np.float32([x, y]), score=score))
        return sorted(faces, key=lambda face: -face.area)


@pytest.fixture(scope="session")
def draw_face_points() -> Callable[[float], np.ndarray]:
    """Landmarks (68, 2) of an average face in a square of so many pixels."""
    return face_points


@pytest.fixture(scope="session")
def draw_faces() -> Callable[..., np.ndarray]:
    """draw_faces(height, width, [(x, y, side), ...]) -> uint8 picture with a face in each square."""

    def draw(height: int, width: int, squares: list[tuple[int, int, int]]) -> np.ndarray:
        steps = np.linspace(0, 60, width, dtype=np.float32)[None, :, None]
        picture = np.broadcast_to(40 + steps, (height, width, 3)).astype(np.uint8).copy()
        for x, y, side in squares:
            picture[y : y + side, x : x + side] = drawn_face(side)[: height - y, : width - x]
        return picture

    return draw


@pytest.fixture(scope="session")
def drawn_face_finder() -> DrawnFaceFinder:
    return DrawnFaceFinder()


def tiny_parts(emotions: bool = True) -> tuple[dict[str, torch.nn.Module], dict[str, dict]]:
    """Parts and specs of a talking-face bundle of real classes, a few thousand parameters, random weights."""
    from talkface.checkpoint import instantiate

    conditioners = {
        "audio": {
            "class_path": "talkface.conditioning.audio.AudioConditioner",
            "init_args": {"feature_dim": 16, "window": 2, "mode": "tokens", "dim": 16, "drop_rate": 0.2},
        },
        "frames": {
            "class_path": "talkface.conditioning.frames.FramesConditioner",
            "init_args": {"latent_channels": 3, "latent_size": 8},
        },
    }
    if emotions:
        conditioners["emotion"] = {
            "class_path": "talkface.conditioning.face.EmotionConditioner",
            "init_args": {"num_classes": 8, "dim": 16, "drop_rate": 0.2},
        }
    specs = {
        "first_stage": {
            "class_path": "talkface.networks.vqgan.VQGAN",
            "init_args": {
                "channels": 8,
                "channel_mult": [1, 1, 2],
                "num_res_blocks": 1,
                "attention_resolutions": [],
                "image_size": 32,
                "codebook_size": 64,
            },
        },
        "network": {
            "class_path": "talkface.networks.unet.UNet",
            "init_args": {
                "in_channels": 9,
                "out_channels": 3,
                "model_channels": 16,
                "channel_mult": [1, 2],
                "num_res_blocks": 1,
                "attention_downsamples": [2],
                "num_head_channels": 16,
                "context_dim": 16,
                "image_size": 8,
            },
        },
        "conditioner": {
            "class_path": "talkface.conditioning.base.ConditionerSet",
            "init_args": {"conditioners": conditioners},
        },
        "speech": {
            "class_path": "talkface.experts.speech.LogMelEncoder",
            "init_args": {"bands": 8},
        },
        "landmarks": {
            "class_path": "talkface.experts.landmark_network.LandmarkNetwork",
            "init_args": {"channels": [4, 4, 4, 8], "blocks": [0, 0, 0, 0], "proposal_channels": [4, 4, 4]},
        },
    }
    generator = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        parts = {name: instantiate(spec) for name, spec in specs.items()}
    parts["first_stage"].quantize.embedding.weight.data.normal_(generator=generator)
    for parameter in parts["network"].parameters():
        if not parameter.any():  # layers that start at zero would hide what the network is told
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return parts, specs


TINY_META = {
    "image_size": 32,
    "schedule": {"class_path": "talkface.diffusion.schedule.NoiseSchedule", "init_args": {}},
    "prediction_type": "epsilon",
    "window": 2,
    "window_rate": 25.0,
    "mask": "lower_face",
    "num_inference_steps": 2,
    "guidance_scale": {"audio": 2.0},
    "emotions": ["neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry", "contempt"],
    "licence": "CC0-1.0",
}


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that makes 32-pixel faces."""
    parts, specs = tiny_parts()
    return save_bundle(
        tmp_path_factory.mktemp("bundle") / "tiny", parts, specs, "# Tiny\n\nRandom.", TINY_META
    )


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_bundle: Path, drawn_face_finder: DrawnFaceFinder):
    from talkface.pipelines.talking_face import TalkingFacePipeline

    return TalkingFacePipeline(load_bundle(tiny_bundle), "fp32", drawn_face_finder)


@pytest.fixture(scope="session")
def tiny_emotion_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that makes 32-pixel faces from an emotion, and nothing else."""
    from talkface.checkpoint import instantiate

    parts, specs = tiny_parts()
    only = {"emotion": specs["conditioner"]["init_args"]["conditioners"]["emotion"]}
    specs["conditioner"]["init_args"] = {"conditioners": only}
    specs["network"]["init_args"]["in_channels"] = 3
    generator = torch.Generator().manual_seed(6)
    # strong enough for every emotion to be seen
    for name, strength in (("network", 0.1), ("conditioner", 8.0)):
        parts[name] = instantiate(specs[name])
        for parameter in parts[name].parameters():
            parameter.data = strength * torch.randn(parameter.shape, generator=generator)
    kept = ("first_stage", "network", "conditioner")
    meta = {
        name: TINY_META[name] for name in ("image_size", "schedule", "prediction_type", "emotions", "licence")
    }
    meta |= {"num_inference_steps": 3, "guidance_scale": {"emotion": 1.0}}
    return save_bundle(
        tmp_path_factory.mktemp("bundle") / "emotions",
        {name: parts[name] for name in kept},
        {name: specs[name] for name in kept},
        "# Tiny",
        meta,
    )


@pytest.fixture(scope="session")
def tiny_editing_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that edits 32-pixel faces: told emotions and facial actions; no classifier."""
    return make_editing_bundle(tmp_path_factory.mktemp("bundle") / "editing", shown=False)


@pytest.fixture(scope="session")
def tiny_reference_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, whose network is also shown the person."""
    return make_editing_bundle(tmp_path_factory.mktemp("bundle") / "reference", shown=True)


def make_editing_bundle(folder: Path, shown: bool) -> Path:
    from talkface.checkpoint import instantiate

    parts, specs = tiny_parts()
    told = {
        "emotion": ("EmotionConditioner", {"num_classes": 8, "dim": 16, "fills": "embedding"}),
        "actions": ("ActionConditioner", {"dim": 8}),
    }
    specs["conditioner"]["init_args"] = {
        "conditioners": {
            name: {"class_path": f"talkface.conditioning.face.{kind}", "init_args": arguments}
            for name, (kind, arguments) in told.items()
        }
    }
    if shown:
        specs["conditioner"]["init_args"]["conditioners"]["frames"] = {
            "class_path": "talkface.conditioning.frames.FramesConditioner",
            "init_args": {"latent_channels": 3, "latent_size": 8, "order": ["guide", "reference"]},
        }
    network = specs["network"]["init_args"]
    network |= {"in_channels": 9 if shown else 3, "context_dim": None, "embedding_dim": 24}
    specs["first_stage"]["init_args"]["codebook_size"] = None  # a codebook would round small changes away
    generator = torch.Generator().manual_seed(7)
    for name, strength in (("first_stage", 0.1), ("network", 0.1), ("conditioner", 3.0)):
        parts[name] = instantiate(specs[name])
        for parameter in parts[name].parameters():
            parameter.data = strength * torch.randn(parameter.shape, generator=generator)
    parts["network"].out[2].weight.data *= 20.0
    parts["first_stage"].decoder.conv_out.weight.data *= 5.0
    kept = ("first_stage", "network", "conditioner")
    meta = {
        name: TINY_META[name] for name in ("image_size", "schedule", "prediction_type", "emotions", "licence")
    }
    meta["editing"] = {"num_inference_steps": 3, "guidance_scale": 2.0}
    return save_bundle(
        folder,
        {name: parts[name] for name in kept},
        {name: specs[name] for name in kept},
        "# Tiny",
        meta,
    )
