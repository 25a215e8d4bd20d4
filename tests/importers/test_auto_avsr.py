"""Checkpoints of public lip readers: names and shapes of their layouts, exact results, and what is refused."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from talkface.checkpoint import load_bundle
from talkface.cli import main
from talkface.errors import TalkfaceError
from talkface.experts.lipreading import BLANK, LipReader
from talkface.importers.auto_avsr import describe_lip_reader, read_lip_reader

SMALL = {"channels": 4, "dim": 16, "heads": 2, "hidden": 24, "layers": 2, "kernel": 5, "decoder_layers": 1}
UNITS = (BLANK, "<unk>", "▁a", "b", "<eos>")


def public_names(layers: int, decoder_layers: int) -> set[str]:
    """Parameters of auto-avsr's E2E(modality="video"), written down from its classes."""
    both = ("weight", "bias")
    names = {"frontend.frontend3D.0.weight", *(f"frontend.frontend3D.1.{kind}" for kind in both)}
    for stage in range(1, 5):
        for block in range(2):
            at = f"frontend.trunk.layer{stage}.{block}"
            names |= {f"{at}.conv{n}.weight" for n in (1, 2)} | {
                f"{at}.bn{n}.{k}" for n in (1, 2) for k in both
            }
            if stage > 1 and block == 0:
                names |= {f"{at}.downsample.0.weight"} | {f"{at}.downsample.1.{kind}" for kind in both}
    plain = ["proj_encoder", "encoder.after_norm", "decoder.after_norm", "decoder.output_layer", "ctc.ctc_lo"]
    for layer in range(layers):
        at = f"encoder.encoders.{layer}"
        names |= {f"{at}.self_attn.{name}" for name in ("pos_bias_u", "pos_bias_v", "linear_pos.weight")}
        plain += [f"{at}.self_attn.linear_{name}" for name in ("q", "k", "v", "out")]
        plain += [f"{at}.{part}.w_{n}" for part in ("feed_forward", "feed_forward_macaron") for n in (1, 2)]
        plain += [f"{at}.norm_{name}" for name in ("ff", "mha", "ff_macaron", "conv", "final")]
        plain += [
            f"{at}.conv_module.{name}"
            for name in ("pointwise_cov1", "depthwise_conv", "norm", "pointwise_cov2")
        ]
    for layer in range(decoder_layers):
        at = f"decoder.decoders.{layer}"
        plain += [
            f"{at}.{part}.linear_{name}"
            for part in ("self_attn", "src_attn")
            for name in ("q", "k", "v", "out")
        ]
        plain += [f"{at}.feed_forward.w_{n}" for n in (1, 2)] + [f"{at}.norm{n}" for n in (1, 2, 3)]
    return names | {f"{name}.{kind}" for name in plain for kind in both} | {"decoder.embed.0.weight"}


def small(**changes) -> LipReader:
    torch.manual_seed(0)
    made = LipReader(UNITS, **(SMALL | changes)).eval()
    for name, buffer in made.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.3, 1.2)
    return made


def older(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The layout of the predecessor: the front end inside the encoder."""
    renamed = {}
    for name, value in state.items():
        name = name.replace("frontend.", "encoder.frontend.", 1) if name.startswith("frontend.") else name
        renamed[name.replace("proj_encoder.", "encoder.embed.0.")] = value
    return renamed


def test_the_public_model_has_these_names_and_sizes():
    with torch.device("meta"):
        made = LipReader([f"u{n}" for n in range(5049)], decoder_layers=6)
    parameters = dict(made.named_parameters())
    assert set(parameters) == public_names(12, 6)
    shapes = {
        "frontend.frontend3D.0.weight": (64, 1, 5, 7, 7),
        "frontend.trunk.layer4.1.conv2.weight": (512, 512, 3, 3),
        "frontend.trunk.layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "proj_encoder.weight": (768, 512),
        "encoder.encoders.11.self_attn.pos_bias_u": (12, 64),
        "encoder.encoders.0.feed_forward.w_1.weight": (3072, 768),
        "encoder.encoders.0.conv_module.depthwise_conv.weight": (768, 1, 31),
        "encoder.encoders.0.conv_module.pointwise_cov1.weight": (1536, 768, 1),
        "decoder.embed.0.weight": (5049, 768),
        "decoder.output_layer.weight": (5049, 768),
        "ctc.ctc_lo.weight": (5049, 768),
    }
    assert {name: tuple(parameters[name].shape) for name in shapes} == shapes
    assert 250.0e6 < sum(value.numel() for value in parameters.values()) < 250.9e6


@pytest.mark.parametrize("layout", ["auto-avsr", "lightning", "older"])
@pytest.mark.parametrize("activation", ["swish", "prelu"])
def test_what_is_read_computes_the_same(tmp_path, layout, activation):
    made = small(activation=activation)
    state = made.state_dict()
    if layout == "lightning":
        state = {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3}
    elif layout == "older":
        state = older(state)
        (tmp_path / "vsr.json").write_text(json.dumps([80, 5, {"rel_pos_type": "latest"}]))
    torch.save(state, tmp_path / "vsr.pth")
    (tmp_path / "unigram5000_units.txt").write_text("<unk> 1\n▁a 2\nb 3\n")
    read = read_lip_reader(tmp_path / "vsr.pth")
    mouths = torch.rand(1, 7, 1, 88, 88)
    torch.testing.assert_close(
        read.log_probabilities(mouths), made.log_probabilities(mouths), atol=1e-6, rtol=0
    )
    tokens = torch.tensor([[4, 2, 3]])
    torch.testing.assert_close(
        read.decoder(tokens, read.features(mouths)),
        made.decoder(tokens, made.features(mouths)),
        atol=1e-6,
        rtol=0,
    )
    assert read.vocabulary == UNITS and not any(p.requires_grad for p in read.parameters())
    assert read.frame_features(mouths).shape == (1, 7, 32)


def test_which_attention_the_older_program_trained(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(older(small().state_dict()), path)
    assert describe_lip_reader(path)[0]["init_args"]["positions"] == "legacy"
    assert describe_lip_reader(path, positions="latest")[0]["init_args"]["positions"] == "latest"
    path.with_suffix(".json").write_text('{"rel_pos_type": "latest"}')
    assert describe_lip_reader(path)[0]["init_args"]["positions"] == "latest"
    path.with_suffix(".json").write_text("{")
    with pytest.raises(TalkfaceError, match=r"model\.json is not valid JSON"):
        describe_lip_reader(path)


def test_without_a_list_of_units_numbers_are_read(tmp_path):
    torch.save(small().state_dict(), tmp_path / "vsr.pth")
    assert read_lip_reader(tmp_path / "vsr.pth").vocabulary[1:-1] == ("<01>", "<02>", "<03>")


def test_the_command_makes_a_bundle(tmp_path, capsys):
    torch.save(small().state_dict(), tmp_path / "vsr.pth")
    (tmp_path / "list.txt").write_text("<unk> 1\n▁a 2\nb 3\n")
    command = [
        "import-checkpoint",
        str(tmp_path / "vsr.pth"),
        "--kind",
        "auto-avsr",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--units", str(tmp_path / "list.txt")]) == 0
    assert "lip_reader" in capsys.readouterr().out
    read, mouths = load_bundle(tmp_path / "out").part("lip_reader"), torch.rand(1, 4, 1, 88, 88)
    torch.testing.assert_close(read.features(mouths), small().features(mouths))
    assert read.vocabulary == UNITS
    command[3] = "taming-vqgan"
    assert main([*command, "--units", str(tmp_path / "list.txt")]) == 2
    assert "--units: " in capsys.readouterr().err


def spoiled(change) -> dict[str, torch.Tensor]:
    state = small().state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.after_norm.bias"), "encoder.after_norm.bias is missing"),
        (
            lambda s: s.update({"proj_encoder.bias": torch.zeros(7)}),
            r"proj_encoder.bias \(7,\) where \(16,\) is expected",
        ),
        (
            lambda s: s.update({"extra.weight": torch.zeros(1)}),
            r"extra.weight \(1,\) where nothing is expected",
        ),
        (lambda s: s.pop("frontend.frontend3D.0.weight"), "no tensor frontend.frontend3D.0.weight"),
        (
            lambda s: [s.pop(name) for name in list(s) if name.startswith("encoder.encoders")],
            "no tensor encoder.encoders.0.norm_mha.weight; allowed: a conformer",
        ),
        (
            lambda s: s.update({"frontend.frontend3D.0.weight": torch.zeros(64, 1, 80)}),
            "allowed: a reader of films, not of sound",
        ),
    ],
)
def test_other_networks_are_refused_in_one_line(tmp_path, change, message):
    torch.save(spoiled(change), tmp_path / "vsr.pth")
    with pytest.raises(TalkfaceError, match=message) as refused:
        read_lip_reader(tmp_path / "vsr.pth")
    assert "\n" not in str(refused.value)


def test_other_files_are_refused_in_one_line(tmp_path):
    for name, content in (
        ("cut.pth", b"\x80\x02}"),
        ("text.pth", b"hello"),
        ("code.pth", pickle.dumps(print)),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TalkfaceError, match=name) as refused:
            read_lip_reader(tmp_path / name)
        assert "\n" not in str(refused.value)
    with pytest.raises(TalkfaceError, match=r"absent\.pth does not exist"):
        read_lip_reader(tmp_path / "absent.pth")
    torch.save(small().state_dict(), tmp_path / "vsr.pth")
    (tmp_path / "units.txt").write_text("<unk> 1\na 2\n")
    with pytest.raises(TalkfaceError, match=r"units: .*has 2 units; allowed: 3"):
        read_lip_reader(tmp_path / "vsr.pth", tmp_path / "units.txt")
    with pytest.raises(TalkfaceError, match=r"units: .*none\.txt does not exist"):
        read_lip_reader(tmp_path / "vsr.pth", tmp_path / "none.txt")
