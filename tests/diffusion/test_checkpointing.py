"""Activations that are computed again: the same values and gradients, and nothing kept from step to step."""

import torch

from talkface.diffusion.checkpointing import checkpointed
from talkface.diffusion.guidance import ClassifierFreeGuidance
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import editing_timesteps
from talkface.networks.unet import UNet


def network():
    torch.manual_seed(0)
    unet = UNet(
        in_channels=3,
        out_channels=3,
        model_channels=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_downsamples=(),
        image_size=8,
    )
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return unet


def chain(unet, wrap, steps=5):
    """The end of a differentiated chain of `steps`, and how many numbers the graph keeps for the backward pass."""
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    schedule = NoiseSchedule()
    predict = wrap(ClassifierFreeGuidance(unet, schedule, "epsilon", None))
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = DDIM(schedule).sample(predict, noise, editing_timesteps(steps, 500).flip(0))
    return made, sum(kept)


def test_values_and_gradients_are_the_same():
    results = []
    for wrap in (lambda predict: predict, checkpointed):
        unet = network()
        made, _ = chain(unet, wrap)
        made.square().mean().backward()
        results.append((made.detach(), [parameter.grad for parameter in unet.parameters()]))
    (plain, plain_grads), (again, again_grads) = results
    torch.testing.assert_close(plain, again, rtol=0, atol=0)
    assert all(grad is not None and grad.abs().sum() > 0 for grad in plain_grads[:4])
    for one, other in zip(plain_grads, again_grads, strict=True):
        torch.testing.assert_close(one, other)


def test_no_step_keeps_its_activations():
    few, many = (chain(network(), lambda predict: predict, steps)[1] for steps in (2, 6))
    assert many > 2.5 * few
    few, many = (chain(network(), checkpointed, steps)[1] for steps in (2, 6))
    latents = 2 * 3 * 8 * 8
    assert many <= 6 * 4 * latents < 0.05 * chain(network(), lambda predict: predict, 6)[1]


def test_each_step_is_computed_once_without_and_twice_with_gradients():
    unet, calls = network(), []
    # the middle: what is computed again stops where nothing more is needed, before the end of the network
    unet.middle_block.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        chain(unet, checkpointed, 3)
    assert len(calls) == 3
    made, _ = chain(unet, checkpointed, 3)
    made.sum().backward()
    assert len(calls) == 9
