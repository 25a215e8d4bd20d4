"""The synthetic corpus: heads, voices, motion and light composed into clips with exact truth.

A recipe is expanded into a plan (who says what, how, in which light), a pure function of its settings;
every clip is then rendered from its plan alone. So the corpus does not depend on the number of workers or
on where an interrupted run stopped. Splits share no identity; the test split has sentences of its own, and,
where the held-out family of voices is asked for, voices of its own.

Truth per frame in the `.npz`: `landmarks` (T, 68, 2) px, `visible` (T, 68), `pose` (T, 6: radians, metres),
`actions` (T, 52), `face_mask` and `mouth_mask` (packed, see `data.base.unpack_masks`), `phoneme` and `viseme`
(T,) ids. The names of the ids are in `corpus.json` under `config.names`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkface.data.base import EMOTIONS, SPLITS, Clip, pack_masks
from talkface.data.synthetic.appearance import sample_person
from talkface.data.synthetic.motion import performance
from talkface.data.synthetic.phonemes import PHONEMES
from talkface.data.synthetic.scene import Scene, render
from talkface.data.synthetic.sentences import loose_words, sentence
from talkface.data.synthetic.visemes import VISEMES, SpeakingStyle
from talkface.data.synthetic.voices import HELD_OUT_FAMILY, SAMPLE_RATE, Utterance, Voice, speak
from talkface.data.synthetic.workers import write_shards
from talkface.data.writer import CorpusWriter, encode_jpeg
from talkface.errors import TalkfaceError
from talkface.head.model import ACTIONS, HeadModel

LICENCE = (
    "Pictures and annotations: CC0-1.0 (heads baked from CC0 data, drawn by this program). "
    "Speech: synthesized; each clip names its voice and that voice's licence."
)
VOICE_LICENCES = {
    "espeak": "output of espeak-ng, not covered by the licence of the program",
    "flite": "output of flite voices (BSD-style licence, Carnegie Mellon University)",
    "piper": "output of the piper voice en_US-joe-medium (CC0-1.0)",
}
VIEWS = ("face", "mouth")
MOUTH_FACE_SCALE = 1.5
"""Share of the picture's side that the canonical face crop takes in the mouth view."""
GENERATOR_VERSION = 3
"""Raise when the same recipe gives other clips."""


@dataclass(frozen=True)
class SyntheticRecipe:
    """What to render.

    Args:
        identities: people in all splits together.
        clips_per_identity: sentences each of them says.
        seed: of everything.
        fps, size: frames per second; side of the square frames in pixels.
        max_seconds: longest clip; sentences that take longer are replaced, in the end cut.
        val_share, test_share: share of the identities in these splits (at least one each when above 0).
        families: families of voices for train and val; None = all that the voices module trains with. The
            test split uses the held-out family.
        neutral_share: share of clips without emotion; the rest is spread over the other seven at three
            levels.
        supersample: pictures are drawn this many times larger and averaged.
        quality: of the JPEG frames.
        clips_per_shard: the unit of work of one worker and of resuming.
        view: "face", or "mouth": mouth and surroundings fill the picture, for what reads lips. It draws a quarter of
            the pixels of a face that shows the mouth as large.
        loose_words: share of the clips of train and val that say common words without order instead of a sentence.
    """

    identities: int = 200
    clips_per_identity: int = 10
    seed: int = 0
    fps: float = 25.0
    size: int = 160
    max_seconds: float = 5.0
    val_share: float = 0.05
    test_share: float = 0.05
    families: Sequence[str] | None = None
    neutral_share: float = 0.3
    supersample: int = 2
    quality: int = 95
    clips_per_shard: int = 20
    view: str = "face"
    loose_words: float = 0.0

    def __post_init__(self) -> None:
        for name in ("identities", "clips_per_identity", "size", "supersample", "clips_per_shard"):
            if getattr(self, name) < 1:
                raise TalkfaceError(f"{name}: {getattr(self, name)}; allowed 1 or more")
        if min(self.fps, self.max_seconds) <= 0 or self.max_seconds * self.fps < 2:
            raise TalkfaceError(
                f"max_seconds {self.max_seconds} at {self.fps} fps is less than two frames; raise max_seconds"
            )
        if self.view not in VIEWS:
            raise TalkfaceError(f"view: {self.view!r}; allowed {', '.join(VIEWS)}")
        if not 0 <= self.loose_words <= 1:
            raise TalkfaceError(f"loose_words: {self.loose_words}; allowed 0 to 1")
        counts = self.split_counts()
        if counts["train"] < 1:
            raise TalkfaceError(
                f"identities: {self.identities} leave none for training with val_share {self.val_share} and "
                f"test_share {self.test_share}; raise identities or lower the shares"
            )

    def split_counts(self) -> dict[str, int]:
        """Identities per split."""
        val = max(1, round(self.identities * self.val_share)) if self.val_share > 0 else 0
        test = max(1, round(self.identities * self.test_share)) if self.test_share > 0 else 0
        return {"train": self.identities - val - test, "val": val, "test": test}


@dataclass(frozen=True)
class ClipPlan:
    """Everything that decides one clip besides the recipe's sizes."""

    id: str
    split: str
    subject: str
    person_seed: int
    sentence_seed: int
    scene_seed: int
    motion_seed: int
    voice_draw: float
    emotion: int
    level: int


def plan_clips(recipe: SyntheticRecipe) -> dict[str, list[ClipPlan]]:
    """Shard name -> plans of its clips. Every person keeps one voice and one way of speaking."""
    shards: dict[str, list[ClipPlan]] = {}
    person = 0
    for split, count in recipe.split_counts().items():
        plans: list[ClipPlan] = []
        for _ in range(count):
            rng = np.random.default_rng([recipe.seed, person, 0x7A1F])
            person_seed, voice_draw = int(rng.integers(2**31)), float(rng.random())
            for number in range(recipe.clips_per_identity):
                emotion = 0 if rng.random() < recipe.neutral_share else int(rng.integers(1, len(EMOTIONS)))
                plans.append(
                    ClipPlan(
                        id=f"p{person:05d}_{number:03d}",
                        split=split,
                        subject=f"p{person:05d}",
                        person_seed=person_seed,
                        sentence_seed=int(rng.integers(2**31)),
                        scene_seed=int(rng.integers(2**31)),
                        motion_seed=int(rng.integers(2**31)),
                        voice_draw=voice_draw,
                        emotion=emotion,
                        level=int(rng.integers(1, 4)) if emotion else 0,
                    )
                )
            person += 1
        # clips of one person are spread over the shards, so that a stream of shards is mixed
        order = np.random.default_rng([recipe.seed, SPLITS.index(split)]).permutation(len(plans))
        for start in range(0, len(plans), recipe.clips_per_shard):
            name = f"{split}-{start // recipe.clips_per_shard:05d}"
            shards[name] = [plans[i] for i in order[start : start + recipe.clips_per_shard]]
    return shards


def voices_of(recipe: SyntheticRecipe, split: str) -> list[Voice]:
    """The voices that may speak in a split."""
    if split == "test":
        return Voice.list("test", families=(HELD_OUT_FAMILY,))
    return Voice.list("train", families=None if recipe.families is None else tuple(recipe.families))


def choose_utterance(recipe: SyntheticRecipe, plan: ClipPlan) -> Utterance:
    """The first of eight sentences that is short enough, else the last one cut at `max_seconds`."""
    voices = voices_of(recipe, plan.split)
    voice = voices[int(plan.voice_draw * len(voices))]
    kind = "test" if plan.split == "test" else "train"
    loose = kind == "train" and (plan.sentence_seed % 1009) / 1009 < recipe.loose_words
    for attempt in range(8):
        number = plan.sentence_seed + attempt
        utterance = speak(voice, loose_words(number) if loose else sentence(number, kind))
        if utterance.duration <= recipe.max_seconds:
            return utterance
    end = recipe.max_seconds
    return replace(
        utterance,
        samples=utterance.samples[: int(end * SAMPLE_RATE)],
        phonemes=[(name, start, min(stop, end)) for name, start, stop in utterance.phonemes if start < end],
    )


@lru_cache(maxsize=2)
def load_head(device: str) -> HeadModel:
    return HeadModel.load().to(device)


def make_clip(recipe: SyntheticRecipe, plan: ClipPlan, device: str = "cpu") -> Clip:
    """Speak, move and render one clip."""
    utterance = choose_utterance(recipe, plan)
    style = SpeakingStyle.sample(plan.person_seed)
    played = performance(
        utterance, emotion=plan.emotion, level=plan.level, fps=recipe.fps, seed=plan.motion_seed, style=style
    )
    head = load_head(device)
    actions, pose = played.actions.astype(np.float32), played.pose.astype(np.float32)
    person, scene = sample_person(plan.person_seed, head), Scene(plan.scene_seed)
    if recipe.view == "mouth":
        scene.face_scale *= MOUTH_FACE_SCALE / 0.8
        scene.centre_on_mouth(head, person, torch.from_numpy(pose).to(device))
    rendered = render(
        head,
        person,
        torch.from_numpy(actions).to(device),
        torch.from_numpy(pose).to(device),
        scene,
        size=recipe.size,
        supersample=recipe.supersample,
        device=device,
    )
    family = utterance.voice.split("/")[0]
    return Clip(
        id=plan.id,
        split=plan.split,
        subject=plan.subject,
        frames=[encode_jpeg(frame, recipe.quality) for frame in as_array(rendered.images)],
        audio=utterance.samples,
        truth={
            "landmarks": as_array(rendered.landmarks).astype(np.float32),
            "visible": as_array(rendered.visible).astype(bool),
            "face_mask": pack_masks(as_array(rendered.face_mask)),
            "mouth_mask": pack_masks(as_array(rendered.mouth_mask)),
            "pose": pose,
            "actions": actions,
            "phoneme": np.array([PHONEMES.index(name) for name in played.phonemes], np.uint8),
            "viseme": np.array([VISEMES.index(name) for name in played.visemes], np.uint8),
        },
        emotion=played.emotion,
        intensity=played.level,
        transcript=utterance.text,
        meta={
            "voice": utterance.voice,
            "voice_licence": VOICE_LICENCES.get(family, "see the voice"),
            "phonemes": [[name, round(start, 4), round(stop, 4)] for name, start, stop in utterance.phonemes],
            "plan": asdict(plan),
        },
    )


def as_array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def corpus_writer(folder: str | Path, recipe: SyntheticRecipe) -> CorpusWriter:
    """The writer of this recipe; raises when the folder holds another one."""
    recipe_settings = asdict(recipe) | {"families": recipe.families and list(recipe.families)}
    for name, default in (("view", "face"), ("loose_words", 0.0)):
        if recipe_settings[name] == default:  # corpora from before these settings stay the same recipe
            del recipe_settings[name]
    config = {
        "recipe": recipe_settings,
        "generator_version": GENERATOR_VERSION,
        "names": {"phoneme": list(PHONEMES), "viseme": list(VISEMES), "actions": list(ACTIONS)},
    }
    return CorpusWriter(
        folder,
        name="talkface synthetic",
        licence=LICENCE,
        source="rendered and spoken by talkface",
        fps=recipe.fps,
        image_size=recipe.size,
        sample_rate=SAMPLE_RATE,
        config=config,
    )


def write_shard(folder: str, recipe: SyntheticRecipe, device: str, name: str, plans: list[ClipPlan]) -> int:
    """Render one shard; returns its number of frames. Runs in a worker process."""
    frames = 0
    with corpus_writer(folder, recipe).shard(name) as shard:
        for plan in plans:
            clip = make_clip(recipe, plan, device)
            frames += len(clip.frames)
            shard.add(clip)
    return frames


def prepare_synthetic(
    folder: str | Path,
    recipe: SyntheticRecipe,
    workers: int = 1,
    device: str = "cpu",
    report: Callable[[str], None] | None = None,
) -> None:
    """Render what is missing of the corpus and finish it; does nothing when it is complete.

    Args:
        workers: processes; 1 renders in this one. The result does not depend on it.
        report: receives one line per finished shard; None prints to stderr.

    Raises:
        TalkfaceError: the folder holds another recipe, or a family of voices is not installed.
    """
    say = report or partial(print, file=sys.stderr, flush=True)
    shards = plan_clips(recipe)
    for split in {plan.split for plans in shards.values() for plan in plans}:
        voices_of(recipe, split)
    writer = corpus_writer(folder, recipe)
    missing = {name: plans for name, plans in shards.items() if not writer.is_done(name)}
    if missing:
        total = sum(map(len, missing.values()))
        say(f"synthetic corpus: {total} clips in {len(missing)} shards to render into {folder}")
    write_shards(partial(write_shard, str(folder), recipe, device), missing, workers, say)
    writer.finish(shards)
