"""Finetuning of a talking face with a lip reader (thesis, section 5.3; arXiv 2308.03183).

Latents of true frames are noised to a random time t, denoised again by a few differentiable DDIM steps, decoded and
read; what the reader's features differ by from those of the true film is the loss, and the latents are kept near the
true ones: d(f(x0), f(x0')) + lambda |z0 - z0'|^2 (eq. 5.4). Batches are sequences of consecutive frames, and the
solver starts at the very t that the latents were noised to: `tuned_film.py`. What experts make of a film is in
`lip_objective.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from talkface.adapters import add_lora
from talkface.diffusion.solvers import DDIM
from talkface.errors import TalkfaceError
from talkface.training.finite import stop_with_clips
from talkface.training.lip_objective import LipObjective
from talkface.training.start import load_base, step_generator, training_corpus
from talkface.training.tuned_film import TunedFilm
from talkface.training.window import Edges, Window


class LipFinetuneModule(TunedFilm):
    """Finetunes network and conditioners so that a lip reader reads from their films what it reads from true ones.

    The batch is that of `TalkingDataset` with `sequence_length` T > 1: (B, T, ...), and what all frames of a sequence
    share (B, ...). Every sequence has a time and drops of its own.

    Args:
        objective: what is compared with the true film.
        start_from: what is finetuned: a `.ckpt` of `DiffusionModule`, or a bundle; None: the parts as they are given.
        tune_steps: T_tune; 1: the clean latents that the network predicts in one step.
        eta, final_alpha: of the solver, see `DDIM`; the thesis's code has 1.0 and "first".
        scales: guidance by conditioner in every step of the solver, see `ClassifierFreeGuidance`.
        latent_weight: the thesis's lambda.
        shared_noise: all frames of a sequence start from the same noise, as the windowed sampler has it.
        over_guide: what the network changed is laid over the guide, as the sampler of a bundle with guides does it.
        window: left, top, right, bottom in pixels: what is decoded and judged; None: everything.
        checkpointing: activations of the steps are computed again instead of kept.
        lora_rank: train adapters of this rank in the network alone; None: all weights.
        options: of `DiffusionModule`; `timesteps` None: all from `tune_steps` on.

    Raises:
        TalkfaceError: more solver steps than the least noised latents have timesteps; a window off the grid.
    """

    objects = (*TunedFilm.objects, "objective")

    def __init__(
        self,
        *,
        objective: LipObjective,
        start_from: str | None = None,
        tune_steps: int = 8,
        eta: float = 0.0,
        final_alpha: str = "one",
        scales: dict[str, float] | None = None,
        latent_weight: float = 1.0,
        shared_noise: bool = False,
        over_guide: bool = False,
        window: Edges | None = None,
        checkpointing: bool = True,
        lora_rank: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        count, given = self.schedule.num_train_timesteps, options.get("timesteps")
        levels = list(range(max(tune_steps, 1), count) if given is None else given)
        self.levels, least = torch.tensor(levels), min(levels, default=count - 1)
        if not 1 <= tune_steps <= least:
            raise TalkfaceError(
                f"tune_steps: {tune_steps} for latents noised to t = {least}; allowed: 1 to {least}, at most one "
                "solver step per timestep; lower tune_steps or leave out the low timesteps"
            )
        self.objective, self.base, self.tune_steps = objective, start_from, tune_steps
        self.solver, self.scales = DDIM(self.schedule, eta, final_alpha), scales or {}
        self.latent_weight, self.shared_noise, self.over_guide = latent_weight, shared_noise, over_guide
        self.window, self.checkpointing = Window(self.first_stage, window), checkpointing
        self._clips: Tensor | None = None
        self.lora_rank = lora_rank

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.base is not None:
            load_base(self, self.base)
        if self.lora_rank is not None:
            self.requires_grad_(False)
            add_lora(self.network, self.lora_rank)
        if (corpus := training_corpus(self.trainer)) is not None:
            self.objective.check_rate(corpus.fps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["guided_by"] = self.objective.guided_by

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self._clips = batch.get("clip")
        number = self.trainer.fit_loop.total_batch_idx
        loss = self.loss(batch, step_generator(self.seed, 0, number, self.global_rank), drop=True)
        stop_with_clips(loss, "the loss", self, self._clips)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                stop_with_clips(parameter.grad.sum(), "the gradient", self, self._clips)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, drop: bool) -> Tensor:
        count, length = batch["target"].shape[:2]
        clean, inputs, drops = self.tune(batch, generator, drop)
        shown = self.shown(clean, inputs, drops)
        film = self.window.paste(shown, inputs["target"])
        shown, true, film = (
            x.unflatten(0, (count, length)) for x in (shown, self.window.cut(inputs["target"]), film)
        )
        terms = self.objective.terms(film, shown, true, batch)
        terms["latent"] = (clean.float() - inputs["target_latents"]).square().mean()
        if self._trainer is not None:
            stage = "train" if self.training else "val"
            self.log_dict({f"{stage}/{name}": value for name, value in terms.items()}, batch_size=count)
        weights = {**self.objective.weights, "latent": self.latent_weight}
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()
