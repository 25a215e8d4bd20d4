"""The way back to clean data, differentiated: what finetuning with a loss on the result goes through.

Three ways with the same result in memory terms from most to least: all steps in one graph; the same with recomputed
activations; one step only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkface.diffusion.base import NoisePredictor, Solver, transfer
from talkface.diffusion.checkpointing import checkpointed
from talkface.diffusion.schedule import NoiseSchedule
from talkface.errors import TalkfaceError

MEMORY = ("plain", "checkpointed", "per_step")


def check_memory(memory: str) -> str:
    """Return `memory`, or raise TalkfaceError if it is none of MEMORY."""
    if memory not in MEMORY:
        raise TalkfaceError(f"memory: '{memory}'; allowed: {', '.join(MEMORY)}")
    return memory


def denoise_with_gradients(
    solver: Solver,
    predict: NoisePredictor,
    x: Tensor,
    timesteps: Tensor,
    memory: str = "checkpointed",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Clean data (B, ...) whose gradient reaches what `predict` learns.

    Args:
        x: (B, ...) at the level of timesteps[0].
        timesteps: (S,), descending.
        memory: "plain": the graph holds the activations of S network calls. "checkpointed": of one, for one more
            forward pass of each (`checkpointed`). "per_step": one step is drawn; the steps before it are taken without
            gradients (DDIM, eta 0), and what is returned is the clean data predicted there, x0(x_t, t). Kim et al.
            ("DiffusionCLIP", 2022, appendix) go on and judge every step's prediction in turn; in the mean over batches
            one drawn step asks for the same.
        generator: draws that step.

    Raises:
        TalkfaceError: unknown `memory`, timesteps that invert.
    """
    if check_memory(memory) != "per_step":
        return solver.sample(checkpointed(predict) if memory == "checkpointed" else predict, x, timesteps)
    if len(timesteps) > 1 and bool((timesteps.diff() >= 0).any()):
        raise TalkfaceError(f"timesteps: {timesteps.tolist()[:8]}; allowed: strictly descending")
    chosen = int(torch.randint(len(timesteps), (), generator=generator))
    levels = solver.schedule.alpha_bar(timesteps.cpu()).tolist()
    times = timesteps.to(x.device)
    with torch.no_grad():
        for step in range(chosen):
            noise = predict(x, times[step].expand(len(x)))
            x = transfer(x, noise, levels[step], levels[step + 1])
    noise = predict(x, times[chosen].expand(len(x)))
    return transfer(x, noise, levels[chosen], 1.0)


def check_start(steps: int, strength: int, schedule: NoiseSchedule) -> None:
    """Raises: TalkfaceError: more steps than there are timesteps below the one that the latents were noised to."""
    last = min(strength, schedule.num_train_timesteps - 1)
    if not 1 <= steps <= last:
        raise TalkfaceError(
            f"tuning steps: {steps} from timestep {last}; allowed: 1 to {last}, at most one step per timestep; lower "
            "tuning_steps or raise strength"
        )
