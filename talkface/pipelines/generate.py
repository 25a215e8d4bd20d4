"""Faces from nothing but an emotion: the class-conditional latent diffusion model of arXiv 2308.03183, section 4.2.

Picture k of an emotion is a function of seed, emotion and k alone: its noise is drawn for it, and every network call
holds exactly `group` pictures (the last one is filled with copies), because kernels round differently at other batch
sizes. So pictures can be asked for in any order, some now and some later, and come out the same.

What a bundle must have: `first_stage`, `network`, `conditioner` (told an emotion, and perhaps facial actions) and, in
`meta`, `image_size`, `schedule`, `prediction_type`; it may say `emotions` (names in the order of their ids),
`num_inference_steps`, `guidance_scale`, `timestep_spacing`, `final_alpha`. A bundle that does other things, too, has
network and conditioner as `emotion_network` and `emotion_conditioner`, and what is said of them in
`meta["emotion_model"]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from talkface import __version__
from talkface.errors import TalkfaceError, check_range
from talkface.head.emotions import EMOTIONS
from talkface.media import to_uint8
from talkface.pipelines.device import autocast, choose_device, choose_precision, fast_layout
from talkface.pipelines.expression import nobody
from talkface.pipelines.sampling import LatentSampler, frame_generator

if TYPE_CHECKING:
    from talkface.checkpoint import Bundle

GROUP_PICTURES = {"cpu": 8, "mps": 8, "cuda": 64}


class EmotionPipeline:
    """Makes faces that show an emotion.

    Args:
        bundle: see above.
        precision: "auto", "fp32", "bf16", "fp16".
        group: pictures in each network call; None = 8 on the CPU, 64 on CUDA. Another value may change the last bit.

    Attributes:
        emotions: the names it knows, in the order of their ids.

    Raises:
        TalkfaceError: the bundle does not make faces from an emotion alone.
    """

    def __init__(self, bundle: Bundle, precision: str = "auto", group: int | None = None) -> None:
        shared = "emotion_network" in bundle.parts
        prefix = "emotion_" if shared else ""
        self.meta: Mapping[str, Any] = (
            bundle.meta | bundle.meta.get("emotion_model", {}) if shared else bundle.meta
        )
        self.bundle, self.device = bundle, bundle.device
        self.conditioner = bundle.part(f"{prefix}conditioner")
        asked = sorted(self.conditioner.conditioners)
        # a model that may also be told facial actions, or shown a person, is told none here
        if "emotion" not in asked or set(asked) - {"emotion", "actions", "frames"}:
            raise TalkfaceError(
                f"the bundle {bundle.folder} makes no faces from an emotion: its network is told {', '.join(asked)}; "
                "allowed is a model that is told an emotion and nothing else; give one with --bundle or --checkpoint"
            )
        self.dtype = choose_precision(precision, bundle.device)
        coder = bundle.part("first_stage")
        self.first_stage: Any = fast_layout(coder)
        self.network = fast_layout(bundle.part(f"{prefix}network"))
        from talkface.checkpoint import instantiate

        self.schedule = instantiate(self._value("schedule"))
        size = int(self._value("image_size")) // int(coder.downsample_factor)
        self.shape = (int(coder.latent_channels), size, size)
        count = self.conditioner.conditioners["emotion"].num_classes
        self.emotions: list[str] = list(self.meta.get("emotions") or EMOTIONS[:count])
        if len(self.emotions) != count:
            raise TalkfaceError(
                f"the bundle {bundle.folder} has {count} emotions and {len(self.emotions)} names for them; "
                "save it again with one name each"
            )
        self.group = group or GROUP_PICTURES.get(bundle.device.type, 8)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        device: str | torch.device = "auto",
        precision: str = "auto",
    ) -> EmotionPipeline:
        """Load a bundle by name or path; of what it holds, only what is needed here.

        Raises:
            TalkfaceError: it is unknown or damaged, or knows no emotions.
        """
        from talkface.checkpoint import bundle_folder, load_bundle, read_description

        chosen = choose_device(device)
        choose_precision(precision, chosen)
        known = read_description(bundle_folder(name_or_path))["parts"]
        prefix = "emotion_" if "emotion_network" in known else ""
        parts = ["first_stage", f"{prefix}network", f"{prefix}conditioner"]
        return cls(load_bundle(name_or_path, chosen, parts=parts), precision)

    def _value(self, name: str) -> Any:
        if name not in self.meta:
            raise TalkfaceError(
                f"bundle {self.bundle.folder}: '{name}' is missing in meta; save it again with it"
            )
        return self.meta[name]

    def settings(
        self, num_inference_steps: int | None, guidance_scale: float | None, eta: float, seed: int
    ) -> dict[str, Any]:
        """Everything that decides a picture besides its emotion and number, with the bundle's own values filled in.

        Raises:
            TalkfaceError: a value is out of range.
        """
        given = self.meta.get("guidance_scale", 1.0)
        default = given.get("emotion", 1.0) if isinstance(given, Mapping) else given
        steps = (
            int(self.meta.get("num_inference_steps", 50))
            if num_inference_steps is None
            else num_inference_steps
        )
        scale = float(default if guidance_scale is None else guidance_scale)
        check_range("num_inference_steps", steps, 1, self.schedule.num_train_timesteps)
        check_range("guidance_scale", scale, 0, 50)
        check_range("eta", eta, 0, 1)
        check_range("seed", seed, 0, 2**63 - 1)
        from talkface.data.features import encoder_key

        return {
            "generator": f"talkface {__version__}",
            "model": encoder_key(nn.ModuleList([self.network, self.conditioner, self.first_stage])).split(
                "-"
            )[-1],
            "precision": str(self.dtype).removeprefix("torch."),
            "num_inference_steps": steps,
            "guidance_scale": scale,
            "eta": float(eta),
            "seed": seed,
        }

    def index(self, emotion: str | int) -> int:
        """The id of an emotion. Raises: TalkfaceError when it is unknown."""
        found = self.emotions.index(emotion) if emotion in self.emotions else emotion
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < len(self.emotions):
            raise TalkfaceError(
                f"emotion: {emotion}; allowed are {', '.join(self.emotions)} (or 0 to {len(self.emotions) - 1})"
            )
        return found

    def __call__(
        self,
        wanted: Sequence[tuple[str | int, int]],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        eta: float = 1.0,
        seed: int = 0,
    ) -> Iterator[np.ndarray]:
        """Pictures (S, S, 3) uint8 RGB, one for each of `wanted`, in that order.

        Args:
            wanted: (emotion, number of the picture) pairs; emotions by name or id, numbers from 0.
            num_inference_steps: 1 to 1000; None = the bundle's, else 50. The thesis: 500.
            guidance_scale: 0 (as if no emotion were given), 1 (no guidance; half the work) and above; None = the
                bundle's, else 1.
            eta: 0 (deterministic) to 1 (the thesis).
            seed: the same seed gives the same pictures.

        Raises:
            TalkfaceError: an unknown emotion, or a value out of range.
        """
        settings = self.settings(num_inference_steps, guidance_scale, eta, seed)
        labels = [self.index(emotion) for emotion, _ in wanted]
        for _, number in wanted:
            check_range("number of the picture", number, 0, 2**31)
        sampler = LatentSampler(
            self.network,
            self.conditioner,
            self.schedule,
            str(self.meta.get("prediction_type", "epsilon")),
            settings["num_inference_steps"],
            {"emotion": settings["guidance_scale"]},
            eta=settings["eta"],
            spacing=str(self.meta.get("timestep_spacing", "leading")),
            final_alpha=str(self.meta.get("final_alpha", "first")),
        )
        return self._pictures(sampler, labels, [number for _, number in wanted], seed)

    def _pictures(
        self, sampler: LatentSampler, labels: list[int], numbers: list[int], seed: int
    ) -> Iterator[np.ndarray]:
        for start in range(0, len(labels), self.group):
            some = list(
                zip(labels[start : start + self.group], numbers[start : start + self.group], strict=True)
            )
            filled = some + some[-1:] * (self.group - len(some))
            with torch.inference_mode(), autocast(self.device, self.dtype):
                draws = [
                    [frame_generator(seed, number, f"{purpose} {label}") for label, number in filled]
                    for purpose in ("start", "steps")
                ]
                noise = torch.stack([torch.randn(self.shape, generator=generator) for generator in draws[0]])
                batch = {"emotion": torch.tensor([label for label, _ in filled], device=self.device)}
                if "frames" in self.conditioner.conditioners:
                    batch |= nobody(self.conditioner.conditioners["frames"], self.group, self.device)
                latents = sampler(noise.to(self.device), batch, generator=draws[1])
                images = to_uint8(self.first_stage.decode(latents).float())
            yield from images[: len(some)]
