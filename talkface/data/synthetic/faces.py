"""The synthetic corpus of expressions: single pictures of people who show an emotion, with exact truth.

Every person sits in one light before one background, the head held in one way, and shows up to eight emotions in turn,
most of them strongly. All that is a person's own way (how the muscles are used, where the eyes look, what the lips
were about to say) is the same in all pictures: what differs between two of them is the emotion and how strong it
is. So one picture can be the other's exact edit. With `scenes` above 1 the pictures of a person are spread over
several lights, backgrounds and poses: for learning who somebody is. As with the talking corpus, a recipe is expanded
into plans, and every person is rendered from its plan alone: the corpus depends neither on the
number of workers nor on where an interrupted run stopped.

Truth in the `.npz` of a picture: `landmarks` (1, 68, 2) px, `visible` (1, 68), `pose` (1, 6: radians, metres),
`actions` (1, 52), `intensity` (1,) of the emotion, 0 to 1, 0 for neutral, `face_mask` and `mouth_mask` (packed, see
`data.base.unpack_masks`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from talkface.data.base import EMOTIONS, Clip, pack_masks
from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.clips import as_array, load_head
from talkface.data.synthetic.motion import LEVELS
from talkface.data.synthetic.scene import Scene, render
from talkface.data.synthetic.workers import write_shards
from talkface.data.writer import CorpusWriter, encode_jpeg
from talkface.errors import TalkfaceError
from talkface.head.emotions import emotion_actions
from talkface.head.expression import combine
from talkface.head.model import ACTIONS, MIRRORED_ACTIONS

LICENCE = "Pictures and annotations: CC0-1.0 (heads baked from CC0 data, drawn by this program)."
GENERATOR_VERSION = 3
"""Raise when the same recipe gives other pictures."""
_INDEX = {name: number for number, name in enumerate(ACTIONS)}


@dataclass(frozen=True)
class FaceRecipe:
    """What to render.

    Args:
        identities: people in all splits together.
        faces_per_identity: pictures of each, 1 to 8, each with another emotion.
        seed: of everything.
        size: side of the square pictures in pixels.
        val_people, test_people: how many people are in these splits.
        least_intensity: emotions are this strong (0 to 1) or stronger, drawn uniformly.
        speaking_share: share of the people whose lips speak, slightly.
        supersample: pictures are drawn this many times larger and averaged.
        quality: of the JPEG files.
        people_per_shard: the unit of work of one worker and of resuming.
        scenes: lights, backgrounds and poses that the pictures of one person are spread over.
    """

    identities: int = 1100
    faces_per_identity: int = 8
    seed: int = 0
    size: int = 144
    val_people: int = 20
    test_people: int = 220
    least_intensity: float = 0.6
    speaking_share: float = 0.2
    supersample: int = 2
    quality: int = 95
    people_per_shard: int = 20
    scenes: int = 1

    def __post_init__(self) -> None:
        for name in ("identities", "faces_per_identity", "size", "supersample", "people_per_shard"):
            if getattr(self, name) < 1:
                raise TalkfaceError(f"{name}: {getattr(self, name)}; allowed 1 or more")
        if self.faces_per_identity > len(EMOTIONS):
            raise TalkfaceError(
                f"faces_per_identity: {self.faces_per_identity}; allowed 1 to {len(EMOTIONS)}, one per emotion"
            )
        if not 1 <= self.scenes <= self.faces_per_identity:
            raise TalkfaceError(
                f"scenes: {self.scenes}; allowed 1 to {self.faces_per_identity}, the pictures of each person"
            )
        for name in ("least_intensity", "speaking_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise TalkfaceError(f"{name}: {getattr(self, name)}; allowed 0 to 1")
        if min(self.val_people, self.test_people) < 0 or self.split_counts()["train"] < 1:
            raise TalkfaceError(
                f"identities: {self.identities} leave none for training with {self.val_people} people in val and "
                f"{self.test_people} in test; raise identities or lower these"
            )

    def split_counts(self) -> dict[str, int]:
        """People per split."""
        train = self.identities - self.val_people - self.test_people
        return {"train": train, "val": self.val_people, "test": self.test_people}

    def description(self) -> dict[str, object]:
        """As it is written into the corpus: `scenes` only when there are several, which older corpora lack."""
        return {name: value for name, value in asdict(self).items() if name != "scenes" or value > 1}


@dataclass(frozen=True)
class PersonPlan:
    """Everything that decides the pictures of one person in one scene besides the recipe."""

    subject: str
    split: str
    person_seed: int
    scene_seed: int
    faces_seed: int
    emotions: tuple[int, ...]


def plan_faces(recipe: FaceRecipe) -> dict[str, list[PersonPlan]]:
    """Shard name -> its people, each as often as there are scenes."""
    shards: dict[str, list[PersonPlan]] = {}
    number = 0
    for split, count in recipe.split_counts().items():
        for place in range(count):
            rng = np.random.default_rng([recipe.seed, number, 0xFACE])
            plan = PersonPlan(
                subject=f"f{number:05d}",
                split=split,
                person_seed=int(rng.integers(2**31)),
                scene_seed=int(rng.integers(2**31)),
                faces_seed=int(rng.integers(2**31)),
                emotions=tuple(int(e) for e in rng.permutation(len(EMOTIONS))[: recipe.faces_per_identity]),
            )
            shards.setdefault(f"{split}-{place // recipe.people_per_shard:05d}", []).extend(
                _scenes(plan, recipe, rng)
            )
            number += 1
    return shards


def _scenes(plan: PersonPlan, recipe: FaceRecipe, rng: np.random.Generator) -> list[PersonPlan]:
    """`plan` itself, or its emotions dealt out over several scenes."""
    if recipe.scenes == 1:
        return [plan]
    return [
        replace(
            plan,
            scene_seed=int(rng.integers(2**31)),
            faces_seed=int(rng.integers(2**31)),
            emotions=plan.emotions[place :: recipe.scenes],
        )
        for place in range(recipe.scenes)
    ]


@dataclass(frozen=True, eq=False)
class Manner:
    """A person's own way: own (52,) factors of the actions, twice, for the two sides; other (52,) actions besides the
    emotion's; gaze (52,) and lids, added last; whether one-sided emotions are mirrored; pose (6,)."""

    own: np.ndarray
    other: np.ndarray
    gaze: np.ndarray
    mirrored: bool
    pose: np.ndarray


def draw_manner(rng: np.random.Generator, recipe: FaceRecipe) -> Manner:
    """How somebody shows emotions: no two people use their muscles alike, nor both sides of a face."""
    own = np.exp(rng.normal(0, 0.12, len(ACTIONS))) * np.exp(rng.normal(0, 0.04, len(ACTIONS)))
    # both sides share most of what is a person's own
    own = (own + own[list(MIRRORED_ACTIONS)]) / 2 * np.exp(rng.normal(0, 0.05, len(ACTIONS)))
    still = np.where(rng.random(len(ACTIONS)) < 0.15, rng.uniform(0, 0.08, len(ACTIONS)), 0)
    still[[_INDEX[name] for name in ("tongueOut", "mouthClose", "jawOpen")]] = 0
    speech = _spoken(rng) if rng.random() < recipe.speaking_share else np.zeros(len(ACTIONS))
    pose = np.zeros(6, np.float32)
    pose[:3] = np.clip(rng.normal(0, (5.0, 10.0, 3.0)), (-12, -28, -8), (12, 28, 8)) * np.pi / 180
    return Manner(own, speech + still, _gaze(rng), bool(rng.random() < 0.5), pose)


def express(manner: Manner, emotion: int, intensity: float) -> np.ndarray:
    """(52,) float32 actions in [0, 1] of somebody who shows an emotion."""
    order = list(MIRRORED_ACTIONS) if manner.mirrored else slice(None)
    felt = emotion_actions(emotion, intensity)[order] * manner.own
    actions = combine(manner.other[None].astype(np.float32), felt[None].astype(np.float32))[0]
    return np.minimum(actions + manner.gaze, 1.0).astype(np.float32)


def _spoken(rng: np.random.Generator) -> np.ndarray:
    """(52,) lips in the middle of a quiet sound."""
    out = np.zeros(len(ACTIONS))
    shapes = (
        ("mouthPucker", 0.35),
        ("mouthFunnel", 0.3),
        ("mouthStretchLeft", 0.15),
        ("mouthLowerDownLeft", 0.3),
    )
    name, most = shapes[int(rng.integers(len(shapes)))]
    out[[_INDEX[name], MIRRORED_ACTIONS[_INDEX[name]]]] = rng.uniform(0, most)
    out[_INDEX["jawOpen"]] = rng.uniform(0.02, 0.16)
    return out


def _gaze(rng: np.random.Generator) -> np.ndarray:
    """(52,) eyes that look past the camera a little, and lids between two blinks."""
    out = np.zeros(len(ACTIONS))
    across, up = np.clip(rng.normal(0, 0.12), -0.35, 0.35), np.clip(rng.normal(0, 0.08), -0.2, 0.2)
    for name, value in (
        ("eyeLookInLeft", -across), ("eyeLookOutRight", -across), ("eyeLookOutLeft", across),
        ("eyeLookInRight", across), ("eyeLookUpLeft", up), ("eyeLookUpRight", up), ("eyeLookDownLeft", -up),
        ("eyeLookDownRight", -up),
    ):  # fmt: skip
        out[_INDEX[name]] = max(0.0, float(value))
    out[[_INDEX["eyeBlinkLeft"], _INDEX["eyeBlinkRight"]]] = max(0.0, rng.normal(-0.05, 0.07))
    return out


def make_faces(recipe: FaceRecipe, plan: PersonPlan, device: str = "cpu") -> list[Clip]:
    """The pictures of one person in one scene."""
    rng = np.random.default_rng(plan.faces_seed)
    manner = draw_manner(rng, recipe)
    strengths = [
        float(rng.uniform(recipe.least_intensity, 1.0)) if emotion else 0.0 for emotion in plan.emotions
    ]
    actions = np.stack([express(manner, *shown) for shown in zip(plan.emotions, strengths, strict=True)])
    head = load_head(device)
    scene = Scene(plan.scene_seed, face_scale=float(rng.uniform(0.86, 0.98)), jitter=0.3)
    rendered = render(
        head,
        sample_person(plan.person_seed, head),
        torch.from_numpy(actions).to(device),
        torch.from_numpy(np.tile(manner.pose, (len(actions), 1))).to(device),
        scene,
        size=recipe.size,
        supersample=recipe.supersample,
        device=device,
    )
    images, landmarks, visible = (
        as_array(part) for part in (rendered.images, rendered.landmarks, rendered.visible)
    )
    face_masks, mouth_masks = as_array(rendered.face_mask), as_array(rendered.mouth_mask)
    return [
        Clip(
            id=f"{plan.subject}_{EMOTIONS[emotion]}",
            split=plan.split,
            subject=plan.subject,
            frames=[encode_jpeg(images[k], recipe.quality)],
            truth={
                "landmarks": landmarks[k : k + 1].astype(np.float32),
                "visible": visible[k : k + 1].astype(bool),
                "face_mask": pack_masks(face_masks[k : k + 1]),
                "mouth_mask": pack_masks(mouth_masks[k : k + 1]),
                "pose": manner.pose[None],
                "actions": actions[k : k + 1],
                "intensity": np.array([strengths[k]], np.float32),
            },
            emotion=emotion,
            intensity=level_of(strengths[k]),
            meta={"person_seed": plan.person_seed, "scene_seed": plan.scene_seed},
        )
        for k, emotion in enumerate(plan.emotions)
    ]


def level_of(intensity: float) -> int:
    """The nearest of the corpus' three levels, 0 for none."""
    return 0 if intensity == 0 else 1 + int(np.argmin([abs(intensity - level) for level in LEVELS]))


def faces_writer(folder: str | Path, recipe: FaceRecipe) -> CorpusWriter:
    """The writer of this recipe; raises when the folder holds another one."""
    return CorpusWriter(
        folder,
        name="talkface synthetic faces",
        licence=LICENCE,
        source="rendered by talkface",
        fps=25,
        image_size=recipe.size,
        config={
            "recipe": recipe.description(),
            "generator_version": GENERATOR_VERSION,
            "names": {"actions": list(ACTIONS)},
        },
    )


def write_faces(folder: str, recipe: FaceRecipe, device: str, name: str, plans: list[PersonPlan]) -> int:
    """Render one shard; returns its number of pictures. Runs in a worker process."""
    written = 0
    with faces_writer(folder, recipe).shard(name) as shard:
        for plan in plans:
            for face in make_faces(recipe, plan, device):
                shard.add(face)
                written += 1
    return written


def prepare_faces(
    folder: str | Path,
    recipe: FaceRecipe,
    workers: int = 1,
    device: str = "cpu",
    report: Callable[[str], None] | None = None,
) -> None:
    """Render what is missing of the corpus and finish it; does nothing when it is complete.

    Args:
        workers: processes; the result does not depend on it.
        report: see `write_shards`.

    Raises:
        TalkfaceError: the folder holds another recipe.
    """
    shards = plan_faces(recipe)
    writer = faces_writer(folder, recipe)
    missing = {name: plans for name, plans in shards.items() if not writer.is_done(name)}
    write_shards(partial(write_faces, str(folder), recipe, device), missing, workers, report, what="people")
    writer.finish(shards)
