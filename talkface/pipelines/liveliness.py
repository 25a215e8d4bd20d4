"""What a talking face does besides speaking: blinks, motion of the head, emphasis, an emotion.

`Liveliness` says what happens when; of it, the mouth belongs to the guide (`face_guide`), everything else to
`LivePicture`, which moves finished frames of a picture as a whole. Films move by themselves; there only the mouth's
share of an emotion is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from talkface.errors import TalkfaceError
from talkface.head.emotions import EMOTIONS, emotion_actions
from talkface.head.expressing import UPPER
from talkface.head.eyelids import Eyelids
from talkface.head.fit import HeadFitter
from talkface.head.living import LivingPhotograph, painted_share
from talkface.head.model import ACTIONS, HeadModel
from talkface.head.motion import EMPHASIS_RATE, MOTIONS, LivingHead, Moments, emphasis
from talkface.media import Audio
from talkface.pipelines.face_painter import NO_EMOTION
from talkface.pipelines.sources import FoundFace
from talkface.portrait.blend import blend_mask

DEFAULT_MOTION = "subtle"


@dataclass(frozen=True, eq=False)
class Feeling:
    """An emotion as it is used.

    Attributes:
        number: what the network is told.
        actions: (52,) what the face does.
        strength: 0 (left open) to 1: how far it takes the place of the photograph's own expression.
        name: of `EMOTIONS`; empty: left open, or one that only the network knows.
    """

    number: int
    actions: np.ndarray
    strength: float = 0.0
    name: str = ""


def choose_emotion(
    emotion: str | int | None, intensity: float, told: list[str], animated: bool, bundle: str
) -> Feeling:
    """Look an emotion up.

    Args:
        emotion: name or id, None: left open. intensity: 0 to 1; 0 leaves it open, too.
        told: names of the emotions that the network knows, in the order of their ids.
        animated: a guide can show emotions that the network does not know.
        bundle: for errors.

    Raises:
        TalkfaceError: unknown, or nothing can show it.
    """
    still = np.zeros(len(ACTIONS), dtype=np.float32)
    if emotion is None:
        return Feeling(NO_EMOTION, still)
    names = told or (list(EMOTIONS) if animated else [])
    if not names:
        raise TalkfaceError(
            f"emotion: {emotion}; the bundle {bundle} has no emotions; leave it out, or use --guide warp"
        )
    index = names.index(emotion) if emotion in names else emotion
    if not isinstance(index, int) or not 0 <= index < len(names):
        raise TalkfaceError(f"emotion: {emotion}; allowed are {', '.join(names)}")
    if intensity == 0:
        return Feeling(NO_EMOTION, still)
    number = index if told else NO_EMOTION
    if names[index] not in EMOTIONS:
        return Feeling(number, still)
    return Feeling(number, emotion_actions(names[index], intensity), intensity, names[index])


def choose_motion(motion: str | None, is_film: bool) -> str:
    """The motion to use; None: the default.

    Raises:
        TalkfaceError: unknown, or motion is asked of a film.
    """
    if motion is None:
        return "none" if is_film else DEFAULT_MOTION
    if motion not in MOTIONS:
        raise TalkfaceError(f"motion: {motion}; allowed are {', '.join(MOTIONS)}")
    if is_film and motion != "none":
        raise TalkfaceError(f"motion: {motion}; it is for pictures, a film keeps its own; leave it out")
    return motion


def loudness(sound: Audio) -> np.ndarray:
    """(T,) root mean square of whole windows of 1 / EMPHASIS_RATE s; needs no copy of a long sound."""
    width = sound.sample_rate // EMPHASIS_RATE
    windows = sound.samples[: len(sound.samples) // width * width].reshape(-1, width)
    squares: np.ndarray = np.einsum("tn,tn->t", windows, windows)
    return np.sqrt(squares / width)


class Liveliness:
    """What happens when.

    Args:
        motion: one of `MOTIONS`.
        feeling: the emotion.
        sound: its loudness tells the emphasis; None while it is still coming: nothing is emphasised.
        seed: same seed, same motion.
    """

    def __init__(self, motion: str, feeling: Feeling, sound: Audio | None, seed: int) -> None:
        self._head, self._emotion = LivingHead(motion, seed), feeling.actions
        self.strength = feeling.strength
        self._emphasis = np.zeros(0) if sound is None else emphasis(loudness(sound))
        self.moves_faces = motion != "none" or bool(feeling.actions.any())

    def at(self, time: float) -> Moments:
        """The moment `time` (N = 1), with the emotion of the whole face."""
        # one by one: how many are asked for together must not change a bit
        moment = self._head(np.array([time]), self._emphasis)
        return replace(
            moment, actions=moment.actions + moment.swell[:, None].astype(np.float32) * self._emotion
        )

    def mouth(self, times: Sequence[float]) -> np.ndarray:
        """(N, 52) the emotion's actions of the lower face at `times`."""
        return np.concatenate([np.where(UPPER, 0.0, self.at(time).actions) for time in times])

    def intensity(self, times: Sequence[float]) -> np.ndarray:
        """(N,) float32 in [0, 1]: how strong the emotion is at `times`."""
        swell = np.concatenate([self.at(time).swell for time in times])
        return np.clip(self.strength * swell, 0.0, 1.0).astype(np.float32)


class LivePicture:
    """Moves the finished frames of one picture.

    Args:
        found: the face in the picture.
        life: what happens when.
    """

    def __init__(self, found: FoundFace, life: Liveliness) -> None:
        self._life = life
        head = HeadModel.load()
        fitter = HeadFitter(head)
        fitted = fitter(torch.from_numpy(found.points)[None])
        seen = fitted.project(fitter.shape(fitted.identity.double(), fitted.actions.double()).float())
        # found landmarks are noisy, those of the fitted head know no details: between them both err less
        self._lids = Eyelids(found.picture, (found.points + seen[0, :, :2].numpy()) / 2)
        crop = found.crop
        painted = painted_share(blend_mask(crop.size), crop.matrix)
        height, width = found.picture.shape[:2]
        self._photograph = LivingPhotograph(head, fitted, height, width, painted)

    def __call__(self, frame: np.ndarray, time: float) -> np.ndarray:
        """The picture uint8 (H, W, 3), with whatever mouth, as it looks at `time` (seconds)."""
        moment = self._life.at(time)
        actions = moment.actions[0]
        return self._photograph(self._lids(frame, actions), moment.rotation[0], moment.shift[0], actions)
