"""VQGANs of taming-transformers and of the thesis, by themselves and inside a diffusion model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from talkface import cli
from talkface.checkpoint import load_bundle
from talkface.errors import TalkfaceError
from talkface.importers.compvis import import_vqgan
from talkface.importers.kinds import import_checkpoint
from talkface.importers.tensors import Tensors

SHAPES = {
    "thesis": {"ch": 32, "mult": (1, 2), "blocks": 2, "attention": (1,), "codes": 64},
    "codes of another width": {
        **{"ch": 32, "mult": (1, 1, 2), "blocks": 1, "attention": (2,), "z": 8},
        **{"embed": 4, "codes": 64},
    },
    "attention in the middle only": {"ch": 32, "mult": (1, 2), "blocks": 1, "attention": (), "codes": 64},
}


def draw(*shape: int, seed: int = 9) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert expected.std() > 0.05, "the comparison would prove nothing"
    assert float((found - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("name", SHAPES)
def test_taming_vqgan_computes_the_same(compvis, tmp_path, name) -> None:
    state = compvis.fill(compvis.vqgan_shapes(**SHAPES[name]))
    losses = {
        "loss.discriminator.main.0.weight": torch.zeros(4),
        "loss.perceptual_loss.lin0.weight": torch.zeros(2),
    }
    torch.save({"state_dict": {**state, **losses}}, tmp_path / "last.ckpt")
    report = import_checkpoint(tmp_path / "last.ckpt", "taming-vqgan", tmp_path / "out", image_size=32)
    assert report.ignored == {"networks of losses": 2} and report.weights == "raw"
    stage = load_bundle(tmp_path / "out").part("first_stage")
    images = draw(2, 3, 32, 32).clamp(-1, 1)
    latents = compvis.encode(state, images)
    close(stage.encode(images), latents)
    close(stage.decode(latents), compvis.decode(state, latents))


def test_thesis_vqgan_from_either_file(compvis, tmp_path, capsys) -> None:
    state = compvis.fill(compvis.vqgan_shapes(**SHAPES["thesis"]))
    save_file(state, tmp_path / "alone.safetensors")
    inside = {
        **compvis.prefixed("first_stage_model.", state),
        "betas": torch.zeros(3),
        "model.x": torch.zeros(1),
    }
    torch.save(inside, tmp_path / "inside.pt")
    for file in ("alone.safetensors", "inside.pt"):
        command = [
            "import-checkpoint",
            str(tmp_path / file),
            "--kind",
            "thesis-vqgan",
            "--out",
            str(tmp_path / "o"),
        ]
        assert cli.main(command) == 0, capsys.readouterr().err
        bundle = load_bundle(tmp_path / "o")
        assert bundle.meta["image_size"] == 128
        assert bundle.specs["first_stage"]["init_args"]["attention_resolutions"] == [64]
        images = draw(1, 3, 16, 16).clamp(-1, 1)
        close(bundle.part("first_stage").encode(images), compvis.encode(state, images))


def test_averages_of_a_vqgan(compvis) -> None:
    raw, ema = (compvis.fill(compvis.vqgan_shapes(**SHAPES["thesis"]), seed) for seed in (1, 2))
    state = {**raw, **compvis.average_names(ema, ""), "model_ema.decay": torch.tensor(0.9)}
    images = draw(1, 3, 16, 16)
    for weights, expected in ((None, ema), ("raw", raw)):
        stage = import_vqgan(Tensors(state, "x"), 16, weights).parts["first_stage"]
        close(stage.encode(images), compvis.encode(expected, images))


def test_half_precision_is_read_and_written(compvis, tmp_path) -> None:
    state = {
        name: value.half() for name, value in compvis.fill(compvis.vqgan_shapes(**SHAPES["thesis"])).items()
    }
    save_file(state, tmp_path / "half.safetensors")
    import_checkpoint(tmp_path / "half.safetensors", "taming-vqgan", tmp_path / "out", precision="fp16")
    stage = load_bundle(tmp_path / "out").part("first_stage")
    images = draw(1, 3, 16, 16)
    close(
        stage.encode(images), compvis.encode({name: value.float() for name, value in state.items()}, images)
    )


def test_averages_beside_a_first_stage_are_not_its_own(compvis) -> None:
    state = compvis.prefixed("first_stage_model.", compvis.fill(compvis.vqgan_shapes(**SHAPES["thesis"])))
    with pytest.raises(TalkfaceError, match="averages in x are the UNet's"):
        import_vqgan(Tensors(state, "x"), 16, "ema")


@pytest.mark.parametrize(
    ("change", "size", "said"),
    [
        (
            {"quantize.embedding.weight": None, "quantize.embed.weight": torch.zeros(4, 3)},
            32,
            "has no codebook",
        ),
        (
            {"encoder.mid.attn_1.q.weight": torch.zeros(64, 32, 1, 1)},
            32,
            "mid.attn_1.q.weight (64, 32, 1, 1) where",
        ),
        ({"decoder.conv_out.bias": None}, 32, "decoder.conv_out.bias is missing"),
        ({}, 33, "--image-size: 33; allowed: a multiple of 2"),
        (
            {"transformer.tok_emb.weight": torch.zeros(2, 2)},
            32,
            "that this kind does not know: transformer.tok_emb",
        ),
    ],
)
def test_what_does_not_fit_is_said(compvis, change, size, said) -> None:
    state = {**compvis.fill(compvis.vqgan_shapes(**SHAPES["thesis"])), **change}
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(TalkfaceError) as error:
        import_vqgan(Tensors(state, "last.ckpt"), size)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_widths_must_be_multiples(compvis) -> None:
    state = compvis.fill(compvis.vqgan_shapes(**SHAPES["thesis"]))
    state["encoder.down.1.block.0.conv1.weight"] = torch.zeros(48, 32, 3, 3)
    with pytest.raises(TalkfaceError, match=r"widths \[32, 48\]; allowed: multiples"):
        import_vqgan(Tensors(state, "x"), 32)
