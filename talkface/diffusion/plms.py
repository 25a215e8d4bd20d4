"""PLMS: DDIM steps along a noise that is extrapolated from earlier steps (Liu et al. 2022, arXiv 2202.09778).

"Pseudo linear multistep": Adams-Bashforth of order 4 for the noise (eq. 12), DDIM for the move (eq. 9). The noise
is extrapolated as a function of the number of the step and weighted evenly along a step, so that the whole is of
second order, on grids that are smooth in that number.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from talkface.diffusion.base import Generators, NoisePredictor, Path, Solver, transfer

# weights of the newest, the one before, ... by how many evaluations are known
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class PLMS(Solver):
    """Fourth-order linear multistep for the noise, in both directions; deterministic.

    Warm-up: the first step is a pseudo improved Euler step (two evaluations: the mean of the noise at its two
    ends), then orders 2, 3 and 4 as evaluations become known; so S steps cost S + 1 evaluations, and a single
    step is one of DDIM. This is the warm-up of latent diffusion and of `diffusers.PNDMScheduler` with
    `skip_prk_steps`; the paper's has three Runge-Kutta steps (12 evaluations).

    The weights take all steps to be alike whatever the times, as in the peers.

    Args:
        schedule, final_alpha: see `Solver`.
    """

    def _trajectory(
        self, predict_noise: NoisePredictor, x: Tensor, path: Path, generator: Generators
    ) -> Iterator[Tensor]:
        known: list[Tensor] = []
        for index in range(path.steps):
            start, end = path.levels[index], path.levels[index + 1]
            known = [predict_noise(x, path.time(index, x)), *known[: len(ADAMS_BASHFORTH) - 1]]
            if index == 0 and path.steps > 1:
                guess = transfer(x, known[0], start, end)
                noise = 0.5 * (known[0] + predict_noise(guess, path.time(1, x)))
            else:
                weights = ADAMS_BASHFORTH[len(known) - 1]
                noise = weights[0] * known[0]
                for weight, earlier in zip(weights[1:], known[1:], strict=True):
                    noise = noise + weight * earlier
            x = transfer(x, noise, start, end)
            yield x
