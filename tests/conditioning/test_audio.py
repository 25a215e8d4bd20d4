import pytest
import torch

from talkface.conditioning.audio import AudioConditioner, audio_windows, interpolate_features
from talkface.errors import TalkfaceError


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def ramp(length, rate):
    """Features whose value is their own time."""
    return ((torch.arange(length) + 0.5) / rate)[:, None]


@pytest.mark.parametrize(
    ("mode", "feature_dim", "window", "parameters"),
    [("attention", 768, 8, 483_091), ("expanded_attention", 29, 8, 23_615)],
)
def test_paper_sizes(mode, feature_dim, window, parameters):
    assert count(AudioConditioner(feature_dim, window, mode=mode)) == parameters


def test_layout_is_that_of_published_checkpoints():
    state = {name: tuple(value.shape) for name, value in AudioConditioner(768, 8).state_dict().items()}
    assert state["attention.attentionConvNet.0.weight"] == (192, 768, 3)
    assert state["attention.attentionConvNet.8.weight"] == (1, 4, 3)
    assert state["attention.attentionNet.0.weight"] == (17, 17)


def test_interpolation_is_exact_on_a_ramp_and_constant_beyond():
    times = torch.tensor([0.0, 0.01, 0.123, 0.5, 0.99, 2.0])
    made = interpolate_features(ramp(50, 50.0), 50.0, times)[:, 0]
    torch.testing.assert_close(made, times.clamp(0.01, 0.99))


def test_interpolation_stays_exact_after_hours():
    features = torch.arange(50 * 3600 * 2.0)[:, None]
    times = torch.tensor([7199.99, 7000.01, 7000.015], dtype=torch.float64)
    made = interpolate_features(features, 50.0, times)[:, 0]
    torch.testing.assert_close(made, torch.tensor([359999.0, 350000.0, 350000.25]), rtol=0, atol=0.02)


def test_windows_are_centred_on_their_frames():
    times = torch.tensor([0.5, 0.62])
    made = audio_windows(ramp(50, 50.0), 50.0, times, window=2, window_rate=25.0)[:, :, 0]
    torch.testing.assert_close(made[0], torch.tensor([0.42, 0.46, 0.50, 0.54, 0.58]))
    torch.testing.assert_close(made[1], torch.tensor([0.54, 0.58, 0.62, 0.66, 0.70]))


def test_windows_at_the_frame_rate_are_the_thesis_neighbouring_frames_clamped_at_the_ends():
    fps, frames, window = 30.0, 10, 3
    features = torch.randn(17, 4, generator=torch.Generator().manual_seed(0))
    times = (torch.arange(frames, dtype=torch.float64) + 0.5) / fps
    per_frame = interpolate_features(features, 49.0, times)
    made = audio_windows(features, 49.0, times, window, fps)
    for k in range(window, frames - window):
        torch.testing.assert_close(made[k], per_frame[k - window : k + window + 1])
    assert torch.equal(made[0, 0], features[0]) and torch.equal(made[-1, -1], features[-1])


def test_no_features_is_refused():
    with pytest.raises(TalkfaceError, match="too short"):
        interpolate_features(torch.zeros(0, 4), 50.0, torch.zeros(1))


def test_attention_is_a_weighted_mean_of_the_window():
    torch.manual_seed(0)
    conditioner = AudioConditioner(6, 2)
    audio = torch.randn(3, 5, 6)
    made = conditioner({"audio": audio}).context
    assert made.shape == (3, 1, 6)
    attention = conditioner.attention
    weights = attention.attentionNet(attention.attentionConvNet(audio.transpose(1, 2))[:, 0])
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(made[:, 0], (weights[:, :, None] * audio).sum(dim=1))
    constant = torch.randn(1, 1, 6).expand(1, 5, 6)
    torch.testing.assert_close(conditioner({"audio": constant}).context[:, 0], constant[:, 0])


def test_attention_with_a_width_of_its_own():
    conditioner = AudioConditioner(6, 2, dim=9)
    assert conditioner({"audio": torch.zeros(1, 5, 6)}).context.shape == (1, 1, 9)
    assert conditioner.context_dim == 9


def test_tokens_keep_time_apart():
    torch.manual_seed(0)
    conditioner = AudioConditioner(6, 2, mode="tokens", dim=9)
    audio = torch.zeros(1, 5, 6)
    base = conditioner({"audio": audio}).context
    assert base.shape == (1, 5, 9)
    audio[0, 3] = 1.0
    changed = (conditioner({"audio": audio}).context - base).abs().amax(dim=2)[0] > 0
    assert changed.tolist() == [False, False, False, True, False]
    assert (base[0, 0] - base[0, 4]).abs().max() > 0


def test_embedding_sees_the_whole_window():
    torch.manual_seed(0)
    conditioner = AudioConditioner(6, 2, mode="embedding", embedding_dim=7)
    audio = torch.zeros(1, 5, 6, requires_grad=True)
    made = conditioner({"audio": audio})
    assert made.context is None and made.embedding.shape == (1, 7)
    made.embedding.sum().backward()
    assert (audio.grad[0].abs().amax(dim=1) > 0).all()
    assert conditioner.fills == ("embedding",) and conditioner.context_dim == 0


@pytest.mark.parametrize("mode", ["attention", "expanded_attention", "tokens", "embedding"])
def test_null_has_the_shapes_of_the_conditioning(mode):
    conditioner = AudioConditioner(6, 2, mode=mode, embedding_dim=7)
    made, null = conditioner({"audio": torch.zeros(2, 5, 6)}), conditioner.null(2)
    for field in ("context", "embedding"):
        full, empty = getattr(made, field), getattr(null, field)
        assert (full is None) == (empty is None)
        if full is not None:
            assert full.shape == empty.shape and not empty.any()


def test_feature_statistics_normalise_and_are_saved():
    torch.manual_seed(0)
    conditioner = AudioConditioner(2, 1, mode="tokens", dim=4)
    audio = torch.randn(4, 3, 2) * torch.tensor([5.0, 0.1]) + torch.tensor([-40.0, 3.0])
    plain = conditioner({"audio": (audio - torch.tensor([-40.0, 3.0])) / torch.tensor([5.0, 0.1])}).context
    conditioner.set_feature_statistics(torch.tensor([-40.0, 3.0]), torch.tensor([5.0, 0.1]))
    torch.testing.assert_close(conditioner({"audio": audio}).context, plain, rtol=1e-4, atol=1e-4)
    assert "feature_std" in conditioner.state_dict()
    with pytest.raises(TalkfaceError, match=r"allowed: \(2,\) each, std positive"):
        conditioner.set_feature_statistics(torch.zeros(2), torch.zeros(2))


def test_wrong_modes_are_refused():
    with pytest.raises(
        TalkfaceError, match="'mean'; allowed: attention, expanded_attention, tokens, embedding"
    ):
        AudioConditioner(6, 2, mode="mean")
    with pytest.raises(TalkfaceError, match="embedding_dim: None"):
        AudioConditioner(6, 2, mode="embedding")
