import pytest
import torch
from torch import nn

from talkface.losses.first_stage import FirstStageLoss, adaptive_weight
from talkface.networks.vqgan import VQGAN, PatchDiscriminator


class MeanDistance(nn.Module):
    """A perceptual expert small enough to compute by hand: squared difference of mean brightness."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, a, b):
        return self.gain * (a.mean(dim=(1, 2, 3)) - b.mean(dim=(1, 2, 3))).square()


class ConstantScore(nn.Module):
    """A critic whose score is a multiple of the mean brightness."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, images):
        return self.gain * images.mean(dim=(1, 2, 3))


def test_adaptive_weight_known_answer():
    layer = torch.tensor([1.0, 1.0], requires_grad=True)
    # Gradients (3, 4) and (0, 2): lengths 5 and 2.
    weight = adaptive_weight((layer * torch.tensor([3.0, 4.0])).sum(), 2 * layer[1], layer)
    assert weight.item() == pytest.approx(2.5, rel=1e-3) and not weight.requires_grad


def test_adaptive_weight_is_capped():
    layer = torch.tensor([1.0], requires_grad=True)
    assert adaptive_weight(1e6 * layer.sum(), 0.0 * layer.sum(), layer).item() == 1e4


def test_terms_known_answers():
    images, made = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    loss = FirstStageLoss(MeanDistance(), perceptual_weight=3.0, codebook_weight=2.0)
    terms = loss.autoencoder(images, made, torch.tensor(0.7))
    assert terms.pixel.item() == 0.5 and terms.perceptual.item() == 0.5
    assert terms.total.item() == pytest.approx(0.5 + 3 * 0.5 + 2 * 0.7)
    assert terms.adversarial.item() == terms.adversarial_weight.item() == 0.0


def test_without_perceptual_expert():
    terms = FirstStageLoss().autoencoder(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), torch.tensor(0.0))
    assert terms.perceptual.item() == 0.0 and terms.total.item() == 1.0


def test_region_weights_keep_the_scale():
    images, made = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    made[:, :, 2:] = 1.0
    weights = torch.ones(1, 1, 4, 4)
    loss = FirstStageLoss()
    assert loss.autoencoder(images, made, torch.tensor(0.0), region_weights=9 * weights).pixel.item() == 0.5
    weights[:, :, 2:] = 3.0
    assert loss.autoencoder(images, made, torch.tensor(0.0), region_weights=weights).pixel.item() == 0.75


def test_adversarial_term_starts_when_told():
    images, made = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    loss = FirstStageLoss(adversarial_start=10, adversarial_weight=0.5, adaptive=False)
    critic = ConstantScore(4.0)
    before = loss.autoencoder(images, made, torch.tensor(0.0), discriminator=critic, step=9)
    after = loss.autoencoder(images, made, torch.tensor(0.0), discriminator=critic, step=10)
    assert before.total.item() == 1.0 and not loss.uses_discriminator(9) and loss.uses_discriminator(10)
    assert after.adversarial.item() == -4.0 and after.total.item() == 1.0 + 0.5 * -4.0


def test_adaptive_weight_balances_gradients_at_the_last_layer_of_a_real_model():
    torch.manual_seed(0)
    model = VQGAN(
        channels=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(),
        image_size=32,
        codebook_size=8,
    )
    critic = PatchDiscriminator(channels=4, num_layers=2)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    output = model(images)
    terms = FirstStageLoss().autoencoder(
        images, output.reconstruction, output.codebook_loss, discriminator=critic, last_layer=model.last_layer
    )
    lengths = [
        torch.autograd.grad(term, model.last_layer, retain_graph=True)[0].norm()
        for term in (terms.pixel, terms.adversarial_weight * terms.adversarial)
    ]
    torch.testing.assert_close(lengths[0], lengths[1], rtol=0.05, atol=0)
    terms.total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_hinge_loss_known_answers():
    loss = FirstStageLoss()
    bright, dark = torch.ones(2, 3, 4, 4), -torch.ones(2, 3, 4, 4)
    assert loss.discriminator(ConstantScore(1.0), bright, dark).item() == 0.0
    assert loss.discriminator(ConstantScore(0.0), bright, dark).item() == 1.0
    assert loss.discriminator(ConstantScore(-1.0), bright, dark).item() == 2.0


def test_discriminator_loss_does_not_reach_the_autoencoder():
    made = torch.ones(1, 3, 32, 32, requires_grad=True)
    critic = PatchDiscriminator(channels=4, num_layers=2)
    FirstStageLoss().discriminator(critic, torch.zeros(1, 3, 32, 32), made).backward()
    assert made.grad is None and critic.main[0].weight.grad.abs().max() > 0


def test_expert_is_frozen_and_stays_in_evaluation_mode():
    loss = FirstStageLoss(MeanDistance()).train()
    assert not loss.perceptual.training and not loss.perceptual.gain.requires_grad
