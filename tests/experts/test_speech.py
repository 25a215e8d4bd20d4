"""Speech encoders: rates, centring, chunks that do not show, gain that does not matter, parity with
transformers."""

import numpy as np
import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.experts.speech import (
    ArticulationEncoder,
    LogMelEncoder,
    PhonemePosteriorEncoder,
    SpeechEncoder,
    Wav2Vec2Encoder,
    mel_filters,
)


def make_articulation(seed=0):
    torch.manual_seed(seed)
    return ArticulationEncoder(["jawOpen", "mouthSmile"], channels=16, dilations=(1, 2, 4), bands=20).eval()


def sound(seconds, seed=0):
    """Noise in syllables of 0.2 s, so that its level varies."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(round(16000 * seconds), generator=generator)
    beat = torch.sin(torch.arange(len(noise)) / 16000 * 2 * torch.pi * 2.5).clamp(min=0)
    return 0.1 * noise * beat


def all_encoders():
    torch.manual_seed(0)
    return [make_articulation(), LogMelEncoder(20).eval(), LogMelEncoder(20, dim=7).eval()]


@pytest.mark.parametrize("encoder", all_encoders(), ids=lambda e: f"{type(e).__name__}{e.feature_dim}")
class TestEveryEncoder:
    @pytest.mark.parametrize("seconds", [0.01, 0.05, 0.5, 1.0, 1.23, 3.0])
    def test_one_feature_every_twenty_milliseconds(self, encoder, seconds):
        features = encoder(sound(seconds)[None])
        assert isinstance(encoder, SpeechEncoder)
        assert features.shape == (1, max(1, int(seconds * encoder.feature_rate + 0.5)), encoder.feature_dim)
        assert torch.isfinite(features).all()

    @pytest.mark.parametrize("chunk", [0.5, 1.3, 2.0])
    def test_chunks_do_not_show(self, encoder, chunk):
        waveform = sound(6.37)
        whole = encoder(waveform[None])[0]
        encoder.chunk_seconds = chunk
        pieces = encoder.encode_long(waveform)
        del encoder.chunk_seconds
        assert pieces.shape == whole.shape
        assert torch.allclose(pieces, whole, atol=1e-4)

    def test_gain_does_not_matter(self, encoder):
        waveform = sound(2.0)[None]
        with torch.no_grad():
            assert torch.allclose(encoder(waveform), encoder(waveform * 0.2), atol=1e-3)

    def test_sounds_of_a_batch_do_not_mix(self, encoder):
        one, two = sound(1.0)[None], sound(1.0, seed=1)[None] * 0.1
        both = encoder(torch.cat([one, two]))
        assert torch.allclose(both[:1], encoder(one), atol=1e-5)
        assert torch.allclose(both[1:], encoder(two), atol=1e-5)


def test_features_are_centred_on_their_time():
    """A click at time t is loudest in the feature that covers t."""
    waveform = torch.zeros(16000)
    for index in (3, 20, 41):
        waveform[index * 320 + 160] = 0.5
    features = LogMelEncoder(20)(waveform[None])[0].mean(1)
    assert set(features.topk(3).indices.tolist()) == {3, 20, 41}


def test_a_pure_tone_lights_its_band():
    filters = mel_filters(40)
    assert torch.allclose(filters.sum(1), torch.ones(40), atol=1e-4)
    time = torch.arange(16000) / 16000
    features = LogMelEncoder(40)(0.3 * torch.sin(2 * torch.pi * 1000 * time)[None])[0, 25, :40]
    assert features.argmax() == filters[:, round(1000 / 40)].argmax()


def test_quiet_noise_is_not_raised_to_a_voice():
    encoder = LogMelEncoder(20)
    loud = encoder(sound(1.0)[None])
    hiss = encoder(1e-4 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(1)))
    assert hiss.mean() < loud[:, 5].mean() - 0.5


def test_articulation_reaches_as_far_as_it_says():
    encoder = make_articulation()
    waveform = sound(4.0)[None].requires_grad_()
    level = encoder.level(waveform.detach())
    encoder(waveform, level)[0, 100].sum().backward()
    touched = waveform.grad[0].abs().nonzero().flatten() / 16000
    assert 2.01 - encoder.context_seconds <= touched.min() and touched.max() <= 2.01 + encoder.context_seconds


def test_features_go_back_to_actions():
    encoder = make_articulation()
    encoder.mean.copy_(torch.tensor([0.3, 0.1]))
    encoder.std.copy_(torch.tensor([0.2, 0.05]))
    features = torch.tensor([[[0.5, 1.0], [-9.0, 0.0]]])
    actions = encoder.to_actions(features, ["jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp"])
    assert torch.allclose(actions, torch.tensor([[[0.4, 0.15, 0.15, 0.0], [0.0, 0.1, 0.1, 0.0]]]))


def silent_encoder(*actions):
    """An encoder that tells nothing of silence."""
    encoder = ArticulationEncoder(actions, channels=8, dilations=(1,), bands=8)
    with torch.no_grad():
        encoder.mouth.weight.zero_()
        encoder.mouth.bias.zero_()
    return encoder


def test_what_is_told_of_silence_is_taken_for_nothing():
    torch.manual_seed(1)
    encoder = ArticulationEncoder(("jawOpen", "mouthPucker"), channels=8, dilations=(1,), bands=8).eval()
    with torch.no_grad():
        encoder.mouth.bias.copy_(torch.tensor([0.1, 0.2]))
        encoder.mouth.weight.mul_(0.01)
    silent = encoder(torch.zeros(1, 16000))[0].detach()
    assert float(encoder.to_actions(silent, ["jawOpen"]).min()) > 0.05
    rest = encoder.amplified(silent, 1.0)
    assert float(encoder.to_actions(rest, ["jawOpen", "mouthPucker"])[10:-10].max()) < 0.01
    loud = torch.tensor([[0.5, 0.7]])
    torch.testing.assert_close(encoder.amplified(loud, 1.0), loud)


def test_amplified_features_are_larger_actions():
    encoder = silent_encoder("jawOpen", "mouthSmile")
    encoder.mean, encoder.std = torch.tensor([0.1, 0.02]), torch.tensor([0.05, 0.01])
    actions = torch.tensor([[0.0, 0.0], [0.4, 0.1], [0.9, 0.0]])
    louder = encoder.amplified((actions - encoder.mean) / encoder.std, 1.5)
    back = encoder.to_actions(louder, ["jawOpen", "mouthSmile"])
    torch.testing.assert_close(back, (1.5 * actions).clamp(max=1.0), atol=1e-5, rtol=0)


def test_lips_that_are_likely_held_together_close():
    encoder = silent_encoder("jawOpen", "mouthPress")
    actions = torch.tensor([[0.3, 0.0], [0.3, 0.01], [0.3, 0.06], [0.3, 0.14]])
    moments = actions[:, None]  # each a sound of its own; mean 0 and deviation 1: features are the actions
    jaw, press = encoder.amplified(moments, 1.0)[:, 0].unbind(-1)
    assert float(jaw[0]) == pytest.approx(0.3) and float(jaw[1]) > 0.29
    assert 0.03 < float(jaw[2]) < 0.27 and float(jaw[3]) == pytest.approx(0.0)
    torch.testing.assert_close(press, actions[:, 1])


def test_a_closure_does_not_outlast_what_is_told_of_it():
    encoder = silent_encoder("jawOpen", "mouthPress")
    press = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.15, 0.2, 0.3, 0.2, 0.15, 0.0, 0.0, 0.0, 0.0, 0.15, 0.0])
    jaw = encoder.amplified(torch.stack([torch.full_like(press, 0.3), press], dim=1), 1.0)[:, 0] / 0.3
    torch.testing.assert_close(
        jaw[4:9], 1.0 - press[4:9] / 0.3, atol=1e-5, rtol=0
    )  # by degrees around the middle
    assert float(jaw[13]) == pytest.approx(0.0)  # another one, of which less is told, has a middle of its own
    assert (jaw[press == 0] == 1.0).all()


def test_a_tucked_lip_leaves_jaw_and_upper_lip_as_told():
    names = ["jawOpen", "mouthUpperUp", "mouthLowerDown", "mouthPress", "mouthRollLower"]
    encoder = silent_encoder(*names)
    told = torch.tensor(
        [[0.2, 0.15, 0.1, 0.30, 0.12], [0.2, 0.15, 0.1, 0.0, 0.55], [0.2, 0.15, 0.1, 0.15, 0.33]]
    )
    pressed, tucked, either = encoder.amplified(told[:, None], 1.0)[:, 0]
    assert float(pressed[:3].max()) < 2e-3  # p, b, m close
    torch.testing.assert_close(tucked[:2], told[1, :2])  # f, v: the teeth show over the lip
    assert float(tucked[2]) == pytest.approx(0.0)
    assert float(pressed[1]) < float(either[1]) < float(tucked[1])


@pytest.fixture(scope="module")
def tiny_wav2vec2(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("wav2vec2")
    model = transformers.Wav2Vec2ForCTC(config).eval()
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("output,dim", [("last", 16), ("mix", 16), ("logits", 11)])
def test_wav2vec2_agrees_with_transformers(tiny_wav2vec2, output, dim):
    folder, model = tiny_wav2vec2
    encoder = Wav2Vec2Encoder(str(folder), output).train()
    waveform = sound(1.5)[None] + 0.01
    features = encoder(waveform)
    assert features.shape == (1, 75, dim) and (encoder.feature_rate, encoder.feature_dim) == (50, dim)
    normal = (waveform - waveform.mean()) / (waveform.var(unbiased=False) + 1e-7).sqrt()
    with torch.no_grad():
        theirs = model(torch.nn.functional.pad(normal, (40, 40)), output_hidden_states=True)
    mean_of_layers = torch.stack(theirs.hidden_states).mean(0)
    expected = {"last": theirs.hidden_states[-1], "mix": mean_of_layers, "logits": theirs.logits}[output]
    assert torch.allclose(features, expected, atol=1e-5)


def test_wav2vec2_learns_only_its_mix(tiny_wav2vec2):
    encoder = Wav2Vec2Encoder(str(tiny_wav2vec2[0]), "mix")
    assert [n for n, p in encoder.named_parameters() if p.requires_grad] == ["mix"]
    encoder(sound(0.5)[None]).square().sum().backward()
    assert encoder.mix.grad.abs().max() > 0


@pytest.mark.parametrize("output", ["last", "logits"])
def test_wav2vec2_interpolates_before_its_transformer(tiny_wav2vec2, output):
    folder, _ = tiny_wav2vec2
    thesis = Wav2Vec2Encoder(str(folder), output, interpolate_before=30.0)
    assert thesis(sound(2.0)[None]).shape[1] == 60 and thesis.feature_rate == 30.0
    same_rate = Wav2Vec2Encoder(str(folder), output, interpolate_before=50.0)
    plain = Wav2Vec2Encoder(str(folder), output)
    assert torch.allclose(same_rate(sound(2.0)[None]), plain(sound(2.0)[None]), atol=1e-5)


def test_wav2vec2_of_long_sound_has_every_feature(tiny_wav2vec2):
    encoder = Wav2Vec2Encoder(str(tiny_wav2vec2[0]))
    encoder.chunk_seconds = 2.0
    features = encoder.encode_long(sound(7.3))
    assert features.shape == (365, 16)


def test_wav2vec2_errors_name_the_remedy(tmp_path, tiny_wav2vec2):
    with pytest.raises(TalkfaceError, match=r"config\.json"):
        Wav2Vec2Encoder(str(tmp_path / "nowhere"))
    with pytest.raises(TalkfaceError, match="'mix'"):
        Wav2Vec2Encoder(str(tiny_wav2vec2[0]), "middle")


def test_phoneme_posteriors():
    pytest.importorskip("hama")
    voices = pytest.importorskip("talkface.data.synthetic.voices")
    if "espeak" not in voices.available_families():
        pytest.skip("needs espeakng-loader")
    said = voices.speak(voices.Voice.list("train", families=("espeak",))[0], "Bob met a wolf.")
    encoder = PhonemePosteriorEncoder()
    features = encoder(torch.from_numpy(said.samples)[None])[0]
    assert features.shape == (int(said.duration * 50 + 0.5), encoder.feature_dim)
    assert torch.allclose(features.sum(1), torch.ones(len(features)), atol=1e-2)
    blank = encoder._model.blank_id
    spoken = np.zeros(len(features), dtype=bool)
    for _, start, end in said.phonemes:
        spoken[int(start * 50) : int(end * 50)] = True
    assert features[~spoken, blank].mean() > 0.5 > features[spoken][:, blank].mean()
