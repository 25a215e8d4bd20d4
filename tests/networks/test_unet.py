from types import SimpleNamespace

import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.networks.layers import CrossAttention, Downsample, TimeResBlock, group_norm, timestep_embedding
from talkface.networks.unet import UNet


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def conditioning(context=None, concat=None, embedding=None):
    return SimpleNamespace(context=context, concat=concat, embedding=embedding)


def tiny(**changes):
    arguments = {
        "in_channels": 5,
        "out_channels": 3,
        "model_channels": 16,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "attention_downsamples": (2,),
        "num_head_channels": 16,
        "context_dim": 12,
        "embedding_dim": 7,
        "image_size": 8,
    }
    torch.manual_seed(0)
    network = UNet(**{**arguments, **changes})
    # The last layers start at zero, which would hide everything before them.
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network


def tiny_inputs(batch=2, tokens=3):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    x, timesteps = draw(batch, 3, 8, 8), torch.tensor([3, 700])[:batch]
    return x, timesteps, conditioning(draw(batch, tokens, 12), draw(batch, 2, 8, 8), draw(batch, 7))


@pytest.mark.parametrize(
    ("in_channels", "context_dim", "parameters"), [(9, 1024, 163_158_883), (3, 512, 156_760_483)]
)
def test_paper_sizes_have_the_papers_parameters(in_channels, context_dim, parameters):
    with torch.device("meta"):
        network = UNet(in_channels=in_channels, out_channels=3, model_channels=160, context_dim=context_dim)
    assert count(network) == parameters


def test_layout_is_that_of_published_checkpoints():
    with torch.device("meta"):
        network = UNet(in_channels=9, out_channels=3, model_channels=160, context_dim=1024)
    state = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(state) == 626
    expected = {
        "time_embed.2.weight": (640, 640),
        "input_blocks.0.0.weight": (160, 9, 3, 3),
        "input_blocks.3.0.op.weight": (160, 160, 3, 3),
        "input_blocks.4.0.skip_connection.weight": (320, 160, 1, 1),
        "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": (640, 1024),
        "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj.weight": (1280, 160),
        "middle_block.1.transformer_blocks.0.attn1.to_out.0.bias": (640,),
        "output_blocks.2.2.conv.weight": (640, 640, 3, 3),
        "output_blocks.3.0.in_layers.2.weight": (320, 960, 3, 3),
        "output_blocks.8.0.out_layers.3.weight": (160, 160, 3, 3),
        "out.2.weight": (3, 160, 3, 3),
    }
    assert {name: state[name] for name in expected} == expected


def test_timestep_embedding_is_cosines_then_sines():
    embedding = timestep_embedding(torch.tensor([0, 2]), 6)
    torch.testing.assert_close(embedding[0], torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]))
    frequencies = torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3)])
    torch.testing.assert_close(embedding[1], torch.cat([(2 * frequencies).cos(), (2 * frequencies).sin()]))


def test_timestep_embedding_of_odd_width_ends_in_zero():
    assert timestep_embedding(torch.tensor([5.0]), 5)[0, -1] == 0.0


@pytest.mark.parametrize(("channels", "groups"), [(160, 32), (128, 32), (48, 12), (36, 9), (7, 1)])
def test_group_norm_groups_have_at_least_four_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_time_reaches_the_narrowest_residual_block():
    torch.manual_seed(0)
    block = TimeResBlock(4, 4, 3)
    torch.nn.init.normal_(block.out_layers[3].weight)
    x = torch.randn(1, 4, 6, 6)
    assert (block(x, torch.randn(1, 3)) - block(x, torch.randn(1, 3))).abs().max() > 1e-2


def test_residual_block_starts_as_the_identity():
    block = TimeResBlock(8, 8, 4)
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(block(x, torch.randn(2, 4)), x)


def test_downsample_halves():
    assert Downsample(4)(torch.randn(1, 4, 8, 6)).shape == (1, 4, 4, 3)


def test_attention_matches_the_definition():
    torch.manual_seed(0)
    attention = CrossAttention(8, 6, 2)
    x, context = torch.randn(1, 5, 8), torch.randn(1, 3, 6)
    q, k, v = attention.to_q(x), attention.to_k(context), attention.to_v(context)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (q[..., head] @ k[..., head].transpose(1, 2) / 4**0.5).softmax(dim=-1)
        heads.append(weights @ v[..., head])
    torch.testing.assert_close(attention(x, context), attention.to_out(torch.cat(heads, dim=-1)))


def test_one_context_token_leaves_queries_and_keys_dead():
    network = tiny()
    x, timesteps, condition = tiny_inputs(tokens=1)
    before = network(x, timesteps, condition)
    before.square().mean().backward()
    cross = [module.attn2 for module in network.modules() if getattr(module, "attn2", None) is not None]
    assert len(cross) == 4
    for attention in cross:
        assert attention.to_q.weight.grad.abs().max() < 1e-7
        assert attention.to_k.weight.grad.abs().max() < 1e-7
        assert attention.to_v.weight.grad.abs().max() > 1e-6
        torch.nn.init.normal_(attention.to_q.weight)
        torch.nn.init.normal_(attention.to_k.weight)
    torch.testing.assert_close(network(x, timesteps, condition), before)


def test_several_context_tokens_use_queries():
    network = tiny()
    x, timesteps, condition = tiny_inputs(tokens=3)
    network(x, timesteps, condition).square().mean().backward()
    assert network.middle_block[1].transformer_blocks[0].attn2.to_q.weight.grad.abs().max() > 1e-7


def test_every_input_matters():
    network = tiny()
    x, timesteps, condition = tiny_inputs()
    base = network(x, timesteps, condition)
    assert base.shape == (2, 3, 8, 8)
    changed = [
        network(x + 0.1, timesteps, condition),
        network(x, timesteps + 50, condition),
        network(x, timesteps, conditioning(condition.context.flip(2), condition.concat, condition.embedding)),
        network(x, timesteps, conditioning(condition.context, condition.concat + 0.1, condition.embedding)),
        network(x, timesteps, conditioning(condition.context, condition.concat, condition.embedding + 0.1)),
    ]
    assert all((other - base).abs().max() > 1e-6 for other in changed)


def test_samples_of_a_batch_do_not_mix():
    network = tiny()
    x, timesteps, condition = tiny_inputs()
    alone = network(
        x[1:],
        timesteps[1:],
        conditioning(condition.context[1:], condition.concat[1:], condition.embedding[1:]),
    )
    torch.testing.assert_close(network(x, timesteps, condition)[1:], alone, rtol=1e-4, atol=1e-5)


def test_without_any_condition_or_attention():
    network = tiny(in_channels=3, context_dim=None, embedding_dim=None, attention_downsamples=())
    assert not any("transformer" in name for name in network.state_dict())
    x, timesteps, _ = tiny_inputs()
    assert network(x, timesteps).shape == x.shape


def test_self_attention_without_context():
    network = tiny(in_channels=3, context_dim=None, embedding_dim=None)
    names = network.state_dict()
    assert any("attn1" in name for name in names) and not any("attn2" in name for name in names)
    x, timesteps, _ = tiny_inputs()
    assert network(x, timesteps).shape == x.shape


def test_attention_only_at_the_levels_named():
    network = tiny(attention_downsamples=(1,))
    assert any(name.startswith("input_blocks.1.1.") for name in network.state_dict())
    assert not any(name.startswith("input_blocks.3.1.") for name in network.state_dict())


def test_residual_blocks_per_level():
    network = tiny(num_res_blocks=(1, 3))
    assert len(network.input_blocks) == 1 + 1 + 1 + 3
    assert len(network.output_blocks) == 2 + 4


def test_gradient_checkpointing_changes_no_gradient():
    x, timesteps, condition = tiny_inputs()
    gradients = []
    for saving in (False, True):
        network = tiny(gradient_checkpointing=saving)
        network(x, timesteps, condition).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, saved in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, saved)


def test_bfloat16_weights_stay_close():
    network = tiny()
    x, timesteps, condition = tiny_inputs()
    exact = network(x, timesteps, condition)
    short = network.bfloat16()(
        x.bfloat16(),
        timesteps,
        conditioning(*(value.bfloat16() for value in vars(condition).values())),
    )
    assert short.dtype == torch.bfloat16
    assert (short.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"attention_downsamples": (3,)}, ["3", "[1, 2]"]),
        ({"num_res_blocks": (1, 2, 3)}, ["[1, 2, 3]", "2"]),
        ({"num_head_channels": 24}, ["24", "32"]),
        ({"attention_downsamples": ()}, ["12", "attention_downsamples"]),
        ({"image_size": 7}, ["7", "multiple of 2"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, numbers):
    with pytest.raises(TalkfaceError) as failure:
        tiny(**changes)
    assert all(number in str(failure.value) for number in numbers)


def test_inputs_that_do_not_fit_are_refused():
    network = tiny()
    x, timesteps, condition = tiny_inputs()
    with pytest.raises(TalkfaceError, match=r"3 of x \+ 0 of conditioning.concat; allowed: 5"):
        network(x, timesteps, conditioning(condition.context, None, condition.embedding))
    with pytest.raises(TalkfaceError, match=r"context: None; allowed: 12"):
        network(x, timesteps, conditioning(None, condition.concat, condition.embedding))
    with pytest.raises(TalkfaceError, match=r"embedding: 6; allowed: 7"):
        network(x, timesteps, conditioning(condition.context, condition.concat, condition.embedding[:, 1:]))
    with pytest.raises(TalkfaceError, match=r"7 x 8; allowed: multiples of 2"):
        network(x[:, :, 1:], timesteps, conditioning(condition.context, condition.concat[:, :, 1:]))


def test_folded_positions_come_back_to_their_place():
    """With patch_size 2 a network of one 1 x 1-like layer would see each square as channels: the far end of the
    picture must not matter to a position that no convolution reaches."""
    torch.manual_seed(0)
    network = UNet(
        in_channels=4, out_channels=3, model_channels=16, channel_mult=(1,), num_res_blocks=1,
        attention_downsamples=(), image_size=64, patch_size=2,
    )  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    assert network.size_divisor == 2
    x = torch.randn(1, 3, 64, 64)
    inputs = conditioning(concat=torch.randn(1, 1, 64, 64))
    with torch.no_grad():
        made = network(x, torch.tensor([3]), inputs)
        x[0, :, 0, 0] += 1.0
        change = (network(x, torch.tensor([3]), inputs) - made).abs().amax(dim=(0, 1))
    assert made.shape == (1, 3, 64, 64)
    # group norm spreads a little everywhere; the convolutions reach some positions only
    assert change[:4, :4].min() > 20 * change[40:, 40:].max()


def test_a_fold_that_does_not_fit_is_refused():
    with pytest.raises(TalkfaceError, match="image_size: 30; allowed: a multiple of 4"):
        UNet(
            in_channels=3,
            out_channels=3,
            model_channels=16,
            channel_mult=(1, 2),
            attention_downsamples=(),
            image_size=30,
            patch_size=2,
        )
