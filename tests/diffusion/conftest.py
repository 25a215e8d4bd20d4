"""Data whose best noise predictor is known in closed form, and a smooth predictor for comparing with peers."""

import pytest
import torch


class GaussianData:
    """N(0.7, 0.4^2), with E[eps | x_t] and the exact solution of the probability-flow ODE."""

    mean, deviation = 0.7, 0.4

    def __init__(self, schedule):
        self.schedule = schedule

    def draw(self, count=64):
        noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return self.mean + self.deviation * noise

    def __call__(self, x, timesteps):
        signal, sigma = self.schedule.signal_and_noise(timesteps, x)
        return sigma * (x - signal * self.mean) / (signal**2 * self.deviation**2 + sigma**2)

    def flow(self, x, start, end):
        """From time `start` to time `end`; None is the end without noise."""

        def moments(time):
            level = 1.0 if time is None else self.schedule.alpha_bar(torch.tensor([time])).double().item()
            return level**0.5 * self.mean, (level * self.deviation**2 + 1 - level) ** 0.5

        (mean_a, deviation_a), (mean_b, deviation_b) = moments(start), moments(end)
        return mean_b + deviation_b * (x - mean_a) / deviation_a


class TwoModes:
    """0.4 N(-0.8, 0.15^2) + 0.6 N(0.9, 0.25^2): the flow bends between the modes."""

    weights, means, deviations = (
        torch.tensor(v, dtype=torch.float64) for v in ([0.4, 0.6], [-0.8, 0.9], [0.15, 0.25])
    )

    def __init__(self, schedule):
        self.schedule = schedule

    def draw(self, count=64):
        generator = torch.Generator().manual_seed(1)
        mode = (torch.rand(count, 1, generator=generator) > self.weights[0]).long()
        noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
        return self.means[mode] + self.deviations[mode] * noise

    def __call__(self, x, timesteps):
        signal, sigma = (factor[..., None] for factor in self.schedule.signal_and_noise(timesteps, x))
        variance = signal**2 * self.deviations**2 + sigma**2
        away = x[..., None] - signal * self.means
        shares = (self.weights.log() - 0.5 * variance.log() - 0.5 * away**2 / variance).softmax(-1)
        return (shares * sigma * away / variance).sum(-1)


@pytest.fixture
def gaussian_data():
    return GaussianData


@pytest.fixture
def two_modes():
    return TwoModes
