"""Lip readers: known answers, padding, context, gradients, and parity with torchaudio's conformer."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio
from torch import nn

from talkface.errors import TalkfaceError
from talkface.experts.conformer import Attention, ConformerBlock, FeedForward
from talkface.experts.lipreading import BLANK, LipReader, collapse

UNITS = (BLANK, " ", "a", "b", "c", "<eos>")
SMALL = {
    "visemes": (BLANK, "pp", "aa"),
    "channels": 4,
    "dim": 16,
    "heads": 2,
    "hidden": 24,
    "layers": 2,
    "kernel": 5,
}


def reader(**changes) -> LipReader:
    torch.manual_seed(0)
    made = LipReader(UNITS, **(SMALL | changes)).eval()
    for module in made.modules():  # statistics and scales that do something
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return made


KINDS = (
    {},
    {"encoder": "convolution", "activation": "prelu"},
    {"reduce": 2, "activation": "relu"},
)


@pytest.mark.parametrize("changes", KINDS)
def test_shapes_and_probabilities(changes):
    made, mouths = reader(**changes), torch.rand(2, 6, 1, 88, 88)
    assert made.features(mouths).shape == (2, 6, 16)
    assert made.frame_features(mouths).shape == (2, 6, 32)
    for head, units in (("vocabulary", 6), ("visemes", 3)):
        chances = made.log_probabilities(mouths, head=head)
        assert chances.shape == (2, 6, units)
        torch.testing.assert_close(chances.exp().sum(-1), torch.ones(2, 6))


@pytest.mark.parametrize("changes", KINDS)
def test_padding_changes_nothing(changes):
    made, mouths = reader(**changes), torch.rand(2, 12, 1, 88, 88)
    together = made.log_probabilities(mouths, torch.tensor([12, 7]))
    alone = made.log_probabilities(mouths[1:, :7])
    torch.testing.assert_close(together[1, :7], alone[0], atol=1e-5, rtol=0)
    assert made.read(mouths, torch.tensor([12, 7]))[1] == made.read(mouths[1:, :7])[0]


@pytest.mark.parametrize("changes", KINDS)
def test_context_reaches_beyond_the_front_end(changes):
    made, mouths = reader(**changes), torch.rand(1, 16, 1, 88, 88)
    other = mouths.clone()
    other[:, 12] = 1 - other[:, 12]
    before, after = made.frame_features(mouths), made.frame_features(other)
    assert torch.equal(before[:, :10], after[:, :10]) and not torch.equal(before[:, 10], after[:, 10])
    assert not torch.allclose(made.features(mouths)[:, 7], made.features(other)[:, 7], atol=1e-7)
    # the same frames in another order: a frame's features are not its own alone
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    shuffled = made.features(mouths[:, order])[:, order.argsort()]
    assert (shuffled - made.features(mouths)).abs().mean() > 1e-3


@pytest.mark.parametrize("changes", KINDS)
def test_a_glance_says_what_the_film_says_of_its_middle(changes):
    made, mouths = reader(**changes), torch.rand(2, 9, 1, 88, 88)
    torch.testing.assert_close(
        made.glance(mouths[:, 2:7]), made.frame_features(mouths)[:, 4], atol=1e-5, rtol=0
    )


def test_gradient_reaches_every_frame():
    made, mouths = reader(), torch.rand(1, 8, 1, 88, 88, requires_grad=True)
    made.features(mouths)[0, 4].sum().backward()
    assert (mouths.grad.flatten(2).abs().sum(-1) > 0).all()


def test_statistics_are_those_of_grey_in_0_to_1():
    made = reader()
    seen = made._looked_at(torch.full((1, 1, 1, 88, 88), 0.421))
    assert seen.abs().max() < 1e-6
    assert math.isclose(
        float(made._looked_at(torch.ones(1, 1, 1, 88, 88)).mean()), (1 - 0.421) / 0.165, rel_tol=1e-5
    )


def test_ctc_of_a_known_alignment():
    assert collapse([0, 2, 2, 0, 2, 3, 3, 0]) == [2, 2, 3]
    made = reader()
    path = torch.tensor([0, 2, 2, 0, 2, 1, 3, 3, 0])
    made.ctc["ctc_lo"] = nn.Linear(6, 6)
    made.ctc["ctc_lo"].weight.data = torch.eye(6) * 30
    made.ctc["ctc_lo"].bias.data.zero_()
    features = torch.eye(6)[path][None]
    assert made.decode(features) == ["aa b"]
    chances = made.head(features).transpose(0, 1)
    loss = nn.functional.ctc_loss(chances, torch.tensor([[2, 2, 1, 3]]), torch.tensor([9]), torch.tensor([4]))
    wrong = nn.functional.ctc_loss(
        chances, torch.tensor([[2, 2, 1, 4]]), torch.tensor([9]), torch.tensor([4])
    )
    assert loss < 1e-3 and wrong > 5


def test_sentence_pieces_become_words():
    made = LipReader((BLANK, "▁he", "llo", "▁you"), **SMALL)
    made.ctc["ctc_lo"] = nn.Linear(4, 4)
    made.ctc["ctc_lo"].weight.data, made.ctc["ctc_lo"].bias.data = torch.eye(4), torch.zeros(4)
    assert made.decode(torch.eye(4)[torch.tensor([1, 2, 0, 3])][None]) == ["hello you"]


def test_attention_decoding_ends_and_sees_only_what_was_said():
    made, mouths = reader(decoder_layers=2), torch.rand(2, 5, 1, 88, 88)
    said = made.read(mouths, method="attention")
    assert len(said) == 2 and all(len(text) <= 5 * 5 for text in said)
    memory, tokens = made.features(mouths), torch.tensor([[5, 2, 3, 4], [5, 2, 4, 1]])
    logits = made.decoder(tokens, memory[:1].expand(2, -1, -1))
    torch.testing.assert_close(logits[0, :2], logits[1, :2])
    assert not torch.allclose(logits[0, 2], logits[1, 2])


def test_feed_forward_and_convolution_agree_with_torchaudio():
    """Macaron halves with a ReLU in place of the swish, gates, depthwise convolution and norms, with their weights."""
    torch.manual_seed(0)
    ours = ConformerBlock(dim=8, heads=2, hidden=12, kernel=3, dropout=0.0).eval()
    ours.conv_module.norm.running_mean.normal_()
    peer = torchaudio.models.conformer._ConvolutionModule(8, 8, 3, bias=True).eval()
    peer.layer_norm.load_state_dict(ours.norm_conv.state_dict())
    peer.layer_norm.eps = ours.norm_conv.eps
    layers = [layer for layer in peer.sequential if list(layer.parameters())]
    mine = ours.conv_module
    for layer, own in zip(
        layers, (mine.pointwise_cov1, mine.depthwise_conv, mine.norm, mine.pointwise_cov2), strict=True
    ):
        layer.load_state_dict(own.state_dict())
    x = torch.randn(2, 9, 8)
    torch.testing.assert_close(mine(ours.norm_conv(x), None), peer(x), atol=1e-5, rtol=0)
    feed = FeedForward(8, 12)
    expected = feed.w_1(x).clamp(min=0) @ feed.w_2.weight.T + feed.w_2.bias
    torch.testing.assert_close(feed(x), expected, atol=1e-5, rtol=0)


def sinusoid(position: float, dim: int) -> torch.Tensor:
    return torch.tensor(
        [
            (math.sin if place % 2 == 0 else math.cos)(position * 10000 ** -((place - place % 2) / dim))
            for place in range(dim)
        ]
    )


def test_relative_attention_is_the_papers_sum_pair_by_pair():
    torch.manual_seed(0)
    made, x = Attention(8, 2, positions="latest"), torch.randn(1, 5, 8)
    q, k = made.linear_q(x)[0].view(5, 2, 4), made.linear_k(x)[0].view(5, 2, 4)
    v = made.linear_v(x)[0].view(5, 2, 4)
    out = torch.zeros(5, 2, 4)
    for head in range(2):
        for i in range(5):
            scores = []
            for j in range(5):
                distance = made.linear_pos(sinusoid(i - j, 8)).view(2, 4)[head]
                content = (q[i, head] + made.pos_bias_u[head]) @ k[j, head]
                scores.append((content + (q[i, head] + made.pos_bias_v[head]) @ distance) / 2)
            out[i, head] = torch.stack(scores).softmax(0) @ v[:, head]
    torch.testing.assert_close(made(x, x)[0], made.linear_out(out.flatten(1)), atol=1e-5, rtol=0)


def test_legacy_attention_shifts_as_espnet_did():
    """Row i holds the table from the end backwards; what is later than i + 1 comes from the next row."""
    torch.manual_seed(0)
    made, length = Attention(8, 2, positions="legacy"), 5
    q = torch.randn(1, 2, length, 4)
    table = torch.stack([made.linear_pos(sinusoid(4999 - place, 8)).view(2, 4) for place in range(length)])
    got = made._by_distance(q)[0]
    for head in range(2):
        plain = q[0, head] @ table[:, head].T
        for i in range(length):
            for j in range(length):
                if j <= i:
                    wanted = plain[i, length - 1 - i + j]
                else:
                    wanted = plain[i + 1, j - i - 2] if j > i + 1 else torch.tensor(0.0)
                # float32 sines of 4999 differ in the fourth digit
                torch.testing.assert_close(got[head, i, j], wanted, atol=3e-3, rtol=0)


def test_legacy_readers_are_not_padded():
    made, mouths = reader(positions="legacy"), torch.rand(2, 6, 1, 88, 88)
    made.features(mouths, torch.tensor([6, 6]))
    with pytest.raises(TalkfaceError, match=r"lengths: \[6, 4\].*one by one"):
        made.features(mouths, torch.tensor([6, 4]))


@pytest.mark.parametrize(
    ("mouths", "message"),
    [
        (torch.rand(1, 3, 1, 88, 88) * 2 - 1, "values from -.* allowed 0 to 1"),
        (torch.full((1, 3, 1, 88, 88), 255.0), "values from 255"),
        (torch.full((1, 3, 1, 88, 88), float("nan")), "values from nan"),
        (torch.rand(1, 3, 1, 64, 64), r"allowed \(B, T, 1, 88, 88\); cut them with mouth_crops"),
        (torch.rand(3, 1, 88, 88), r"allowed \(B, T, 1, 88, 88\)"),
        (torch.rand(1, 0, 1, 88, 88), r"allowed \(B, T, 1, 88, 88\)"),
    ],
)
def test_what_is_no_mouth_is_refused(mouths, message):
    with pytest.raises(TalkfaceError, match=message):
        reader().features(mouths)


def test_wrong_arguments_are_named():
    made, mouths = reader(), torch.rand(2, 4, 1, 88, 88)
    with pytest.raises(TalkfaceError, match=r"lengths: \[4, 9\]; allowed: 2 numbers from 1 to 4"):
        made.features(mouths, torch.tensor([4, 9]))
    with pytest.raises(TalkfaceError, match="head: 'words'; this reader has: vocabulary, visemes"):
        made.log_probabilities(mouths, head="words")
    with pytest.raises(TalkfaceError, match=r"method: 'attention'.*this reader allows: ctc"):
        made.read(mouths, method="attention")
    for wrong in ({"encoder": "lstm"}, {"activation": "tanh"}, {"positions": "absolute"}):
        with pytest.raises(TalkfaceError, match=f"{next(iter(wrong))}: .*allowed"):
            reader(**wrong)
    with pytest.raises(TalkfaceError, match="vocabulary: 1 units"):
        LipReader((BLANK,), **SMALL)
