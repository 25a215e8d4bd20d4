"""The diffusion module: what is learned, what is frozen, what randomness depends on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from talkface.conditioning.base import ConditionerSet
from talkface.conditioning.face import EmotionConditioner
from talkface.diffusion.schedule import NoiseSchedule
from talkface.errors import TalkfaceError
from talkface.networks.unet import UNet
from talkface.networks.vqgan import IdentityFirstStage
from talkface.training.diffusion import DiffusionModule
from talkface.training.start import learning_rate_factor, load_first_stage, step_generator

SIZE = 16


def wake_up(network: torch.nn.Module) -> None:
    """Replace the zeros that a fresh network ends its blocks with: otherwise it ignores all inputs."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)


@pytest.fixture
def batch(tiny: SimpleNamespace) -> dict[str, torch.Tensor]:
    return next(iter(tiny.loader(8)))


def small_unet(**options: int) -> UNet:
    return UNet(
        in_channels=3, out_channels=3, model_channels=16, channel_mult=(1,), num_res_blocks=1,
        attention_downsamples=(1,) if options.get("context_dim") else (), num_head_channels=8,
        image_size=SIZE, **options,
    )  # fmt: skip


def test_learns_a_fixed_batch_and_leaves_the_first_stage_alone(
    tiny: SimpleNamespace, batch: dict[str, torch.Tensor]
) -> None:
    module = tiny.talking(learning_rate=3e-3, weight_decay=0.0)
    module.train()
    before = {name: value.clone() for name, value in module.first_stage.state_dict().items()}
    optimizer = module.configure_optimizers()
    losses = []
    for step in range(25):
        loss = module.loss(batch, step_generator(0, step), drop=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # an untrained network predicts zero: the loss is the variance of the noise, one
    assert sum(losses[:3]) / 3 == pytest.approx(1.0, abs=0.15)
    assert sum(losses[-10:]) / 10 < 0.8
    assert not module.first_stage.training
    for name, value in module.first_stage.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_loss_depends_on_the_generator_only(tiny: SimpleNamespace, batch: dict[str, torch.Tensor]) -> None:
    module = tiny.talking()
    wake_up(module.network)
    first = module.loss(batch, step_generator(1, 5), drop=True)
    torch.rand(3)
    assert torch.equal(first, module.loss(batch, step_generator(1, 5), drop=True))
    assert not torch.equal(first, module.loss(batch, step_generator(1, 6), drop=True))
    # conditioners are dropped in training only
    assert not torch.equal(first, module.loss(batch, step_generator(1, 5), drop=False))


def test_all_pictures_are_encoded_and_given_latents_are_used(
    tiny: SimpleNamespace, batch: dict[str, torch.Tensor]
) -> None:
    module = tiny.talking()
    latents, inputs = module.encode(batch)
    for name, got in (
        ("target", latents),
        ("masked", inputs["masked_latents"]),
        ("reference", inputs["reference_latents"]),
    ):
        assert torch.allclose(got, module.first_stage.encode(batch[name]), atol=1e-5)
        assert not got.requires_grad
    given = torch.full_like(latents, 0.5)
    assert torch.equal(module.encode(batch | {"target_latents": given})[0], given)


def test_region_weight_counts_the_masked_part(tiny: SimpleNamespace, batch: dict[str, torch.Tensor]) -> None:
    """With weight 0 only what lies outside the mask counts: the loss of zero is the noise power there."""
    module = tiny.talking(region_weight=0.0)
    generator = step_generator(3)
    loss = module.loss(batch, step_generator(3), drop=False)
    torch.randint(1000, (8,), generator=generator)
    noise = torch.randn((8, 3, SIZE // 2, SIZE // 2), generator=generator)
    assert loss.item() == pytest.approx(noise[:, :, : SIZE // 4].square().mean().item(), rel=1e-4)


def test_class_conditional_and_pixel_models_are_the_same_module(batch: dict[str, torch.Tensor]) -> None:
    conditioner = ConditionerSet({"emotion": EmotionConditioner(dim=8)})
    by_class = DiffusionModule(small_unet(context_dim=8), IdentityFirstStage(), NoiseSchedule(), conditioner)
    batch = {"images": batch["images"], "label": torch.arange(8)}
    wake_up(by_class.network)
    loss = by_class.loss(batch, step_generator(0), drop=False)
    other = by_class.loss(batch | {"label": torch.full((8,), -1)}, step_generator(0), drop=False)
    assert loss.isfinite() and not torch.equal(loss, other)
    pixels = DiffusionModule(small_unet(), IdentityFirstStage(), NoiseSchedule(), prediction_type="velocity")
    assert pixels.loss(batch, step_generator(0), drop=True).isfinite()


def test_parts_that_do_not_fit_are_refused(tiny: SimpleNamespace) -> None:
    with pytest.raises(TalkfaceError, match="in_channels of the network: 3; allowed: 9"):
        DiffusionModule(small_unet(context_dim=8), tiny.vqgan(), NoiseSchedule(), tiny.talking().conditioner)
    with pytest.raises(TalkfaceError, match="prediction_type: 'eps'"):
        tiny.talking(prediction_type="eps")


def test_learning_rate_factor() -> None:
    factor = learning_rate_factor(4, 12)
    assert [factor(step) for step in (0, 1, 3, 4)] == [0.25, 0.5, 1.0, 1.0]
    assert (
        factor(8) == pytest.approx(0.5)
        and factor(12) == pytest.approx(0.0, abs=1e-12)
        and factor(99) == factor(12)
    )
    assert learning_rate_factor(0, None)(10**6) == 1.0


def test_first_stage_is_taken_from_a_checkpoint(tiny: SimpleNamespace, tmp_path: Path) -> None:
    source = tiny.talking()
    trainer = pl.Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(source, tiny.loader())
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    target = tiny.vqgan()
    load_first_stage(target, str(tmp_path / "a.ckpt"))
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.first_stage.state_dict()[name])
    with pytest.raises(TalkfaceError, match="do not fit VQGAN"):
        load_first_stage(tiny.vqgan(latent_channels=4), str(tmp_path / "a.ckpt"))
    with pytest.raises(TalkfaceError, match="does not exist"):
        load_first_stage(target, str(tmp_path / "b.ckpt"))


class Oracle(torch.nn.Module):
    """Predicts the target but for an error of 0.3 in the clean latents, in any kind of prediction."""

    in_channels, context_dim, embedding_dim = 3, None, None

    def __init__(self, kind: str, schedule: NoiseSchedule, target: torch.Tensor) -> None:
        super().__init__()
        self.kind, self.schedule, self.target = kind, schedule, target

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, conditioning: object = None) -> torch.Tensor:
        signal, sigma = self.schedule.signal_and_noise(timesteps, x)
        clean = self.target + 0.3
        noise = (x - signal * clean) / sigma
        return self.schedule.target(clean, noise, timesteps, self.kind)


@pytest.mark.parametrize("kind", ["epsilon", "velocity", "x0"])
def test_noisy_latents_may_show_the_reference(kind: str) -> None:
    """Then what counts is the error of the clean latents, whatever is predicted and at every level."""
    schedule, generator = NoiseSchedule(), torch.Generator().manual_seed(0)
    target, reference = (torch.randn(8, 3, SIZE, SIZE, generator=generator) for _ in range(2))
    module = DiffusionModule(
        Oracle(kind, schedule, target),
        IdentityFirstStage(),
        schedule,
        prediction_type=kind,
        start_share=1.0,
    )
    batch = {"target_latents": target, "reference_latents": reference}
    made = module.denoise(batch, step_generator(0, 0), drop=True)
    assert made.loss.item() == pytest.approx(0.09, rel=1e-3)
    assert torch.allclose(made.clean, target + 0.3, atol=2e-3)


def test_half_of_the_noisy_latents_show_the_reference() -> None:
    seen = []
    network = small_unet()
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module = DiffusionModule(network, IdentityFirstStage(), NoiseSchedule(), timesteps=[0], start_share=0.5)
    batch = {
        "target_latents": torch.zeros(400, 3, SIZE, SIZE),
        "reference_latents": torch.ones(400, 3, SIZE, SIZE),
    }
    module.denoise(batch, step_generator(0, 0), drop=True)
    shown = seen[0].mean(dim=(1, 2, 3)).round()  # there is next to no noise at time 0
    assert set(shown.tolist()) == {0.0, 1.0} and 150 < shown.sum() < 250
