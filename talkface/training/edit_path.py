"""How a picture is edited while an emotion model is finetuned: settings of the way there and back, and its predictor.

The thesis's section 4.4 and 4.5: up to t_0 under the source's label, back under the target's, guided both ways. A model
with guides (see `talkface.pipelines.emotion_edit`) starts from the picture here: what is told and guided is weighed
against the picture itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from talkface.conditioning.base import ConditionerSet, Conditioning
from talkface.diffusion.guidance import ClassifierFreeGuidance, guidance_bounds
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import make_timesteps
from talkface.diffusion.tuning import check_memory, check_start
from talkface.errors import check_range

NOBODY = -1


@dataclass(frozen=True)
class EditPath:
    """Settings; those of the thesis are the defaults.

    Args:
        strength: t_0.
        inversion_steps: T_DDIM on the way there, once for each picture.
        tuning_steps: T_tune on the way back, through which gradients go.
        validation_steps: on the way back when the result is judged.
        guidance_scale: gamma while tuning and at validation; 1 = none.
        inversion_guidance_scale: on the way there; None: the same.
        overshoot: of a model with guides, how far guidance may go beyond picture and guide, as in
            `talkface.pipelines.latent_editing`; 1000: as far as the scale says.
        final_alpha: see `talkface.diffusion.base.Solver`.
        memory: see `talkface.diffusion.tuning`.

    Raises:
        TalkfaceError: a value out of range.
    """

    strength: int = 500
    inversion_steps: int = 40
    tuning_steps: int = 6
    validation_steps: int = 40
    guidance_scale: float = 1.0
    inversion_guidance_scale: float | None = None
    overshoot: float = 0.07
    final_alpha: str = "first"
    memory: str = "checkpointed"

    def __post_init__(self) -> None:
        check_memory(self.memory)
        check_range("guidance_scale", self.guidance_scale, 0, 50)
        check_range("inversion_guidance_scale", self.source_scale, 0, 50)
        check_range("strength", self.strength, 1, 1000)
        check_range("overshoot", self.overshoot, 0, 1000)

    @property
    def source_scale(self) -> float:
        """Guidance scale on the way there."""
        given = self.inversion_guidance_scale
        return self.guidance_scale if given is None else given

    def check(self, schedule: NoiseSchedule) -> None:
        """Raises: TalkfaceError: more steps than timesteps."""
        for steps in (self.inversion_steps, self.tuning_steps, self.validation_steps):
            check_start(steps, self.strength, schedule)

    def inversion(self, schedule: NoiseSchedule) -> tuple[DDIM, Tensor]:
        """The solver and its ascending timesteps; at the time that it is going to, as the thesis's code does."""
        times = make_timesteps("paper", self.inversion_steps, schedule, self.strength, ascending=True)
        return DDIM(schedule, final_alpha=self.final_alpha, compat="thesis"), times

    def back(self, schedule: NoiseSchedule, steps: int) -> tuple[DDIM, Tensor]:
        """The solver and its descending timesteps."""
        times = make_timesteps("paper", steps, schedule, self.strength)
        return DDIM(schedule, final_alpha=self.final_alpha), times

    def of_inversion(self) -> dict[str, Any]:
        """What the inverted latents depend on."""
        names = ("strength", "inversion_steps", "final_alpha")
        return {name: asdict(self)[name] for name in names} | {"guidance_scale": float(self.source_scale)}


def edit_predictor(
    network: Any,
    conditioner: ConditionerSet,
    schedule: NoiseSchedule,
    prediction_type: str,
    labels: Tensor,
    scale: float,
    shown: Mapping[str, Tensor] | None = None,
    overshoot: float = 1000.0,
) -> ClassifierFreeGuidance:
    """Noise predictor that is told an emotion, and where it can be, shown the person.

    Args:
        labels: (B,) emotions.
        scale: of guidance, against no emotion and, of a guided model, the picture as its own guide.
        shown: `reference` and `guide` latents (B, C, h, w) of a model that is shown them.
        overshoot: see `EditPath`.
    """
    told = _told(conditioner, labels, shown)
    if scale == 1.0:
        return ClassifierFreeGuidance(network, schedule, prediction_type, told)
    plain = None if shown is None else {**shown, "guide": shown["reference"]}
    nothing = _told(conditioner, torch.full_like(labels, NOBODY), plain)
    bounds = None if shown is None else guidance_bounds(shown["reference"], shown["guide"], overshoot)
    return ClassifierFreeGuidance(
        network, schedule, prediction_type, told, {"expression": nothing}, {"expression": scale}, bounds
    )


def _told(conditioner: ConditionerSet, labels: Tensor, shown: Mapping[str, Tensor] | None) -> Conditioning:
    batch, drop = {"emotion": labels}, {}
    if shown is not None:
        batch |= {f"{name}_latents": latents for name, latents in shown.items()}
    if "actions" in conditioner.conditioners:  # facial actions are not told
        count: Any = conditioner.conditioners["actions"].num_actions
        batch["actions"] = torch.zeros(len(labels), count, device=labels.device)
        drop["actions"] = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    return conditioner(batch, drop)
