"""Noise schedules: how much signal is left at time t, and what follows from it.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (Ho et al. 2020, arXiv 2006.11239, eq. 4). The only owner of
abar ("alpha bar") and of the conversions between noise, clean data and velocity (Salimans & Ho 2022, arXiv
2202.00512, section 4); one instance serves loss, solver and inversion. It holds no network and takes no
steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from talkface.errors import TalkfaceError

SCHEDULE_KINDS = ("sqrt_linear", "linear", "cosine", "continuous_cosine")
PREDICTION_TYPES = ("epsilon", "velocity", "x0")


def check_prediction_type(prediction_type: str) -> str:
    """Return `prediction_type`, or raise TalkfaceError if it is none of PREDICTION_TYPES."""
    if prediction_type not in PREDICTION_TYPES:
        raise TalkfaceError(f"prediction_type: '{prediction_type}'; allowed: {', '.join(PREDICTION_TYPES)}")
    return prediction_type


class NoiseSchedule:
    """abar(t) for t from 0 (clean) to `num_train_timesteps` - 1 (noise).

    Kinds:
        sqrt_linear: square roots of the betas evenly spaced; with the defaults 0.0015, 0.0205 the thesis's
            (which its code calls "linear").
        linear: betas evenly spaced from `start` to `end` (arXiv 2006.11239: 0.0001, 0.02).
        cosine: arXiv 2102.09672, eq. 17, betas at most 0.999; `start` and `end` are not used.
        continuous_cosine: abar = cos^2 of an angle that grows linearly with t / num_train_timesteps from
            acos(0.95) to acos(0.02); any real t in 0..num_train_timesteps; `start` and `end` are not used.

    The first three are tables; between their entries log abar is interpolated linearly, so fractional times
    work for every kind.

    Raises:
        TalkfaceError: unknown kind, or fewer than one time step.
    """

    def __init__(
        self,
        kind: str = "sqrt_linear",
        num_train_timesteps: int = 1000,
        start: float = 0.0015,
        end: float = 0.0205,
    ) -> None:
        if kind not in SCHEDULE_KINDS:
            raise TalkfaceError(f"schedule kind: '{kind}'; allowed: {', '.join(SCHEDULE_KINDS)}")
        if num_train_timesteps < 1:
            raise TalkfaceError(f"num_train_timesteps: {num_train_timesteps}; allowed: 1 or more")
        self.kind, self.num_train_timesteps = kind, num_train_timesteps
        self.start, self.end = start, end
        self.max_timestep = float(
            num_train_timesteps if kind == "continuous_cosine" else num_train_timesteps - 1
        )
        # float64 products, stored once per device: a table in a module would follow the network into
        # bfloat16.
        self._tables = {torch.device("cpu"): self._log_alpha_bar().float()}

    def _log_alpha_bar(self) -> Tensor:
        count = self.num_train_timesteps
        if self.kind == "sqrt_linear":
            betas = torch.linspace(self.start**0.5, self.end**0.5, count, dtype=torch.float64).square()
        elif self.kind == "linear":
            betas = torch.linspace(self.start, self.end, count, dtype=torch.float64)
        else:
            edges = torch.linspace(0.0, 1.0, count + 1, dtype=torch.float64)
            signal = torch.cos((edges + 0.008) / 1.008 * math.pi / 2).square()
            betas = (1.0 - signal[1:] / signal[:-1]).clamp(max=0.999)
        return torch.log1p(-betas).cumsum(0)

    def alpha_bar(self, timesteps: Tensor) -> Tensor:
        """Share of signal power.

        Args:
            timesteps: any shape, integer or fractional, 0..max_timestep (clamped).
        Returns:
            float32 of the same shape and device, in (0, 1).
        """
        if self.kind == "continuous_cosine":
            first, last = math.acos(0.95), math.acos(0.02)
            share = timesteps.float().clamp(0.0, self.max_timestep) / self.num_train_timesteps
            return torch.cos(first + share * (last - first)).square()
        table = self._tables.get(timesteps.device)
        if table is None:
            table = self._tables[timesteps.device] = self._tables[torch.device("cpu")].to(timesteps.device)
        if not timesteps.is_floating_point():
            return table[timesteps.clamp(0, self.num_train_timesteps - 1)].exp()
        times = timesteps.float().clamp(0.0, self.max_timestep)
        below = times.floor().long()
        above = times.ceil().long()
        return torch.lerp(table[below], table[above], times - below).exp()

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio abar / (1 - abar), same shape as `timesteps`."""
        alpha_bar = self.alpha_bar(timesteps)
        return alpha_bar / (1.0 - alpha_bar)

    def timesteps_at(self, log_snr: Tensor) -> Tensor:
        """Times at which log(abar / (1 - abar)) has these values; the inverse of `snr`.

        Args:
            log_snr: any shape; values beyond the ends of the schedule give its first or last time.
        Returns:
            float32 of the same shape, fractional, 0..max_timestep.
        """
        if self.kind == "continuous_cosine":
            first, last = math.acos(0.95), math.acos(0.02)
            share = (log_snr.double().sigmoid().sqrt().acos() - first) / (last - first)
            return (share * self.num_train_timesteps).clamp(0.0, self.max_timestep).float()
        table = self._tables[torch.device("cpu")].to(log_snr.device).double()
        if len(table) == 1:
            return torch.zeros_like(log_snr, dtype=torch.float32)
        log_levels = torch.nn.functional.logsigmoid(log_snr.double()).clamp(table[-1], table[0])
        above = torch.searchsorted(-table, -log_levels).clamp(min=1)
        below = above - 1
        return (below + (table[below] - log_levels) / (table[below] - table[above])).float()

    def signal_and_noise(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar), sqrt(1 - abar) of timesteps (B,), shaped and typed to multiply `like` (B, ...)."""
        alpha_bar = self.alpha_bar(timesteps.to(like.device)).reshape(-1, *[1] * (like.dim() - 1))
        return alpha_bar.sqrt().to(like.dtype), (1.0 - alpha_bar).sqrt().to(like.dtype)

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t. x0, noise (B, ...), timesteps (B,) -> (B, ...)."""
        signal, sigma = self.signal_and_noise(timesteps, x0)
        return signal * x0 + sigma * noise

    def velocity(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = sqrt(abar) eps - sqrt(1 - abar) x_0."""
        signal, sigma = self.signal_and_noise(timesteps, x0)
        return signal * noise - sigma * x0

    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor, prediction_type: str) -> Tensor:
        """What a network with this `prediction_type` should output for x_t."""
        check_prediction_type(prediction_type)
        if prediction_type == "epsilon":
            return noise
        return x0 if prediction_type == "x0" else self.velocity(x0, noise, timesteps)

    def to_epsilon(self, output: Tensor, x: Tensor, timesteps: Tensor, prediction_type: str) -> Tensor:
        """The noise that a network output stands for.

        Args:
            output, x: (B, ...): the network's output and its input x_t.
            timesteps: (B,).
            prediction_type: "epsilon", "velocity" or "x0" (clean data).
        """
        check_prediction_type(prediction_type)
        if prediction_type == "epsilon":
            return output
        signal, sigma = self.signal_and_noise(timesteps, x)
        if prediction_type == "velocity":
            return signal * output + sigma * x
        return (x - signal * output) / sigma

    def to_x0(self, output: Tensor, x: Tensor, timesteps: Tensor, prediction_type: str) -> Tensor:
        """The clean data that a network output stands for; arguments as `to_epsilon`."""
        check_prediction_type(prediction_type)
        if prediction_type == "x0":
            return output
        signal, sigma = self.signal_and_noise(timesteps, x)
        if prediction_type == "velocity":
            return signal * x - sigma * output
        return (x - sigma * output) / signal
