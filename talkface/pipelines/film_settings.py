"""What of a talking film the call and the bundle decide together: guide, sampler, emotion, references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from talkface.errors import TalkfaceError, check_range
from talkface.pipelines.face_guide import LEVELS
from talkface.pipelines.face_painter import References
from talkface.pipelines.liveliness import Feeling, choose_emotion
from talkface.pipelines.sampling import LatentSampler
from talkface.portrait.crop import AlignedCrop

if TYPE_CHECKING:
    from talkface.checkpoint import Bundle

REFERENCES = ("first", "window")


def guide_level(bundle: Bundle, wanted: str | None) -> str:
    """One of `LEVELS`; None: the bundle's own. Raises: TalkfaceError: unknown, or the bundle knows no guides."""
    level = str(bundle.meta.get("guide", "none")) if wanted is None else wanted
    if level not in LEVELS:
        raise TalkfaceError(f"guide: {level}; allowed are {', '.join(LEVELS)}")
    if level == "refined" and "guide" not in bundle.part("conditioner").conditioners:
        raise TalkfaceError(
            f"guide: refined; the bundle {bundle.folder.name} was trained without guides; allowed are none, warp"
        )
    return level


def latent_sampler(
    bundle: Bundle,
    network: nn.Module,
    schedule: Any,
    steps: int | None,
    guidance: float | dict[str, float] | None,
    eta: float,
) -> LatentSampler:
    """The sampler of a call, with the bundle's values where the call has none.

    Args:
        network, schedule: the bundle's.
        steps: solver steps. guidance: scale of the sound, or scales by conditioner. eta: see `LatentSampler`.

    Raises:
        TalkfaceError: a value out of range, a conditioner that is not there, or one that cannot be guided.
    """
    conditioner = bundle.part("conditioner")
    names = set(conditioner.conditioners)
    scales = {name: float(value) for name, value in dict(bundle.value("guidance_scale")).items()}
    chosen = guidance if isinstance(guidance, dict) else {} if guidance is None else {"audio": guidance}
    if unknown := set(chosen) - names:
        raise TalkfaceError(f"guidance_scale: {', '.join(unknown)}; allowed are {', '.join(sorted(names))}")
    for name, scale in chosen.items():
        check_range(f"guidance_scale of {name}", scale, 0, 50)
        if scale != 1.0 and conditioner.conditioners[name].drop_rate == 0.0:
            raise TalkfaceError(
                f"guidance_scale of {name}: {scale}; allowed is 1, as this bundle was trained with "
                f"{name} always there (drop rate 0)"
            )
        scales[name] = float(scale)
    steps = int(bundle.value("num_inference_steps")) if steps is None else steps
    check_range("num_inference_steps", steps, 1, schedule.num_train_timesteps)
    return LatentSampler(
        network=network,
        conditioner=conditioner,
        schedule=schedule,
        prediction_type=str(bundle.value("prediction_type")),
        num_inference_steps=steps,
        scales={name: scale for name, scale in scales.items() if name in names},
        eta=eta,
        spacing=str(bundle.meta.get("timestep_spacing", "leading")),
        final_alpha=str(bundle.meta.get("final_alpha", "first")),
    )


def feeling_of(bundle: Bundle, emotion: str | int | None, intensity: float, level: str) -> Feeling:
    """The emotion of a call, as the network is told it and as faces show it; see `choose_emotion`.

    Args:
        intensity: 0 to 1. level: of the guide.
    """
    check_range("emotion_intensity", intensity, 0, 1)
    told = list(bundle.meta.get("emotions") or [])
    if "emotion" not in bundle.part("conditioner").conditioners:
        told = []
    return choose_emotion(emotion, intensity, told, level != "none", bundle.folder.name)


def listener(speech: Any, feeling: Feeling, level: str) -> Any:
    """Who listens for a film: the bundle's speech encoder, or, where its emotion branch knows the emotion and a guide
    shows it, that encoder with the emotion."""
    branch = getattr(speech, "branch", None)
    if level == "none" or branch is None or feeling.name not in branch.emotions:
        return speech
    from talkface.experts.speech_emotion import EmotionalSpeech

    return EmotionalSpeech(speech, feeling.name)


def choose_references(
    first: AlignedCrop, is_film: bool, mode: str, kind: str, window: int, overlap: int
) -> References:
    """Which frames the network sees the person in. Raises: TalkfaceError: one of `reference`, `window`, `overlap`."""
    if kind not in REFERENCES:
        raise TalkfaceError(f"reference: {kind}; allowed are {', '.join(REFERENCES)}")
    if kind == "first":
        return References(first)
    if not is_film or mode != "windowed":
        raise TalkfaceError("reference: window; it is for films in windowed mode; otherwise leave it out")
    if window < 1 or not 0 <= 2 * overlap <= window:
        raise TalkfaceError(f"overlap: {overlap}; allowed are 0 to half of the window ({window})")
    return References(first, window, overlap)
