"""CLIP-guided finetuning: gradients, the path, what is cached and kept, and what stops it; tiny real models."""

import json

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from talkface.adapters import network_key, read_adapters
from talkface.conditioning.base import ConditionerSet
from talkface.conditioning.face import ActionConditioner, EmotionConditioner
from talkface.conditioning.frames import FramesConditioner
from talkface.diffusion.schedule import NoiseSchedule
from talkface.diffusion.solvers import DDIM
from talkface.diffusion.timesteps import editing_timesteps
from talkface.diffusion.tuning import denoise_with_gradients
from talkface.errors import TalkfaceError
from talkface.experts.clip import FaceCLIP
from talkface.experts.emotion import EmotionNetwork
from talkface.experts.recognition import FaceEmbedder
from talkface.head.emotions import EMOTIONS
from talkface.networks.unet import UNet
from talkface.networks.vqgan import VQGAN
from talkface.pipelines.expression import single
from talkface.pipelines.latent_editing import EditSettings, LatentEditor
from talkface.training.clip_guide import ClipGuide
from talkface.training.edit_path import EditPath
from talkface.training.finetune import ClipFinetuneModule
from talkface.training.keeping import KeepBestPerTarget

SIZE = 32
TINY = {"channels": (4, 4, 4, 8), "blocks": (0, 0, 0, 0), "image_size": 32}


def guide(**options):
    torch.manual_seed(3)
    clip = FaceCLIP(
        vocabulary=["face", "happy", "sad", "surprised", "scared", "disgusted", "angry"],
        dim=16,
        text_dim=32,
        text_layers=1,
        **TINY,
    )
    return ClipGuide(clip, FaceEmbedder(channels=(4, 4, 4, 8), blocks=(0, 0, 0, 0)), **options)


def judge():
    torch.manual_seed(4)
    return EmotionNetwork(features=8, **TINY)


def model(guided=False, memory="plain", **options):
    torch.manual_seed(0)
    latents = 3
    parts = {"emotion": EmotionConditioner(dim=16, fills="embedding")}
    if guided:
        parts["actions"] = ActionConditioner(dim=16)
        parts["frames"] = FramesConditioner(latents, SIZE // 4, order=("guide", "reference"))
    conditioner = ConditionerSet(parts)
    network = UNet(
        in_channels=latents * (3 if guided else 1), out_channels=latents, model_channels=16, channel_mult=(1, 2),
        num_res_blocks=1, attention_downsamples=(2,), num_head_channels=16, image_size=SIZE // 4,
        embedding_dim=conditioner.embedding_dim,
    )  # fmt: skip
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    stage = VQGAN(
        channels=8,
        channel_mult=(1, 1, 2),
        num_res_blocks=1,
        attention_resolutions=(),
        image_size=SIZE,
        latent_channels=latents,
        codebook_size=64,
    )
    path = options.pop("path", {})
    path = EditPath(
        **({"inversion_steps": 3, "tuning_steps": 2, "validation_steps": 2, "memory": memory} | path)
    )
    options = {"learning_rate": 1e-3} | options
    return ClipFinetuneModule(
        network,
        stage,
        NoiseSchedule(),
        conditioner,
        options.pop("guide", None) or guide(),
        options.pop("judge", None),
        path,
        **options,
    )


def pictures(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(
        torch.rand(count, 3, 6, 6, generator=generator) * 2 - 1, size=(SIZE, SIZE), mode="bilinear"
    )


def batch_of(module, guided=False):
    images, labels = pictures(), torch.tensor([0, 1, 7, 3])
    drawn = pictures(8, 1).view(4, 2, 3, SIZE, SIZE) if guided else None
    made = module.inverted(images, labels, drawn)
    if guided:
        made["guide_latents"] = made["guide_latents"][:, 1]
    return made | {"label": labels, "target": torch.tensor([1, 2, 5, 6]), "number": torch.arange(4)}


class FromMemory(pl.LightningDataModule):
    """Batches of four random pictures, inverted by the model."""

    def __init__(self, spoiled=None):
        super().__init__()
        self.spoiled = spoiled

    def invert(self, model):
        self.batch = batch_of(model)

    def loader(self, count):
        rows = [{name: value[row] for name, value in self.batch.items()} for row in range(4)] * count
        if self.spoiled is not None:
            rows[self.spoiled] = rows[self.spoiled] | {"source": torch.full((3, SIZE, SIZE), torch.nan)}
        return torch.utils.data.DataLoader(rows, batch_size=4)

    def train_dataloader(self):
        return self.loader(2)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(
            self.loader(1).dataset[:4] if self.spoiled is None else [], batch_size=4
        )

    def picture_names(self, numbers):
        return [f"p{number}" for number in numbers]


def trainer(tmp_path, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": 2, "enable_checkpointing": False, "num_sanity_val_steps": 0} | quiet | options
    return pl.Trainer(default_root_dir=tmp_path, accelerator="cpu", callbacks=list(callbacks), **options)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_path_is_that_of_editing(guided, scale):
    """Inversion and the way back give what `edit-emotion --start picture` gives."""
    module = model(guided, path={"guidance_scale": scale, "inversion_guidance_scale": 2.0}).eval()
    batch = batch_of(module, guided)
    editor = LatentEditor(
        module.network,
        module.conditioner,
        module.schedule,
        "epsilon",
        "first",
        4,
        torch.device("cpu"),
        torch.float32,
    )
    settings = EditSettings(
        num_inference_steps=3, guidance_scale=scale, inversion_guidance_scale=2.0, start="picture"
    )
    latents = module.first_stage.encode(pictures())
    own = {"reference": latents, "guide": latents} if guided else None
    noisy = editor.invert(
        latents, [single(label, EMOTIONS) for label in batch["label"].tolist()], settings, shown=own
    )
    torch.testing.assert_close(batch["noisy_latents"], noisy, atol=1e-4, rtol=1e-4)
    shown = {"reference": latents, "guide": batch["guide_latents"]} if guided else None
    wanted = [single(label, EMOTIONS) for label in batch["target"].tolist()]
    settings = EditSettings(num_inference_steps=2, guidance_scale=scale, start="picture")
    edited = module.first_stage.decode(editor.denoise(noisy, wanted, settings, shown=shown))
    with torch.no_grad():
        torch.testing.assert_close(module.edit(batch, "plain"), edited, atol=1e-4, rtol=1e-3)


def test_gradients_of_plain_and_checkpointed_are_equal_and_reach_the_network_only():
    grads = []
    for memory in ("plain", "checkpointed"):
        module = model(memory=memory)
        batch = batch_of(module)
        terms = module.guide(module.edit(batch, memory), batch["source"], batch["label"], batch["target"])
        assert set(terms) == {"direction", "identity", "pixels"} and all(
            t.shape == (4,) for t in terms.values()
        )
        module.guide.total(terms).backward()
        grads.append([p.grad for p in module.network.parameters() if p.grad is not None])
        assert len(grads[-1]) > 20 and sum(g.abs().sum() for g in grads[-1]) > 0
        others = [
            *module.conditioner.parameters(),
            *module.first_stage.parameters(),
            *module.guide.parameters(),
        ]
        assert all(p.grad is None for p in others)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


def test_one_step_of_the_path_judges_the_clean_data_predicted_there():
    """With a predictor that knows the answer every step predicts it."""
    schedule, truth = NoiseSchedule(), torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    calls = []

    def predict(x, timesteps):
        calls.append(torch.is_grad_enabled())
        signal, sigma = schedule.signal_and_noise(timesteps, x)
        return (x - signal * truth) / sigma

    times = editing_timesteps(6, 500).flip(0)
    start = schedule.add_noise(truth, torch.ones_like(truth), torch.tensor([500, 500]))
    counts = set()
    for seed in range(12):
        calls.clear()
        made = denoise_with_gradients(
            DDIM(schedule), predict, start, times, "per_step", torch.Generator().manual_seed(seed)
        )
        torch.testing.assert_close(made, truth, atol=1e-4, rtol=1e-4)
        assert calls[-1] and not any(calls[:-1])
        counts.add(len(calls))
    assert counts <= set(range(1, 7)) and len(counts) > 3


def test_weights_of_the_terms():
    module = model()
    batch = batch_of(module)
    with torch.no_grad():
        edited = module.edit(batch, "plain")
        terms = module.guide(edited, batch["source"], batch["label"], batch["target"])
    by_hand = 2 * terms["direction"].mean() + terms["identity"].mean() + terms["pixels"].mean()
    torch.testing.assert_close(module.guide.total(terms), by_hand)
    torch.testing.assert_close(terms["pixels"], (edited - batch["source"]).square().flatten(1).mean(1))
    table = module.guide.directions(torch.device("cpu"))
    torch.testing.assert_close(table[0, 3], table[7, 3])  # contempt counts as neutral
    assert float(table[3, 3].norm()) == 0 and float(table[0, 7].norm()) == 0


def test_finetuning_lowers_the_loss_and_keeps_the_best_of_each_target(tmp_path):
    module = model(judge=judge(), memory="checkpointed", learning_rate=3e-3)
    before = {name: p.clone() for name, p in module.conditioner.state_dict().items()}
    losses = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    fit = trainer(tmp_path, Watch(), KeepBestPerTarget(str(tmp_path / "kept")), max_epochs=5)
    fit.fit(module, datamodule=FromMemory())
    assert losses[-1] < losses[0] - 0.02
    for name, value in module.conditioner.state_dict().items():
        assert torch.equal(value, before[name])
    kept = json.loads((tmp_path / "kept" / "best.json").read_text())
    assert set(kept["best"]) == {"happy", "sad", "disgusted", "angry"} and len(kept["history"]) == 5
    for target, best in kept["best"].items():
        values = [epoch[target] for epoch in kept["history"]]
        assert best["accuracy"] == max(values) and best["epoch"] == values.index(max(values))
        saved = torch.load(tmp_path / "kept" / f"{target}.ckpt", weights_only=True)
        assert saved["finetuned"]["guided_by"] == module.guide.fingerprints()
        # experts guide, and are not saved
        assert {key.split(".")[0] for key in saved["state_dict"]} == {"network", "conditioner", "first_stage"}


def test_an_adapter_is_trained_and_kept_for_each_target(tmp_path):
    module = model(judge=judge(), lora_rank=2, learning_rate=1e-2)
    key = network_key(module.network)
    trainer(tmp_path, KeepBestPerTarget(str(tmp_path))).fit(module, datamodule=FromMemory())
    assert network_key(module.network) == key
    said = read_adapters(tmp_path / "adapters.safetensors")
    assert set(said) == {"happy", "sad", "disgusted", "angry", "last"}
    assert said["sad"]["about"]["target"] == "sad" and said["sad"]["network"] == key
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in name for name in trained)


def test_a_loss_that_is_no_number_stops_before_the_weights_and_names_the_batch(tmp_path):
    module = model()
    checkpoints = pl.callbacks.ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_train_steps=1)
    fit = trainer(tmp_path, checkpoints, enable_checkpointing=True)
    told = r"the loss is nan in batch 1 of epoch 0 \(pictures p0, p1, p2, p3\)"
    with pytest.raises(TalkfaceError, match=told):
        fit.fit(module, datamodule=FromMemory(spoiled=5))
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 1 and all(v.isfinite().all() for v in state["state_dict"].values())
    for name, value in module.state_dict().items():
        assert torch.equal(value, state["state_dict"][name])


def test_a_gradient_that_is_no_number_stops_too(tmp_path):
    module = model()
    original = module.edit

    def edit(*arguments):
        made = original(*arguments)
        made.register_hook(lambda gradient: gradient * torch.inf) if made.requires_grad else None
        return made

    module.edit = edit
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(TalkfaceError, match="the gradient is nan in batch 0 of epoch 0"):
        trainer(tmp_path).fit(module, datamodule=FromMemory())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_mistakes():
    with pytest.raises(TalkfaceError, match="tuning steps: 600 from timestep 500; allowed: 1 to 500"):
        model(path={"tuning_steps": 600})
    with pytest.raises(TalkfaceError, match="memory: 'none'"):
        EditPath(memory="none")
    with pytest.raises(TalkfaceError, match="templates: 'many'"):
        guide(templates="many")
    clip = guide().clip
    with pytest.raises(TalkfaceError, match="recogniser: FaceCLIP gives no gradients"):
        ClipGuide(clip, clip)
    with pytest.raises(TalkfaceError, match="allowed is an ImageTextEncoder"):
        ClipGuide(judge())
    guiding = guide()
    with pytest.raises(TalkfaceError, match="also guided the training"):
        model(guide=guiding, judge=guiding.recogniser)
