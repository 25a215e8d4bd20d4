"""Train the default bundle from nothing: corpus, speech encoder, landmarks, first stage, talking face; then pack it.

    python scripts/train_bundle.py --work runs/bundle --minutes 120 --lpips-backbone vgg16.safetensors

Every stage keeps its state in `--work` and continues there when it is run again; `--stage` runs only some of them.
`--minutes` is shared out by `SHARES`. On a GPU give `--device cuda` and `--identities 20000`; the recipe is the same,
only larger. What a stage does not find (voices, the teacher of the speech encoder) it says in one line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
import train_landmarks
import train_speech
from make_textures import write_textures
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm import tqdm

from talkface.checkpoint import instantiate, save_bundle
from talkface.data.base import EMOTIONS, Corpus
from talkface.data.images import Photometry
from talkface.data.synthetic.clips import SyntheticRecipe, prepare_synthetic
from talkface.data.synthetic.visemes import SpeakingStyle, speech_actions
from talkface.data.talking import TalkingDataset
from talkface.diffusion.solvers import uniform_timesteps
from talkface.errors import TalkfaceError
from talkface.experts.vision import LPIPS
from talkface.head.model import ACTIONS
from talkface.losses.first_stage import FirstStageLoss
from talkface.media import read_image, to_tensor
from talkface.portrait.blend import generation_mask
from talkface.training.callbacks import EMAWeights
from talkface.training.diffusion import DiffusionModule
from talkface.training.first_stage import FirstStageModule

STAGES = ("corpus", "speech", "landmarks", "pairs", "first_stage", "talking", "pack")
SHARES = {"speech": 0.13, "landmarks": 0.13, "first_stage": 0.25, "talking": 0.45}
IMAGE_SIZE, WINDOW, WINDOW_RATE = 128, 3, 25.0
LATENT_CHANNELS = 6
STEPS = 4  # of the sampler; the network is trained at its noise levels only

FIRST_STAGE = {
    "class_path": "talkface.networks.vqgan.VQGAN",
    "init_args": {
        "channels": 64,
        "channel_mult": [1, 2],
        "patch_size": 2,
        "num_res_blocks": 1,
        "decoder_num_res_blocks": 1,
        "attention_resolutions": [],
        "image_size": IMAGE_SIZE,
        "latent_channels": LATENT_CHANNELS,
        "codebook_size": None,
        "latent_noise": 0.1,
    },
}
SCHEDULE = {"class_path": "talkface.diffusion.schedule.NoiseSchedule", "init_args": {}}
CONTEXT, AUDIO_EMBEDDING, EMOTION_EMBEDDING = 128, 256, 64
NETWORK = {
    "class_path": "talkface.networks.unet.UNet",
    "init_args": {
        "in_channels": 4 * LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "model_channels": 48,
        "channel_mult": [1, 2, 3],
        "num_res_blocks": 1,
        "attention_downsamples": [4],
        "num_head_channels": 24,
        "context_dim": CONTEXT,
        "embedding_dim": AUDIO_EMBEDDING + EMOTION_EMBEDDING,
        "image_size": IMAGE_SIZE // 4,
    },
}


def conditioner_spec(feature_dim: int) -> dict[str, Any]:
    """Sound as tokens and as an embedding, emotion as an embedding, masked and reference latents stacked."""
    audio = {
        "feature_dim": feature_dim,
        "window": WINDOW,
        "mode": "tokens",
        "dim": CONTEXT,
        "embedding_dim": AUDIO_EMBEDDING,
        "drop_rate": 0.1,
    }
    emotion = {"num_classes": len(EMOTIONS), "dim": EMOTION_EMBEDDING, "fills": "embedding", "drop_rate": 0.5}
    conditioners = {
        "audio": {"class_path": "talkface.conditioning.audio.AudioConditioner", "init_args": audio},
        "emotion": {"class_path": "talkface.conditioning.face.EmotionConditioner", "init_args": emotion},
        "frames": {
            "class_path": "talkface.conditioning.frames.FramesConditioner",
            "init_args": {
                "latent_channels": LATENT_CHANNELS,
                "latent_size": IMAGE_SIZE // 4,
                "order": ["masked", "reference"],
            },
        },
        # apart from the others, so that it can be left out: `--guide none`
        "guide": {
            "class_path": "talkface.conditioning.frames.FramesConditioner",
            "init_args": {
                "latent_channels": LATENT_CHANNELS,
                "latent_size": IMAGE_SIZE // 4,
                "order": ["guide"],
                "drop_rate": 0.1,
            },
        },
    }
    return {
        "class_path": "talkface.conditioning.base.ConditionerSet",
        "init_args": {"conditioners": conditioners},
    }


class Crops(IterableDataset[dict[str, Tensor]]):
    """Endless random crops (3, size, size) of pictures, scaled and re-lit a little.

    A convolutional first stage learns as much from a crop of 64 pixels as from a face of 128, at a quarter of the cost.
    """

    def __init__(self, sources: list[tuple[float, list[np.ndarray]]], size: int, seed: int) -> None:
        self.sources, self.size, self.seed = sources, size, seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(self.seed)
        shares = np.array([share for share, _ in self.sources])
        while True:
            pictures = self.sources[rng.choice(len(self.sources), p=shares / shares.sum())][1]
            picture = pictures[rng.integers(len(pictures))]
            side = int(np.clip(self.size * rng.uniform(0.7, 1.4), 16, min(picture.shape[:2])))
            top, left = (int(rng.integers(extent - side + 1)) for extent in picture.shape[:2])
            crop = cv2.resize(
                picture[top : top + side, left : left + side],
                (self.size, self.size),
                interpolation=cv2.INTER_AREA,
            )
            if rng.random() < 0.5:
                crop = crop[:, ::-1]
            if rng.random() < 0.25:  # skin alone would teach it few colours
                crop = crop[..., rng.permutation(3)]
            yield {"images": to_tensor(Photometry(rng, 1.0)(np.ascontiguousarray(crop)))[0]}


class FewPerceptual(nn.Module):
    """The perceptual distance of the first few pictures of a batch: the costliest term, at a fraction of its price."""

    def __init__(self, distance: nn.Module, count: int) -> None:
        super().__init__()
        self.distance, self.count = distance, count

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return self.distance(images[: self.count], others[: self.count])


class Latents(Dataset[dict[str, Tensor]]):
    """Training pairs whose pictures were encoded beforehand; kept in memory as float16."""

    def __init__(self, stored: dict[str, Tensor]) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored["emotion"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = {name: values[index] for name, values in self.stored.items()}
        return {name: value.float() if value.is_floating_point() else value for name, value in item.items()}


def corpus(options: argparse.Namespace) -> None:
    """Render people who speak. 5 frames per second: neighbours in time teach little that is new."""
    recipe = SyntheticRecipe(
        identities=options.identities,
        clips_per_identity=1,
        seed=1,
        fps=5,
        size=160,
        max_seconds=3.6,
        val_share=0.02,
        test_share=0.01,
        clips_per_shard=12,
    )
    prepare_synthetic(options.work / "corpus", recipe, options.workers, options.device)
    write_textures(options.work / "textures", num=500, size=160, seed=0)


def keep(options: argparse.Namespace, name: str, folder: Path) -> None:
    """Take over weights and specification that another script wrote into `folder`."""
    torch.save(load_file(folder / f"{name}.safetensors"), options.work / f"{name}.pt")
    (options.work / f"{name}.json").write_text((folder / f"{name}.json").read_text())


def speech(options: argparse.Namespace) -> None:
    """The articulation encoder, distilled from a speech recogniser (see train_speech.py)."""
    folder = options.work / "speech"
    train_speech.prepare(folder, [Path(path) for path in options.recordings], 90, 0)
    seconds = 60 * options.minutes * SHARES["speech"]
    train_speech.train(folder, folder / "speech.safetensors", seconds, 0, bfloat16=True)
    keep(options, "speech", folder)


def landmarks(options: argparse.Namespace) -> None:
    """The network that finds faces and their landmarks (see train_landmarks.py)."""
    folder = options.work / "landmarks"
    folder.mkdir(parents=True, exist_ok=True)
    seconds = 60 * options.minutes * SHARES["landmarks"]
    train_landmarks.train(folder, pictures=10 * options.identities, seconds=seconds, device=options.device)
    keep(options, "landmarks", folder)


def picture_sources(options: argparse.Namespace) -> list[tuple[float, list[np.ndarray]]]:
    """(share, pictures): rendered faces, dead leaves, and the pictures of `--pictures`."""
    frames = Corpus(options.work / "corpus", "train")
    faces = [frames.read_frame(clip, frame) for clip in frames for frame in range(0, clip.num_frames, 3)]
    leaves = [read_image(path) for path in sorted((options.work / "textures").glob("*.png"))]
    sources = [(0.7, faces), (0.2, leaves)]
    own = [read_image(path) for folder in options.pictures for path in sorted(Path(folder).iterdir())]
    return [*sources, (0.1, own)] if own else sources


def trainer(options: argparse.Namespace, name: str, minutes: float, *callbacks: Any) -> pl.Trainer:
    checkpoints = ModelCheckpoint(
        dirpath=options.work / name,
        save_last=True,
        every_n_train_steps=200,
        save_top_k=0,
        save_on_exception=True,
    )
    return pl.Trainer(
        accelerator="cuda" if options.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed",
        max_time=timedelta(minutes=minutes),
        max_epochs=-1,
        callbacks=[checkpoints, *callbacks],
        logger=CSVLogger(options.work / name, name="log", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=20,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


def last(options: argparse.Namespace, name: str) -> str | None:
    path = options.work / name / "last.ckpt"
    return str(path) if path.is_file() else None


def first_stage(options: argparse.Namespace) -> None:
    """Pixels, LPIPS and codebook; then, for the last fifth, a lower rate."""
    network = instantiate(FIRST_STAGE)
    distance = LPIPS("vgg", options.lpips_backbone).to(memory_format=torch.channels_last)
    loss = FirstStageLoss(FewPerceptual(distance, 2), perceptual_weight=0.25)
    crops = Crops(picture_sources(options), size=64, seed=int(time.time()))
    loader = DataLoader(crops, batch_size=8)
    minutes = options.minutes * SHARES["first_stage"]
    for phase, (rate, share) in enumerate(((1e-3, 0.8), (2e-4, 0.2))):
        name = f"first_stage/{phase}"
        module = FirstStageModule(network, loss, learning_rate=rate, betas=(0.9, 0.99), gradient_clip=1.0)
        trainer(options, name, minutes * share).fit(module, loader, ckpt_path=last(options, name))
    latents = torch.cat(
        [network(batch["images"]).latents for batch, _ in zip(loader, range(30), strict=False)]
    )
    flat = latents.detach().double().transpose(0, 1).flatten(1)
    network.set_latent_statistics(flat.mean(1).float(), flat.std(1).float())
    torch.save(network.state_dict(), options.work / "first_stage.pt")


def talking(options: argparse.Namespace) -> None:
    """The latent diffusion model, on pairs that the first stage encoded once; the last fifth at a lower rate."""
    stage = load_part(options, "first_stage", FIRST_STAGE)
    speech_spec = json.loads((options.work / "speech.json").read_text())
    encoder = load_part(options, "speech", speech_spec)
    stored = encoded_pairs(options, stage)
    stored |= {"audio": spoken_windows(options, encoder, stored.pop("clip"), stored.pop("frame"))}
    stored["mask"] = region_weights().expand(len(stored["emotion"]), -1, -1, -1)
    spec = conditioner_spec(int(encoder.feature_dim))  # type: ignore[arg-type]
    network = instantiate(NETWORK)
    conditioner = instantiate(spec)
    loader = DataLoader(Latents(stored), batch_size=32, shuffle=True, drop_last=True)
    minutes = options.minutes * SHARES["talking"]
    if options.start_from:
        network.load_state_dict(torch.load(options.start_from / "network.pt", weights_only=True))
        conditioner.load_state_dict(torch.load(options.start_from / "conditioner.pt", weights_only=True))
    for phase, (rate, share) in enumerate(((5e-4, 0.75), (1e-4, 0.25))):
        name = f"talking/{phase}"
        module = DiffusionModule(
            network,
            stage,
            instantiate(SCHEDULE),
            conditioner,
            prediction_type="velocity",
            timesteps=uniform_timesteps(STEPS, spacing="trailing").tolist(),
            region_weight=8.0,
            learning_rate=rate,
            betas=(0.9, 0.99),
            warmup_steps=100,
        )
        trainer(options, name, minutes * share, EMAWeights(0.998)).fit(
            module, loader, ckpt_path=last(options, name)
        )
    torch.save(network.state_dict(), options.work / "network.pt")
    torch.save(conditioner.state_dict(), options.work / "conditioner.pt")


def pairs(options: argparse.Namespace) -> None:
    """Draw what the diffusion model reads, as pictures: it takes longer than encoding them."""
    folder = options.work / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "numbers.pt").is_file():
        return
    dataset = TalkingDataset(
        Corpus(options.work / "corpus", "train"),
        image_size=IMAGE_SIZE,
        jitter=0.5,
        photometric=0.7,
        guide_error=1.0,
        samples_per_clip=options.pairs_per_clip,
        seed=5,
    )
    shape = (len(dataset), 3, IMAGE_SIZE, IMAGE_SIZE)
    drawn = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape)
        for name in ("target", "reference", "guide")
    }
    numbers: dict[str, list[Tensor]] = {}
    place = 0
    for batch in tqdm(DataLoader(dataset, batch_size=32, num_workers=options.workers), desc="pairs"):
        count = len(batch["target"])
        for name, pictures in drawn.items():
            pictures[place : place + count] = ((batch[name] + 1.0) * 127.5).round().byte().numpy()
        for name in ("emotion", "clip", "frame"):
            numbers.setdefault(name, []).append(batch[name])
        place += count
    for pictures in drawn.values():
        pictures.flush()
    torch.save({name: torch.cat(values) for name, values in numbers.items()}, folder / "numbers.pt")


@torch.no_grad()
def encoded_pairs(options: argparse.Namespace, stage: nn.Module) -> dict[str, Tensor]:
    """Everything the diffusion model reads, by name; computed once and kept in `--work`."""
    path = options.work / "latents.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    folder = options.work / "pairs"
    drawn = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("target", "reference", "guide")}
    hidden = torch.from_numpy(generation_mask(IMAGE_SIZE))
    stored = dict(torch.load(folder / "numbers.pt", weights_only=True))
    columns: dict[str, list[Tensor]] = {}
    with torch.autocast(options.device, torch.bfloat16):
        for start in tqdm(range(0, len(drawn["target"]), 32), desc="encode"):
            images = {
                name: torch.from_numpy(pictures[start : start + 32].copy()).float() / 127.5 - 1.0
                for name, pictures in drawn.items()
            }
            images["masked"] = images["target"] * (1.0 - hidden) - hidden
            latents = stage.encode(torch.cat(list(images.values())).to(options.device)).half().cpu()
            for name, values in zip(images, latents.chunk(len(images)), strict=True):
                columns.setdefault(f"{name}_latents", []).append(values)
    stored |= {name: torch.cat(values) for name, values in columns.items()}
    torch.save(stored, path)
    return stored


def region_weights() -> Tensor:
    """(1, h, w) float16 at the size of the latents: 1 = generated; lips and jaw, which the sound decides, 4."""
    side = IMAGE_SIZE // 4
    mask = torch.from_numpy(generation_mask(IMAGE_SIZE))[None, None]
    mask = nn.functional.interpolate(mask, size=(side, side), mode="area")[0].half()
    top, bottom, left, right = (round(part * side) for part in (0.57, 0.88, 0.3, 0.7))
    mask[:, top:bottom, left:right] *= 4
    return mask


def spoken_windows(options: argparse.Namespace, encoder: nn.Module, clips: Tensor, frames: Tensor) -> Tensor:
    """What a perfect speech encoder would say around each frame: (N, 2 * WINDOW + 1, D) float16.

    The network learns on the exact articulation of the corpus and is driven by the encoder's estimate of it, so that
    a better encoder can be put in without training the network again, and its mistakes are not learned as truth.
    """
    corpus = Corpus(options.work / "corpus", "train")
    columns = [ACTIONS.index(name if name in ACTIONS else f"{name}Left") for name in encoder.actions]  # type: ignore[union-attr]
    mean, std = encoder.mean.numpy(), encoder.std.numpy()  # type: ignore[union-attr]
    offsets = np.arange(-WINDOW, WINDOW + 1) / WINDOW_RATE
    windows = np.zeros((len(clips), len(offsets), len(columns)), np.float16)
    for number in range(len(corpus)):
        rows = np.flatnonzero(clips.numpy() == number)
        clip, meta = corpus.clips[number], corpus.read_meta(corpus.clips[number])
        times = np.array([clip.frame_time(int(frame)) for frame in frames[rows]])[:, None] + offsets
        style = SpeakingStyle.sample(meta["plan"]["person_seed"])
        actions = speech_actions(meta["phonemes"], times.ravel(), style)[:, columns]
        windows[rows] = ((actions - mean) / std).reshape(len(rows), len(offsets), -1)
    return torch.from_numpy(windows)


def pack(options: argparse.Namespace) -> None:
    """Write the bundle from the finished parts."""
    speech_spec = json.loads((options.work / "speech.json").read_text())
    landmarks_spec = json.loads((options.work / "landmarks.json").read_text())
    speech = load_part(options, "speech", speech_spec)
    specs = {
        "first_stage": FIRST_STAGE,
        "network": NETWORK,
        "conditioner": conditioner_spec(int(speech.feature_dim)),  # type: ignore[arg-type]
        "speech": speech_spec,
        "landmarks": landmarks_spec,
    }
    parts = {name: load_part(options, name, spec) for name, spec in specs.items()}
    meta = {
        "licence": "Apache-2.0",
        "image_size": IMAGE_SIZE,
        "schedule": SCHEDULE,
        "prediction_type": "velocity",
        "window": WINDOW,
        "window_rate": WINDOW_RATE,
        "mask": "lower_face",
        "num_inference_steps": STEPS,
        "guidance_scale": {"audio": 2.0},
        "timestep_spacing": "trailing",
        "final_alpha": "one",
        "emotions": list(EMOTIONS),
    }
    card = (
        options.card.read_text() if options.card else "# Model card\n\nTrained by scripts/train_bundle.py.\n"
    )
    save_bundle(options.out, parts, specs, card, meta)


def load_part(options: argparse.Namespace, name: str, spec: dict[str, Any]) -> nn.Module:
    part = instantiate(spec).eval()
    part.load_state_dict(torch.load(options.work / f"{name}.pt", weights_only=True))
    return part


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of everything in between")
    parser.add_argument("--out", type=Path, default=Path("talkface/weights/default"))
    parser.add_argument("--stage", choices=STAGES, nargs="*", default=STAGES)
    parser.add_argument("--minutes", type=float, default=120, help="time for all training together")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="processor threads (0: all)")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    parser.add_argument("--identities", type=int, default=1200)
    parser.add_argument("--pairs-per-clip", type=int, default=16, help="training pairs drawn from each clip")
    parser.add_argument("--card", type=Path, help="model card to put into the bundle")
    parser.add_argument(
        "--start-from", type=Path, help="folder with network.pt and conditioner.pt to go on from"
    )
    parser.add_argument("--recordings", nargs="*", default=[], help="folders of real speech for the encoder")
    parser.add_argument(
        "--pictures", nargs="*", default=[], help="folders of your own pictures for the first stage"
    )
    parser.add_argument(
        "--lpips-backbone", type=Path, help="VGG-16 weights; without it torchvision's are used"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    pl.seed_everything(23)
    for stage in options.stage:
        started = time.monotonic()
        globals()[stage](options)
        print(f"{stage}: {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TalkfaceError as error:
        print(f"train_bundle: error: {error}", file=sys.stderr)
        sys.exit(2)
