"""Tiny real models and batches for the training modules."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from talkface.conditioning.audio import AudioConditioner
from talkface.conditioning.base import ConditionerSet
from talkface.conditioning.face import EmotionConditioner
from talkface.conditioning.frames import FramesConditioner
from talkface.diffusion.schedule import NoiseSchedule
from talkface.networks.unet import UNet
from talkface.networks.vqgan import VQGAN
from talkface.training.diffusion import DiffusionModule

SIZE = 16


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Pairs(Dataset[dict[str, Tensor]]):
    """Random talking pairs, 24 of them."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(index)
        target = torch.rand(3, SIZE, SIZE, generator=draw) * 2 - 1
        mask = torch.zeros(1, SIZE, SIZE)
        mask[:, SIZE // 2 :] = 1
        return {
            "target": target,
            "images": target,
            "masked": target * (1 - mask) - mask,
            "reference": target.flip(0),
            "mask": mask,
            "audio": torch.randn(5, 6, generator=draw),
            "emotion": torch.tensor(index % 8),
        }


def pairs_loader(batch_size: int = 4) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(Pairs(), batch_size=batch_size)


def tiny_vqgan(**options: object) -> VQGAN:
    return VQGAN(
        channels=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(),
        image_size=SIZE,
        codebook_size=32,
        **options,
    )


def tiny_talking(**options: object) -> DiffusionModule:
    conditioner = ConditionerSet(
        {
            "audio": AudioConditioner(
                feature_dim=6, window=2, mode="tokens", dim=8, embedding_dim=8, drop_rate=0.5
            ),
            "emotion": EmotionConditioner(dim=8, drop_rate=0.5),
            "frames": FramesConditioner(latent_size=SIZE // 2),
        }
    )
    network = UNet(
        in_channels=9,
        out_channels=3,
        model_channels=16,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_downsamples=(2,),
        num_head_channels=8,
        context_dim=8,
        embedding_dim=8,
        image_size=SIZE // 2,
    )
    return DiffusionModule(network, tiny_vqgan(), NoiseSchedule(), conditioner, **options)


@pytest.fixture
def tiny() -> SimpleNamespace:
    """size, loader(batch_size), vqgan(**options), talking(**options)."""
    return SimpleNamespace(size=SIZE, loader=pairs_loader, vqgan=tiny_vqgan, talking=tiny_talking)
