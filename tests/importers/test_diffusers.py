"""Networks of the library diffusers: saved by it, imported, and compared with its own results."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel, VQModel

from talkface import cli
from talkface.checkpoint import load_bundle
from talkface.errors import TalkfaceError
from talkface.importers.diffusers import import_unet, import_vq_model
from talkface.importers.kinds import import_checkpoint

VQ = {
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    "block_out_channels": [16, 32],
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "num_vq_embeddings": 64,
    "sample_size": 32,
}
UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}


def draw(*shape: int, seed: int = 9) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert expected.std() > 0.05, "the comparison would prove nothing"
    assert float((found - expected).abs().max()) <= 1e-5


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """Random everywhere: codes of unit size, and no layer that starts at zero or one."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            parameter.data = parameter.data + 0.1 * noise
        elif "embedding.weight" in name:
            parameter.data = noise
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"vq_embed_dim": 5, "latent_channels": 4},
        {
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "block_out_channels": [16, 16, 32],
            "layers_per_block": 1,
        },
        {
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
            "mid_block_add_attention": False,
        },
    ],
    ids=["attention", "code width", "middle only", "no attention"],
)
def test_vq_model_computes_the_same(tmp_path, change) -> None:
    model = filled(VQModel(**{**VQ, **change}))
    model.save_pretrained(tmp_path / "model")
    report = import_checkpoint(tmp_path / "model", "diffusers-vq", tmp_path / "out")
    bundle = load_bundle(tmp_path / "out")
    stage = bundle.part("first_stage")
    assert report.parts["first_stage"] == sum(p.numel() for p in model.parameters())
    assert bundle.meta["image_size"] == 32
    images = draw(2, 3, 32, 32).clamp(-1, 1)
    latents = model.encode(images).latents
    close(stage.encode(images), latents)
    close(stage.decode(latents), model.decode(latents).sample)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"use_linear_projection": True, "attention_head_dim": [2, 8]},
        {
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "block_out_channels": [32, 64, 64],
            "layers_per_block": [1, 2, 1],
            "attention_head_dim": [1, 2, 4],
            "in_channels": 5,
        },
    ],
    ids=["plain", "linear projections", "layers per level"],
)
def test_unet_computes_the_same(tmp_path, change) -> None:
    model = filled(UNet2DConditionModel(**{**UNET, **change}))
    model.save_pretrained(tmp_path / "model")
    report = import_checkpoint(tmp_path / "model", "diffusers-unet", tmp_path / "out")
    network = load_bundle(tmp_path / "out").part("network")
    assert report.parts["network"] == sum(p.numel() for p in model.parameters())
    x, context, timesteps = draw(2, model.config.in_channels, 8, 8), draw(2, 3, 24), torch.tensor([3, 870])
    found = network(x, timesteps, SimpleNamespace(context=context, concat=None, embedding=None))
    close(found, model(x, timesteps, context).sample)


def test_the_usual_sizes_are_understood(tmp_path, monkeypatch) -> None:
    """Configuration and names of the class's defaults (860 M parameters), without their memory."""
    with torch.device("meta"):
        model = UNet2DConditionModel()
    state = model.state_dict()
    (tmp_path / "config.json").write_text(model.to_json_string())
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    monkeypatch.setattr("talkface.importers.diffusers.read_weights", lambda path: state)
    with torch.device("meta"):
        imported = import_unet(tmp_path)
    arguments = imported.specs["network"]["init_args"]
    assert arguments["channel_mult"] == [1, 2, 4, 4] and arguments["attention_downsamples"] == [1, 2, 4]
    assert arguments["num_head_channels"] == [40, 80, 160, 160] and arguments["context_dim"] == 1280
    count = sum(p.numel() for p in imported.parts["network"].parameters())
    assert count == sum(p.numel() for p in model.parameters())


def test_torch_files_are_read_as_well(tmp_path, capsys) -> None:
    model = filled(VQModel(**VQ))
    model.save_pretrained(tmp_path / "model", safe_serialization=False)
    assert [path.name for path in (tmp_path / "model").glob("*.bin")] == ["diffusion_pytorch_model.bin"]
    command = [
        "import-checkpoint",
        str(tmp_path / "model"),
        "--kind",
        "diffusers-vq",
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.main(command) == 0, capsys.readouterr().err
    images = draw(1, 3, 32, 32)
    close(load_bundle(tmp_path / "o").part("first_stage").encode(images), model.encode(images).latents)


def test_names_of_older_versions_are_read(tmp_path) -> None:
    model = filled(VQModel(**VQ))
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, value in model.state_dict().items():
        for now, then in older.items():
            name = name.replace(f".{now}.", f".{then}.")
        state[name] = value
    assert "encoder.mid_block.attentions.0.query.weight" in state
    model.save_pretrained(tmp_path / "model", safe_serialization=False)
    torch.save(state, tmp_path / "model" / "diffusion_pytorch_model.bin")
    images = draw(1, 3, 32, 32)
    close(
        import_vq_model(tmp_path / "model").parts["first_stage"].encode(images), model.encode(images).latents
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"freq_shift": 1}, "freq_shift = 1; allowed: 0"),
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos = False; allowed: True"),
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep'; allowed: None or False"),
        ({"a_setting_of_next_year": 3}, "a_setting_of_next_year = 3; allowed: None or False"),
        ({"norm_eps": 1e-6}, "norm_eps = 1e-06; allowed: 1e-05"),
        (
            {"down_block_types": ["SimpleCrossAttnDownBlock2D"]},
            "blocks SimpleCrossAttnDownBlock2D; allowed: CrossAttn",
        ),
        ({"block_out_channels": None}, "has no block_out_channels"),
        ({"attention_head_dim": 7}, "[7, 7] attention heads for widths [32, 64]; allowed: divisors"),
        ({"norm_num_groups": 5}, "refuses the arguments"),
        (
            {"_class_name": "UNet2DModel"},
            "holds a UNet2DModel; allowed with this --kind: UNet2DConditionModel",
        ),
    ],
)
def test_settings_that_our_network_does_not_have(tmp_path, saved_unet, change, said) -> None:
    folder = shutil.copytree(saved_unet, tmp_path / "model")
    config = {**json.loads((folder / "config.json").read_text()), **change}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TalkfaceError) as error:
        import_unet(folder)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def saved_unet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet") / "model"
    UNet2DConditionModel(**UNET).save_pretrained(folder)
    return folder


def test_folders_that_are_none(tmp_path, saved_unet) -> None:
    with pytest.raises(TalkfaceError, match=r"config\.json cannot be read"):
        import_unet(tmp_path)
    folder = shutil.copytree(saved_unet, tmp_path / "model")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(TalkfaceError, match="holds no diffusion_pytorch_model"):
        import_unet(folder)
    with pytest.raises(TalkfaceError, match="ema with diffusers-unet"):
        import_checkpoint(saved_unet, "diffusers-unet", tmp_path / "o", weights="ema")
