import pytest
import torch

from talkface.conditioning.audio import AudioConditioner
from talkface.conditioning.base import ConditionerSet, Conditioning
from talkface.conditioning.face import EmotionConditioner, LandmarkConditioner
from talkface.conditioning.frames import FramesConditioner
from talkface.errors import TalkfaceError
from talkface.networks.unet import UNet


def batch(size=3):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(size, *shape, generator=generator)

    return {
        "emotion": torch.tensor([0, 3, -1])[:size],
        "audio": draw(5, 6),
        "landmarks": draw(48, 2) * 20 + 64,
        "masked_latents": draw(2, 4, 4),
        "reference_latents": draw(2, 4, 4),
    }


def paper_like(**rates):
    torch.manual_seed(0)
    return ConditionerSet(
        {
            "emotion": EmotionConditioner(8, 4, drop_rate=rates.get("emotion", 0.2)),
            "audio": AudioConditioner(6, 2, drop_rate=rates.get("audio", 0.0)),
            "frames": FramesConditioner(2, 4),
        },
        context_mode="concatenate",
    )


def token_set():
    torch.manual_seed(0)
    return ConditionerSet(
        {
            "emotion": EmotionConditioner(8, 7),
            "audio": AudioConditioner(6, 2, mode="tokens", dim=7, embedding_dim=5),
            "landmarks": LandmarkConditioner(3, fills="embedding"),
            "frames": FramesConditioner(2, 4),
        }
    )


def equal(a, b):
    return all(
        (x is None and y is None) or torch.equal(x, y)
        for x, y in ((a.context, b.context), (a.concat, b.concat), (a.embedding, b.embedding))
    )


def test_one_wide_token_as_in_the_thesis():
    made = paper_like()(batch())
    assert made.context.shape == (3, 1, 10) and made.concat.shape == (3, 4, 4, 4) and made.embedding is None


def test_tokens_follow_each_other():
    conditioners = token_set()
    made = conditioners(batch())
    assert made.context.shape == (3, 1 + 5, 7) and made.embedding.shape == (3, 5 + 3)
    assert (conditioners.context_dim, conditioners.concat_channels, conditioners.embedding_dim) == (7, 4, 8)
    torch.testing.assert_close(made.context[:, :1], conditioners.conditioners["emotion"](batch()).context)


def test_dropped_samples_become_null_and_others_stay():
    conditioners = token_set()
    full = conditioners(batch())
    dropped = conditioners(batch(), {"audio": torch.tensor([True, False, True])})
    assert equal(full[1:2], dropped[1:2])
    assert (dropped.context[[0, 2], 1:] == 0).all() and (dropped.embedding[[0, 2], :5] == 0).all()
    assert torch.equal(full.context[:, 0], dropped.context[:, 0])
    assert torch.equal(full.embedding[:, 5:], dropped.embedding[:, 5:])


def test_nulls_for_guidance_are_full_drops():
    conditioners = token_set()
    full, nulls = conditioners.with_nulls(batch(), ["audio", "emotion"])
    assert equal(full, conditioners(batch()))
    for name in ("audio", "emotion"):
        assert equal(nulls[name], conditioners(batch(), {name: torch.ones(3, dtype=torch.bool)}))


def test_gradient_reaches_the_null_embedding():
    conditioners = paper_like()
    made = conditioners(batch(), {"emotion": torch.tensor([True, False, False])})
    made.context[0].sum().backward()
    gradient = conditioners.conditioners["emotion"].embedding.weight.grad
    assert (gradient[8] == 1).all() and (gradient[:8] == 0).all()


def test_drops_are_drawn_per_sample_at_their_rates_and_independently():
    conditioners = paper_like(emotion=0.2, audio=0.5)
    drops = conditioners.draw_drops(20_000, torch.Generator().manual_seed(0))
    emotion, audio = drops["emotion"].float(), drops["audio"].float()
    assert emotion.mean().item() == pytest.approx(0.2, abs=0.012)
    assert audio.mean().item() == pytest.approx(0.5, abs=0.015)
    assert (emotion * audio).mean().item() == pytest.approx(0.1, abs=0.009)
    assert not drops["frames"].any()
    again = conditioners.draw_drops(20_000, torch.Generator().manual_seed(0))
    assert all(torch.equal(drops[name], again[name]) for name in drops)


def test_select_takes_rows():
    ones = Conditioning(torch.ones(3, 1, 2), embedding=torch.ones(3, 4))
    zeros = Conditioning(torch.zeros(3, 1, 2), embedding=torch.zeros(3, 4))
    made = ones.select(torch.tensor([True, False, True]), zeros)
    assert made.context[:, 0, 0].tolist() == made.embedding[:, 0].tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(TalkfaceError, match="allowed: the same in both"):
        ones.select(torch.ones(3, dtype=torch.bool), Conditioning(torch.ones(3, 1, 2)))


def test_cat_repeat_and_index():
    part = Conditioning(concat=torch.arange(2.0).view(2, 1, 1, 1))
    assert part.repeat(3).concat.flatten().tolist() == [0, 1, 0, 1, 0, 1]
    assert Conditioning.cat([part, part[1:]]).concat.flatten().tolist() == [0, 1, 1]
    assert part[torch.tensor([True, False])].batch_size == 1 and Conditioning().batch_size is None
    with pytest.raises(TalkfaceError, match="allowed: the same in each"):
        Conditioning.cat([part, Conditioning()])


def test_to_casts_every_field():
    made = Conditioning(torch.ones(1, 1, 1), None, torch.ones(1, 1)).to(torch.bfloat16)
    assert made.context.dtype == made.embedding.dtype == torch.bfloat16 and made.concat is None


def network(**changes):
    arguments = {
        "in_channels": 6,
        "out_channels": 2,
        "model_channels": 8,
        "channel_mult": (1,),
        "num_res_blocks": 1,
        "attention_downsamples": (1,),
        "num_head_channels": 8,
        "context_dim": 7,
        "embedding_dim": 8,
        "image_size": 4,
    }
    return UNet(**{**arguments, **changes})


def test_network_check_accepts_what_fits_and_it_runs():
    conditioners, unet = token_set(), network()
    conditioners.check_network(unet, latent_channels=2)
    made = unet(torch.randn(3, 2, 4, 4), torch.tensor([1, 2, 3]), conditioners(batch()))
    assert made.shape == (3, 2, 4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 9}, r"in_channels of the network: 9; allowed: 6 = 2 of the latents \+ 4"),
        ({"context_dim": 9}, "context_dim of the network: 9; allowed: 7"),
        ({"embedding_dim": None}, "embedding_dim of the network: None; allowed: 8"),
    ],
)
def test_network_check_says_the_numbers(changes, message):
    with pytest.raises(TalkfaceError, match=message):
        token_set().check_network(network(**changes), latent_channels=2)


def test_wrong_sets_are_refused():
    with pytest.raises(TalkfaceError, match=r"'emotion': 4, 'audio': 6"):
        ConditionerSet({"emotion": EmotionConditioner(8, 4), "audio": AudioConditioner(6, 2)})
    with pytest.raises(TalkfaceError, match="context_mode: 'sum'; allowed: tokens, concatenate"):
        ConditionerSet({}, context_mode="sum")
    several = ConditionerSet(
        {"audio": AudioConditioner(6, 2, mode="tokens", dim=4)}, context_mode="concatenate"
    )
    with pytest.raises(TalkfaceError, match=r"tokens per context: \[5\]"):
        several(batch())
    with pytest.raises(TalkfaceError, match=r"\['pose'\]; allowed: emotion, audio, frames"):
        paper_like()(batch(), {"pose": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(TalkfaceError, match=r"drop_rate: 1\.2; allowed: 0 to 1"):
        EmotionConditioner(drop_rate=1.2)


def test_missing_and_misshaped_batch_entries_are_named():
    data = batch()
    del data["audio"]
    with pytest.raises(TalkfaceError, match=r"batch without 'audio'; AudioConditioner reads it"):
        paper_like()(data)
    with pytest.raises(TalkfaceError, match=r"\(3, 4, 6\); allowed: \(B, 5, 6\) for AudioConditioner"):
        paper_like()({**batch(), "audio": torch.zeros(3, 4, 6)})
