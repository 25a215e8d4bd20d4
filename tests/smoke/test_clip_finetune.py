"""CLIP-guided finetuning as a user runs it: the paper's configuration at tiny size, from a trained model to an edit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pytorch_lightning")
pytest.importorskip("peft")
pytest.importorskip("tokenizers")
pytest.importorskip("transformers")

from talkface import cli
from talkface.adapters import read_adapters
from talkface.experts.recognition import ArcFaceRecogniser
from talkface.media import read_image

CONF = Path(__file__).resolve().parents[2] / "conf"
WORDS = ("face", "happy", "sad", "surprised", "scared", "disgusted", "angry")


def save_clip(folder: Path) -> None:
    """A folder like that of a published CLIP, with a few thousand random weights and whole words."""
    import tokenizers
    import transformers

    numbers = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "<s>", "</s>", *WORDS))}
    rules = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="[UNK]"))
    rules.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    rules.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=rules, **special).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config=size | ids | {"vocab_size": len(numbers), "max_position_embeddings": 8},
        vision_config=size | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    model = transformers.CLIPModel(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    model.save_pretrained(folder)


def options(**values: object) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name.replace('__', '.')}", str(value))]


@pytest.mark.timeout(300)
def test_the_papers_configuration_finetunes_and_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ["fit", "--config", str(CONF / "smoke" / "ldm.yaml")]
    assert cli.main([*run, *options(trainer__max_steps=2, trainer__val_check_interval=2)]) == 0
    save_clip(tmp_path / "clip")
    torch.manual_seed(1)
    network = ArcFaceRecogniser(weights=None).network
    torch.save(network.state_dict(), "model_ir_se50.pth")
    tiny = options(
        model__start_from="runs/smoke_ldm/checkpoints/last.ckpt",
        model__network__model_channels=16,
        model__network__channel_mult="[1, 2]",
        model__network__num_res_blocks=1,
        model__network__attention_downsamples="[2]",
        model__network__num_head_channels=8,
        model__network__context_dim=16,
        model__first_stage__channels=16,
        model__first_stage__channel_mult="[1, 1, 2]",
        model__first_stage__num_res_blocks=1,
        model__first_stage__attention_resolutions="[]",
        model__first_stage__codebook_size=128,
        model__prediction_type="velocity",
        model__conditioner__conditioners__emotion__init_args__dim=16,
        model__guide__clip__name_or_path="clip",
        model__guide__recogniser__weights="model_ir_se50.pth",
        model__judge="talkface.experts.emotion.EmotionNetwork",
        model__path__inversion_steps=2,
        model__path__tuning_steps=2,
        model__path__validation_steps=2,
        data__corpus="corpora/smoke",
        data__image_size=32,
        data__alignment="canonical",
        data__num_latents=4,
        data__num_validation=2,
        data__batch_size=2,
        data__num_workers=0,
        trainer__accelerator="cpu",
        trainer__max_epochs=1,
        trainer__num_sanity_val_steps=0,
        trainer__log_every_n_steps=1,
        trainer__enable_progress_bar="false",
    )
    tune = ["fit", "--config", str(CONF / "clip_finetune_affectnet.yaml"), *tiny]
    assert cli.main(tune) == 0
    kept = Path("runs/clip_finetune_affectnet/checkpoints")
    assert list(json.loads((kept / "best.json").read_text())["best"]) == ["happy"]
    [cache] = Path("corpora/smoke/inverted").iterdir()
    inverted = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert (
        len(inverted) == 4 + 1
    )  # of two validation clips one is happy already, and there is nothing to edit
    state = torch.load(kept / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2 and not [key for key in state["state_dict"] if "clip" in key]
    # an adapter, from the same inverted pictures
    assert cli.main([*tune, *options(model__lora_rank=2, model__learning_rate=1e-2)]) == 0
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == inverted
    about = read_adapters(kept / "adapters.safetensors")["happy"]["about"]
    assert len(about["guided_by"]) == 2 and about["target"] == "happy"

    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(picture).save("face.png")
    edit = ["edit-emotion", "--image", "face.png", "--aligned", "--from", "neutral", "--to", "happy"]
    edit += ["--num-inference-steps", "2", "--device", "cpu", "--precision", "fp32"]
    base = "runs/smoke_ldm/checkpoints/last.ckpt"
    for name, model in (
        ("base", ["--checkpoint", base]),
        ("tuned", ["--checkpoint", str(kept / "happy.ckpt")]),
        ("adapter", ["--checkpoint", base, "--adapter", str(kept / "adapters.safetensors") + ":happy"]),
    ):
        assert cli.main([*edit, *model, "--out", f"{name}.png"]) == 0
        assert read_image(f"{name}.png").shape == (64, 64, 3)
    capsys.readouterr()
    [adapted] = kept.glob("last-v*.ckpt")  # the second run in this folder
    assert cli.main([*edit, "--checkpoint", str(adapted), "--out", "no.png"]) == 2
    assert "is the training of an adapter" in capsys.readouterr().err
