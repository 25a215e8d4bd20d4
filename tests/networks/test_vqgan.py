import pytest
import torch

from talkface.errors import TalkfaceError
from talkface.networks.discriminator import PatchDiscriminator
from talkface.networks.quantizer import VectorQuantizer
from talkface.networks.vqgan import VQGAN, IdentityFirstStage


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def tiny(**changes):
    torch.manual_seed(0)
    arguments = {
        "channels": 8,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "attention_resolutions": (),
        "image_size": 16,
        "latent_channels": 3,
        "codebook_size": 16,
    }
    return VQGAN(**{**arguments, **changes})


def quantizer(codes, **options):
    codes = torch.as_tensor(codes, dtype=torch.float32)
    made = VectorQuantizer(*codes.shape, **options)
    made.embedding.weight.data.copy_(codes)
    return made


def test_paper_size_has_the_papers_parameters():
    with torch.device("meta"):
        model = VQGAN()
    assert count(model) == 60_605_598
    assert round(count(model.encoder) / 1e6, 2) == 24.44
    assert round(count(model.decoder) / 1e6, 2) == 36.12
    assert count(model.quantize) == 49_152


def test_layout_is_that_of_published_checkpoints():
    with torch.device("meta"):
        state = {name: tuple(tensor.shape) for name, tensor in VQGAN().state_dict().items()}
    own = {"latent_mean", "latent_std", "quantize.usage", "quantize.steps_unused"}
    assert len(state) == 255 + len(own) and own <= state.keys()
    expected = {
        "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.2.attn.1.proj_out.weight": (512, 512, 1, 1),
        "encoder.down.0.downsample.conv.weight": (128, 128, 3, 3),
        "decoder.up.1.block.0.conv1.weight": (256, 512, 3, 3),
        "decoder.up.2.upsample.conv.weight": (512, 512, 3, 3),
        "decoder.up.2.attn.2.q.weight": (512, 512, 1, 1),
        "decoder.norm_out.weight": (128,),
        "quant_conv.weight": (3, 3, 1, 1),
        "quantize.embedding.weight": (16384, 3),
    }
    assert {name: state[name] for name in expected} == expected


@pytest.mark.parametrize("chunk", [64, None])
def test_nearest_code_is_that_of_all_distances(chunk):
    generator = torch.Generator().manual_seed(0)
    vectors, codes = torch.randn(200, 4, generator=generator), torch.randn(50, 4, generator=generator)
    found = quantizer(codes).nearest(vectors, chunk_elements=chunk)
    distances = torch.cdist(vectors.double(), codes.double())
    torch.testing.assert_close(distances.gather(1, found[:, None])[:, 0], distances.min(dim=1).values)
    assert (found == distances.argmin(dim=1)).all()


def test_straight_through_gradient():
    made = quantizer([[0.0, 0.0], [1.0, 1.0]])
    latents = torch.tensor([0.9, 0.8]).view(1, 2, 1, 1).requires_grad_()
    quantized, _, indices = made(latents)
    assert indices.flatten().tolist() == [1]
    torch.testing.assert_close(quantized.detach().flatten(), torch.tensor([1.0, 1.0]))
    (quantized * torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)).sum().backward()
    torch.testing.assert_close(latents.grad.flatten(), torch.tensor([3.0, 5.0]))


@pytest.mark.parametrize(
    ("legacy_beta", "latent_gradient", "code_gradient"), [(True, 1.0, 0.25), (False, 0.25, 1.0)]
)
def test_codebook_loss_known_answer(legacy_beta, latent_gradient, code_gradient):
    made = quantizer([[0.0], [10.0]], legacy_beta=legacy_beta)
    latents = torch.full((1, 1, 1, 1), 2.0, requires_grad=True)
    _, loss, _ = made(latents)
    assert loss.item() == pytest.approx(1.25 * 4.0)
    loss.backward()
    assert latents.grad.item() == pytest.approx(latent_gradient * 4.0)
    assert made.embedding.weight.grad[0].item() == pytest.approx(-code_gradient * 4.0)


def test_usage_statistics_known_answers():
    made = quantizer([[0.0], [1.0], [2.0], [3.0]])
    made(torch.tensor([0.0, 0.1, 2.0, 1.9]).view(1, 1, 2, 2))
    assert made.share_used().item() == 0.5
    assert made.perplexity().item() == pytest.approx(2.0, abs=1e-4)
    assert made.steps_unused.tolist() == [0, 1, 0, 1]


def test_evaluation_changes_no_state():
    made = quantizer([[0.0], [1.0]], ema=True, revive_after=1).eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(torch.full((1, 1, 2, 2), 5.0))
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


@pytest.mark.parametrize("ema", [False, True])
def test_revival_raises_usage(ema):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(4, 2, 8, 8, generator=generator)
    shares = {}
    for revive_after in (0, 2):
        torch.manual_seed(0)
        # Codes far from the data: one of them is nearest to everything.
        made = VectorQuantizer(32, 2, ema=ema, revive_after=revive_after)
        made.embedding.weight.data.add_(20.0)
        for _ in range(6):
            made(latents)
        made.eval()
        shares[revive_after] = len(made(latents)[2].unique()) / 32
    assert shares[0] <= 2 / 32
    assert shares[2] > 0.8


def test_revival_is_repeatable():
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        made = VectorQuantizer(8, 2)
        vectors = torch.arange(40.0).view(20, 2)
        assert made.revive(vectors, torch.tensor([True] * 4 + [False] * 4)) == 4
        results.append(made.embedding.weight.detach().clone())
    assert torch.equal(*results)
    torch.testing.assert_close(results[0][0], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(results[0][3], torch.tensor([38.0, 39.0]))


def test_ema_codebook_converges_to_cluster_means():
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[-3.0, 1.0], [4.0, 2.0], [0.0, -5.0]])
    made = quantizer(means + 0.8, ema=True, ema_decay=0.9)
    for _ in range(100):
        labels = torch.randint(0, 3, (1, 16, 16), generator=generator)
        latents = means[labels].permute(0, 3, 1, 2) + 0.3 * torch.randn(1, 2, 16, 16, generator=generator)
        _, loss, _ = made(latents)
    assert not made.embedding.weight.requires_grad
    torch.testing.assert_close(made.embedding.weight.data, means, rtol=0, atol=0.06)
    assert loss.item() == pytest.approx(0.25 * 0.3**2, rel=0.2)


def test_decode_quantises():
    model = tiny().eval()
    codes = torch.randn(16, 3)
    model.quantize.embedding.weight.data.copy_(codes)
    latents = codes[torch.randint(0, 16, (2, 8, 8))].permute(0, 3, 1, 2)
    torch.testing.assert_close(
        model.decode(latents + 1e-3 * torch.randn_like(latents)), model.decode(latents)
    )
    assert (model.decode(latents + 1.0) - model.decode(latents)).abs().max() > 1e-3


def test_decode_of_encode_is_the_training_reconstruction():
    model = tiny(decoder_channels=4, decoder_num_res_blocks=1).eval()
    model.set_latent_statistics(torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.5, 2.0, 1.5]))
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = model.encode(images)
    assert latents.shape == (2, 3, 8, 8)
    output = model(images)
    torch.testing.assert_close(model.decode(latents), output.reconstruction, rtol=1e-4, atol=1e-5)
    back = latents * model.latent_std[:, None, None] + model.latent_mean[:, None, None]
    torch.testing.assert_close(back, output.latents, rtol=1e-4, atol=1e-5)
    assert output.indices.shape == (2, 8, 8)


def test_latent_statistics_give_unit_variance():
    model = tiny().eval()
    images = torch.rand(8, 3, 16, 16) * 2 - 1
    raw = model(images).latents
    model.set_latent_statistics(raw.mean(dim=(0, 2, 3)).detach(), raw.std(dim=(0, 2, 3)).detach())
    latents = model.encode(images)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    with pytest.raises(TalkfaceError, match="std positive"):
        model.set_latent_statistics(torch.zeros(3), torch.zeros(3))


def test_gradient_reaches_latents_through_decode():
    model = tiny()
    latents = torch.randn(1, 3, 8, 8, requires_grad=True)
    model.decode(latents).square().mean().backward()
    assert latents.grad.abs().max() > 0


def test_attention_only_where_wanted():
    assert not any(".attn" in name for name in tiny().state_dict())
    names = tiny(attention_resolutions=(8,)).state_dict()
    assert "encoder.down.1.attn.0.q.weight" in names and "encoder.mid.attn_1.q.weight" in names
    assert "encoder.down.0.attn.0.q.weight" not in names


def test_cheaper_decoder():
    plain, cheap = tiny(), tiny(decoder_channels=4, decoder_channel_mult=(1, 3), decoder_num_res_blocks=1)
    assert count(cheap.encoder) == count(plain.encoder)
    assert count(cheap.decoder) < count(plain.decoder)
    assert cheap.decode(torch.randn(1, 3, 8, 8)).shape == (1, 3, 16, 16)


def test_patches_replace_the_full_resolution_levels():
    model = tiny(channel_mult=(1, 2), patch_size=2).eval()
    assert model.downsample_factor == 4
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = model.encode(images)
    assert latents.shape == (2, 3, 4, 4)
    torch.testing.assert_close(model.decode(latents), model(images).reconstruction, rtol=1e-4, atol=1e-5)
    assert model.encoder.conv_in.weight.shape == (8, 12, 3, 3) and model.last_layer.shape[0] == 12


def test_wrong_sizes_are_refused():
    with pytest.raises(TalkfaceError, match="15 x 16; allowed: multiples of 2"):
        tiny().encode(torch.zeros(1, 3, 15, 16))
    with pytest.raises(TalkfaceError, match="levels of decoder_channel_mult: 3; allowed: 2"):
        tiny(decoder_channel_mult=(1, 1, 1))
    with pytest.raises(TalkfaceError, match="latent channels: 2; allowed: 3"):
        VectorQuantizer(4, 3)(torch.zeros(1, 2, 1, 1))


def test_identity_first_stage():
    stage, images = IdentityFirstStage(), torch.randn(1, 3, 4, 4)
    assert torch.equal(stage.decode(stage.encode(images)), images)
    assert (stage.latent_channels, stage.downsample_factor) == (3, 1)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_patch_discriminator_sees_70_pixels(norm):
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=4, norm=norm).eval()
    images = torch.randn(1, 3, 128, 128, requires_grad=True)
    scores = discriminator(images)
    assert scores.shape == (1, 1, 14, 14)
    if norm == "batch":  # In evaluation mode nothing but the convolutions spreads information.
        scores[0, 0, 7, 7].backward()
        rows = images.grad.abs().sum(dim=(0, 1, 3)).nonzero()
        assert int(rows.max() - rows.min()) + 1 == 70


def test_published_discriminator_size():
    convolutions = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512)
    biases, normalisations = 64 + 1, 2 * (128 + 256 + 512)
    with torch.device("meta"):
        assert count(PatchDiscriminator()) == convolutions + biases + normalisations


def test_unknown_discriminator_norm():
    with pytest.raises(TalkfaceError, match="'instance'; allowed: 'batch', 'group'"):
        PatchDiscriminator(norm="instance")
