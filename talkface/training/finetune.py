"""CLIP-guided finetuning of an emotion model (the thesis's section 4.5; Kim et al., "DiffusionCLIP", CVPR 2022).

Pictures were inverted once, before training (`talkface.data.inverted`); a step denoises a batch under its targets with
gradients through every solver step, decodes it, and asks the guide. How a batch is edited is in `editing.py` and
`edit_path.py`, what its terms are in `clip_guide.py`, how gradients are kept small in `talkface.diffusion.tuning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from talkface.adapters import add_lora
from talkface.conditioning.base import ConditionerSet
from talkface.diffusion.schedule import NoiseSchedule
from talkface.experts.registry import check_judge, load_expert
from talkface.head.emotions import EMOTIONS
from talkface.training.clip_guide import ClipGuide
from talkface.training.edit_path import EditPath
from talkface.training.editing import ACCURACY, EditingModule, by_target
from talkface.training.finite import gradients_of, stop_unless_finite
from talkface.training.start import data_module, load_base, step_generator


class ClipFinetuneModule(EditingModule):
    """Trains the network of an emotion model, or an adapter of it; conditioner and first stage stay.

    Batch keys: `noisy_latents` (B, C, h, w) at t_0, `source` (B, 3, S, S), what the first stage makes of the picture,
    `label` and `target` (B,), `number` (B,) of the picture in its set, and of a guided model `reference_latents` and
    `guide_latents`; see `talkface.data.inverted`.

    Args:
        network, first_stage, schedule, conditioner: the emotion model, as it was trained.
        guide: the experts and the weights of their terms.
        judge: an emotion classifier, or the file of one, whose accuracy per target is logged at validation; it must
            not be one of the experts that guide.
        path: how pictures are edited.
        start_from: the weights: a bundle, or a `.ckpt` of DiffusionModule.
        lora_rank: train an adapter of this rank; None: all weights (the thesis).
        options: of DiffusionModule: learning rate (the thesis: 2e-6), prediction type, seed, ...

    Raises:
        TalkfaceError: settings that do not fit together; a model that is told more than emotion, actions and frames.
    """

    objects = (*EditingModule.objects, "guide", "judge", "path")

    def __init__(
        self,
        network: nn.Module,
        first_stage: nn.Module,
        schedule: NoiseSchedule,
        conditioner: ConditionerSet,
        guide: ClipGuide,
        judge: nn.Module | str | None = None,
        path: EditPath | None = None,
        *,
        start_from: str | None = None,
        lora_rank: int | None = None,
        prediction_type: str = "epsilon",
        learning_rate: float = 2e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        warmup_steps: int = 0,
        total_steps: int | None = None,
        seed: int = 23,
    ) -> None:
        super().__init__(
            network,
            first_stage,
            schedule,
            conditioner,
            prediction_type=prediction_type,
            learning_rate=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            total_steps=total_steps,
            seed=seed,
        )
        self.path = EditPath() if path is None else path
        self.path.check(schedule)
        judge = load_expert(judge) if isinstance(judge, str) else judge
        # in a tuple: experts are no part of the model, and of its checkpoints
        self._experts = (guide, None if judge is None else judge.eval().requires_grad_(False))
        self.origin, self.lora_rank = start_from, lora_rank
        conditioner.requires_grad_(False)

    @property
    def guide(self) -> ClipGuide:
        """The experts that guide, and the weights of their terms."""
        return self._experts[0]

    @property
    def emotions(self) -> Sequence[str]:
        """Names in the order of the labels."""
        return EMOTIONS

    def setup(self, stage: str) -> None:
        if (judge := self._experts[1]) is not None:
            check_judge(judge, self.guide.fingerprints())
        if self.origin is not None:
            load_base(self, self.origin)
        if stage == "fit":
            for expert in (self, *self._experts):
                if expert is not None:
                    expert.to(self.trainer.strategy.root_device)
            # before a checkpoint is read: latents are those of the model that the finetuning starts from
            data_module(self.trainer).invert(self)
        if self.lora_rank is not None:
            add_lora(self.network, self.lora_rank)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        number = self.trainer.fit_loop.total_batch_idx
        edited = self.edit(batch, self.path.memory, step_generator(self.seed, 2, number, self.global_rank))
        terms = self.guide(edited, batch["source"], batch["label"], batch["target"])
        loss = self.guide.total(terms)
        self._taken = batch, batch_idx
        stop_unless_finite(loss.detach(), "the loss", self, batch, batch_idx)
        self.log_dict({f"train/{name}": term.mean() for name, term in terms.items()})
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        edited = self.edit(batch, "plain").clamp(-1, 1)
        terms = self.guide(edited, batch["source"], batch["label"], batch["target"])
        values = {"val/loss": self.guide.total(terms)} | {
            f"val/{n}": term.mean() for n, term in terms.items()
        }
        self.log_dict(values, prog_bar=True, sync_dist=True, batch_size=len(edited))
        if (judge := self._experts[1]) is not None:
            hits = (judge(edited.float()).argmax(1) == batch["target"]).float()
            for name, own in by_target(hits, batch["target"], self.emotions).items():
                self.log(name, own.mean(), prog_bar=name == ACCURACY, sync_dist=True, batch_size=len(own))

    def on_after_backward(self) -> None:
        gradients = gradients_of(p for p in self.parameters() if p.requires_grad)
        stop_unless_finite(gradients, "the gradient", self, *self._taken)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["finetuned"] = self.about()

    def about(self) -> dict[str, Any]:
        """What is to be known of a result: base, experts, settings; JSON values."""
        return {
            "start_from": self.origin,
            "guided_by": self.guide.fingerprints(),
            "guidance_scale": self.path.guidance_scale,
            "strength": self.path.strength,
            "epoch": self.current_epoch,
        }
