"""The diffusion models of the thesis: every tensor has its place, and the import computes what the layout means."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint

from talkface import cli
from talkface.checkpoint import load_bundle
from talkface.errors import TalkfaceError
from talkface.importers.compvis import import_latent_diffusion
from talkface.importers.kinds import import_checkpoint
from talkface.importers.tensors import Tensors
from talkface.media import Audio
from talkface.pipelines.talking_face import TalkingFacePipeline

# of the sorted lines "name (shape)" of the talking-face model as the thesis's own code lists its state
TALKING_FACE_KEYS = 894
TALKING_FACE_SHA256 = "e0b7daaa9c34711d7010b1ba7e993226d22a3a3cae9fad2dfc253c5d6c1ea456"
SMALL_VQGAN = {"ch": 32, "mult": (1, 2), "blocks": 1, "attention": (1,), "codes": 32}
SMALL_UNET = {"ch": 32, "mult": (1, 2), "blocks": 1, "attention": (0, 1)}
SIZE = 16


def thesis_betas() -> torch.Tensor:
    return torch.linspace(0.0015**0.5, 0.0205**0.5, 1000, dtype=torch.float64).square().float()


def beside(betas: torch.Tensor) -> dict:
    """Tensors that a checkpoint has besides networks."""
    tables = {
        name: torch.zeros(1000) for name in ("alphas_cumprod", "posterior_variance", "sqrt_alphas_cumprod")
    }
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    return {"betas": betas, **tables, **counters}


def lightning_file(path: Path, state: dict) -> Path:
    """A checkpoint as Lightning 1.4 wrote it: classes as keys of the callbacks, omegaconf in the hyper-parameters."""
    torch.save(
        {
            "epoch": 3,
            "callbacks": {ModelCheckpoint: {"monitor": "val/loss", "best_model_score": torch.tensor(0.1)}},
            "hyper_parameters": {"unet": OmegaConf.create({"params": {"channels": [1, 2]}})},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
            "state_dict": state,
        },
        path,
    )
    return path


def small_talking_face(compvis, seed=0) -> dict:
    """Parts of a small talking face: first stage, raw and averaged UNet, conditioners."""
    return {
        "first_stage": compvis.fill(compvis.vqgan_shapes(**SMALL_VQGAN), seed),
        "raw": compvis.fill(compvis.unet_shapes(**SMALL_UNET, inputs=9, context=16 + 24), seed + 1),
        "ema": compvis.fill(compvis.unet_shapes(**SMALL_UNET, inputs=9, context=16 + 24), seed + 2),
        "emotion": compvis.fill({"embedding.weight": (9, 16)}, seed + 3),
        "sound": compvis.fill(compvis.sound_attention_shapes(24, 5), seed + 4),
    }


def talking_state(compvis, parts) -> dict:
    return {
        **compvis.prefixed("first_stage_model.", parts["first_stage"]),
        **compvis.prefixed("model.diffusion_model.", parts["raw"]),
        **compvis.average_names(parts["ema"], "diffusion_model."),
        **compvis.prefixed("cond_stage_model_1.", parts["emotion"]),
        **compvis.prefixed("cond_stage_model_2.", parts["sound"]),
        **beside(thesis_betas()),
    }


def draw(*shape: int, seed: int = 9) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert expected.std() > 0.05, "the comparison would prove nothing"
    assert float((found - expected).abs().max()) <= 1e-5


def test_every_key_of_the_talking_face_has_a_place(compvis) -> None:
    shapes = {
        **compvis.prefixed("first_stage_model.", compvis.vqgan_shapes()),
        **compvis.prefixed("model.diffusion_model.", compvis.unet_shapes()),
        "cond_stage_model_1.embedding.weight": (9, 256),
        **compvis.prefixed("cond_stage_model_2.", compvis.sound_attention_shapes()),
    }
    lines = sorted(f"{name} {shape}" for name, shape in shapes.items())
    assert len(lines) == TALKING_FACE_KEYS
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == TALKING_FACE_SHA256
    with torch.device("meta"):
        tensors = Tensors({name: torch.empty(shape) for name, shape in shapes.items()}, "thesis")
        imported = import_latent_diffusion(tensors)
    assert tensors.names == [] and not tensors.ignored
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in imported.parts.items()}
    assert count == {
        "first_stage": 60_605_598,
        "network": 163_158_883,
        "conditioner": 2_304 + 483_091,
    }
    network = imported.specs["network"]["init_args"]
    assert network["channel_mult"] == [1, 2, 4] and network["attention_downsamples"] == [1, 2, 4]
    assert (network["in_channels"], network["context_dim"], network["image_size"]) == (9, 1024, 32)
    assert imported.specs["first_stage"]["init_args"]["attention_resolutions"] == [32]
    assert imported.meta["window"] == 8 and imported.meta["mask"] == "thesis"


def test_every_key_of_the_class_conditional_model_has_a_place(compvis) -> None:
    unet = compvis.unet_shapes(inputs=3, context=512)
    shapes = {
        **compvis.prefixed("first_stage_model.", compvis.vqgan_shapes()),
        **compvis.prefixed("model.diffusion_model.", unet),
        **compvis.average_names(unet, "diffusion_model."),
        "cond_stage_model.embedding.weight": (8, 512),
        "cond_stage_model.uncond_embedding.weight": (1, 512),
        "model_ema.decay": (),
        "model_ema.num_updates": (),
        "logvar": (1000,),
    }
    with torch.device("meta"):
        tensors = Tensors({name: torch.empty(shape) for name, shape in shapes.items()}, "thesis")
        imported = import_latent_diffusion(tensors)
    assert tensors.names == [] and imported.weights == "ema"
    assert sum(tensors.ignored.values()) == 626 + 3
    assert sum(p.numel() for p in imported.parts["network"].parameters()) == 156_760_483
    assert list(imported.specs["conditioner"]["init_args"]["conditioners"]) == ["emotion"]
    assert imported.meta["emotions"][0] == "neutral" and imported.meta["emotions"][7] == "contempt"


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_talking_face_from_the_command_line_computes_the_same(compvis, tmp_path, capsys, weights) -> None:
    parts = small_talking_face(compvis)
    file = lightning_file(tmp_path / "last.ckpt", talking_state(compvis, parts))
    out = tmp_path / "bundle"
    command = [
        "import-checkpoint",
        str(file),
        "--kind",
        "thesis-ldm",
        "--out",
        str(out),
        "--weights",
        weights,
    ]
    assert cli.main([*command, "--image-size", str(SIZE), "--num-head-channels", "16"]) == 0
    said = capsys.readouterr()
    assert f"({weights} weights)" in said.out and "--speech" in said.err

    bundle = load_bundle(out)
    images = draw(2, 3, SIZE, SIZE).clamp(-1, 1)
    latents = compvis.encode(parts["first_stage"], images)
    close(bundle.part("first_stage").encode(images), latents)
    close(bundle.part("first_stage").decode(latents), compvis.decode(parts["first_stage"], latents))

    sound, emotion, noisy = draw(2, 5, 24), torch.tensor([3, -1]), draw(2, 3, 8, 8, seed=4)
    batch = {
        "audio": sound,
        "emotion": emotion,
        "masked_latents": draw(2, 3, 8, 8, seed=5),
        "reference_latents": draw(2, 3, 8, 8, seed=6),
    }
    vectors = parts["emotion"]["embedding.weight"][torch.tensor([3, 8])]  # the last row is "none"
    context = torch.cat([vectors, compvis.attend_sound(parts["sound"], sound)], dim=1)[:, None]
    conditioning = bundle.part("conditioner")(batch)
    close(conditioning.context, context)
    timesteps = torch.tensor([7, 903])
    stacked = torch.cat([noisy, batch["masked_latents"], batch["reference_latents"]], dim=1)
    expected = compvis.run_unet(parts[weights], stacked, timesteps, context, head=16)
    close(bundle.part("network")(noisy, timesteps, conditioning), expected)

    betas = thesis_betas().double()
    signal = bundle.build("schedule").alpha_bar(torch.arange(1000))
    torch.testing.assert_close(signal.double(), (1 - betas).cumprod(0), rtol=1e-5, atol=1e-7)
    assert json.loads((out / "bundle.json").read_text())["meta"]["imported"]["weights"] == weights


def test_class_conditional_model_computes_the_same(compvis, tmp_path) -> None:
    shapes = compvis.unet_shapes(**SMALL_UNET, inputs=3, context=24)
    unet, stage = compvis.fill(shapes, 1), compvis.fill(compvis.vqgan_shapes(**SMALL_VQGAN), 2)
    labels = compvis.fill({"embedding.weight": (8, 24), "uncond_embedding.weight": (1, 24)}, 3)
    state = {
        **compvis.prefixed("first_stage_model.", stage),
        **compvis.prefixed("model.diffusion_model.", unet),
        **compvis.prefixed("cond_stage_model.", labels),
        "betas": thesis_betas(),
        "clip_loss_func.model.logit_scale": torch.zeros(1),
        "id_loss_func.facenet.input_layer.0.weight": torch.zeros(3),
        "scale_factor": torch.tensor(0.25),
    }
    report = import_checkpoint(
        lightning_file(tmp_path / "a.ckpt", state),
        "thesis-ldm",
        tmp_path / "bundle",
        image_size=SIZE,
        num_head_channels=16,
    )
    assert report.weights == "raw" and report.ignored["networks of losses"] == 2
    bundle = load_bundle(tmp_path / "bundle")
    x, timesteps = draw(3, 3, 8, 8), torch.tensor([1, 500, 999])
    conditioning = bundle.part("conditioner")({"emotion": torch.tensor([0, 7, -1])})
    context = torch.cat([labels["embedding.weight"][[0, 7]], labels["uncond_embedding.weight"]])[:, None]
    close(conditioning.context, context)
    close(
        bundle.part("conditioner")
        .with_nulls({"emotion": torch.tensor([2])}, ["emotion"])[1]["emotion"]
        .context,
        context[2:],
    )
    close(
        bundle.part("network")(x, timesteps, conditioning), compvis.run_unet(unet, x, timesteps, context, 16)
    )
    images = draw(1, 3, SIZE, SIZE).clamp(-1, 1)
    raw = compvis.encode(stage, images)
    close(bundle.part("first_stage").encode(images), 0.25 * raw)
    close(bundle.part("first_stage").decode(0.25 * raw), compvis.decode(stage, raw))


def test_character_scores_and_landmarks_are_conditioners_too(compvis) -> None:
    sound = compvis.fill(compvis.sound_attention_shapes(29, 7, expand=True), 4)
    points = compvis.fill(compvis.landmark_shapes(48, 128), 5)
    state = {
        **compvis.prefixed("first_stage_model.", compvis.fill(compvis.vqgan_shapes(**SMALL_VQGAN))),
        **compvis.prefixed(
            "model.diffusion_model.",
            compvis.fill(compvis.unet_shapes(**SMALL_UNET, inputs=9, context=64 + 128)),
        ),
        **compvis.prefixed("cond_stage_model_1.", sound),
        **compvis.prefixed("cond_stage_model_2.", points),
    }
    imported = import_latent_diffusion(Tensors(state, "asr"), SIZE, num_head_channels=16)
    conditioner = imported.parts["conditioner"]
    features, landmarks = (
        draw(2, 7, 29),
        128 * torch.rand(2, 48, 2, generator=torch.Generator().manual_seed(2)),
    )
    empty = torch.zeros(2, 3, 8, 8)
    made = conditioner(
        {"audio": features, "landmarks": landmarks, "masked_latents": empty, "reference_latents": empty}
    )
    close(made.context[:, 0, :64], compvis.attend_sound(sound, features))
    x = landmarks.flatten(1) / 64 - 1
    for index in (0, 2, 4, 6):
        x = compvis.apply_linear(points, f"net.{index}", x).clamp(min=0)
    close(made.context[:, 0, 64:], compvis.apply_linear(points, "net.8", x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"clip_model.visual.proj": torch.zeros(2, 2)},
            "1 tensors that this kind does not know: clip_model.visual",
        ),
        (
            {"model_ema.diffusion_modelwrong": torch.zeros(2)},
            "averages of nothing: model_ema.diffusion_modelwrong",
        ),
        (
            {"model.diffusion_model.label_emb.weight": torch.zeros(2, 2)},
            "label_emb.weight (2, 2) where nothing",
        ),
        ({"model.diffusion_model.out.2.bias": None}, "out.2.bias is missing"),
        ({"first_stage_model.quantize.embedding.weight": None}, "has no codebook"),
        ({"betas": torch.linspace(0.1, 0.9, 50).square()[torch.randperm(50)]}, "no schedule of talkface"),
        ({"cond_stage_model_3.strange": torch.zeros(1)}, "cond_stage_model_3.*: holds strange"),
        (
            {"cond_stage_model_3.embedding.weight": torch.zeros(9, 4)},
            "two conditioners of the kind 'emotion'",
        ),
        ({"cond_stage_model_2.audio_encoder.x": torch.zeros(1)}, "a sound encoder trained along"),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 5, 3, 3)}, "reads 5 channels"),
    ],
)
def test_what_does_not_fit_is_said(compvis, change, said) -> None:
    parts = small_talking_face(compvis)
    parts["ema"] = {}
    state = {**talking_state(compvis, parts), **change}
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(TalkfaceError) as error:
        import_latent_diffusion(Tensors(state, "last.ckpt"), SIZE, num_head_channels=16)
    assert said in str(error.value) and "last.ckpt" in str(error.value)


def test_averages_are_asked_for_in_vain(compvis) -> None:
    parts = small_talking_face(compvis)
    parts["ema"] = {}
    with pytest.raises(TalkfaceError, match="holds no averages"):
        import_latent_diffusion(Tensors(talking_state(compvis, parts), "x"), SIZE, weights="ema")


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory) -> Path:
    """A sound encoder of 24 features, as the small talking face reads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.Wav2Vec2Config(
            vocab_size=11, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
            conv_dim=(8,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        )  # fmt: skip
        model = transformers.Wav2Vec2Model(config)
    folder = tmp_path_factory.mktemp("sound") / "wav2vec2"
    model.save_pretrained(folder)
    return folder


def test_an_imported_talking_face_speaks(compvis, tmp_path, wav2vec2, draw_faces, drawn_face_finder) -> None:
    torch.save(talking_state(compvis, small_talking_face(compvis)), tmp_path / "a.pt")
    report = import_checkpoint(
        tmp_path / "a.pt",
        "thesis-ldm",
        tmp_path / "out",
        image_size=SIZE,
        num_head_channels=16,
        speech=str(wav2vec2),
    )
    assert not report.notes and {"speech", "landmarks"} <= report.parts.keys()
    pipeline = TalkingFacePipeline(load_bundle(tmp_path / "out"), "fp32", drawn_face_finder)
    hum = 0.3 * np.sin(np.arange(3200) / 16000 * 2 * np.pi * 180).astype(np.float32)
    picture = draw_faces(160, 240, [(60, 20, 128)])
    film = pipeline(Audio(hum, 16000), picture, num_inference_steps=2, motion="none", emotion="happy")
    frames = np.stack(list(film))
    assert frames.shape == (5, 160, 240, 3) and not np.array_equal(frames[0], picture)


def test_the_sound_encoder_must_be_the_one(compvis, tmp_path, wav2vec2) -> None:
    parts = {**small_talking_face(compvis), "sound": compvis.fill(compvis.sound_attention_shapes(20, 5))}
    shapes = compvis.unet_shapes(**SMALL_UNET, inputs=9, context=16 + 20)
    parts["raw"] = parts["ema"] = compvis.fill(shapes)
    torch.save(talking_state(compvis, parts), tmp_path / "a.pt")
    sizes = {"image_size": SIZE, "num_head_channels": 16}
    with pytest.raises(TalkfaceError, match="gives 24 features; allowed: 20"):
        import_checkpoint(tmp_path / "a.pt", "thesis-ldm", tmp_path / "o", speech=str(wav2vec2), **sizes)
    torch.save(compvis.fill(compvis.vqgan_shapes(**SMALL_VQGAN)), tmp_path / "b.pt")
    with pytest.raises(TalkfaceError, match="hears no sound"):
        import_checkpoint(
            tmp_path / "b.pt", "thesis-vqgan", tmp_path / "o", image_size=SIZE, speech=str(wav2vec2)
        )
