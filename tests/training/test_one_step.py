"""Fine-tuning of the one step: what is compared, and that it is learned."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from talkface.conditioning.base import ConditionerSet
from talkface.conditioning.frames import FramesConditioner
from talkface.diffusion.schedule import NoiseSchedule
from talkface.errors import TalkfaceError
from talkface.networks.unet import UNet
from talkface.networks.vqgan import IdentityFirstStage
from talkface.training.one_step import OneStepModule
from talkface.training.start import step_generator

WINDOW = (4, 8, 12, 16)


class Squares(nn.Module):
    """A distance that a test can compute by hand."""

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).square().mean(dim=(1, 2, 3))


def module(tiny: SimpleNamespace, drop_rate: float = 0.0, **options: object) -> OneStepModule:
    conditioner = ConditionerSet(
        {
            "frames": FramesConditioner(latent_size=tiny.size),
            "guide": FramesConditioner(latent_size=tiny.size, order=["guide"], drop_rate=drop_rate),
        }
    )
    network = UNet(
        in_channels=12, out_channels=3, model_channels=16, channel_mult=(1,), num_res_blocks=1,
        attention_downsamples=(), image_size=tiny.size,
    )  # fmt: skip
    settings: dict = {"perceptual": Squares(), "window": WINDOW, "timesteps": [999], "learning_rate": 3e-3}
    return OneStepModule(
        network, IdentityFirstStage(), NoiseSchedule(), conditioner, **{**settings, **options}
    )


@pytest.fixture
def batch(tiny: SimpleNamespace) -> dict[str, Tensor]:
    batch = next(iter(tiny.loader(4)))
    batch["guide"] = batch["target"].roll(1, 3)
    left, top, right, bottom = WINDOW
    for name in ("target", "guide"):
        batch[f"{name}_pixels"] = batch[name][:, :, top:bottom, left:right]
    return batch


def test_the_window_is_the_window_of_the_decoded_picture(tiny: SimpleNamespace) -> None:
    latents = torch.randn(2, 3, tiny.size, tiny.size)
    for window in (WINDOW, (0, 0, 4, 16), (1, 15, 16, 16)):
        left, top, right, bottom = window
        assert torch.equal(
            module(tiny, window=window).window.decode(latents), latents[:, :, top:bottom, left:right]
        )


def test_a_network_that_repeats_the_guide_shows_the_guide(
    tiny: SimpleNamespace, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch["guide"], batch["guide_pixels"] = torch.zeros_like(batch["guide"]), torch.zeros(4, 3, 8, 8)
    batch["target_pixels"] = torch.full((4, 3, 8, 8), 0.5)
    one = module(tiny, latent_weight=0.0)
    denoise = one.denoise

    def repeated(*arguments):
        made = denoise(*arguments)
        return made._replace(clean=made.inputs["guide_latents"])

    monkeypatch.setattr(one, "denoise", repeated)
    difference = batch["guide_pixels"] - batch["target_pixels"]
    expected = difference.abs().mean() + 0.5 * difference.square().mean()
    assert float(one.loss(batch, step_generator(0, 0), drop=False)) == pytest.approx(
        float(expected), rel=1e-4
    )


def test_without_a_guide_the_painting_itself_is_shown(
    tiny: SimpleNamespace, batch: dict[str, Tensor]
) -> None:
    one = module(tiny, drop_rate=1.0, latent_weight=0.0, perceptual=None)
    made = one.denoise(batch, step_generator(0, 0), drop=True)
    expected = (one.window.decode(made.clean) - batch["target_pixels"]).abs().mean()
    assert float(one.loss(batch, step_generator(0, 0), drop=True)) == pytest.approx(float(expected), rel=1e-5)


def test_it_learns_what_the_guide_lacks(tiny: SimpleNamespace, batch: dict[str, Tensor]) -> None:
    batch["guide"], batch["guide_pixels"] = torch.zeros_like(batch["guide"]), torch.zeros(4, 3, 8, 8)
    batch["target_pixels"] = torch.full((4, 3, 8, 8), 0.5)
    one = module(tiny, latent_weight=0.0, learning_rate=1e-2, weight_decay=0.0)
    one.train()
    optimizer = one.configure_optimizers()
    losses = []
    for _ in range(30):
        loss = one.loss(batch, step_generator(0, 0), drop=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert not one.first_stage.training


@pytest.mark.parametrize(
    ("options", "message"),
    [({"timesteps": [999, 499]}, "2 noise levels"), ({"window": (12, 8, 12, 16)}, "left < right")],
)
def test_bad_settings_say_what_is_allowed(tiny: SimpleNamespace, options: dict, message: str) -> None:
    with pytest.raises(TalkfaceError, match=message):
        module(tiny, **options)
