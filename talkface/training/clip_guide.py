"""What finetuning asks for, term by term: the expression of CLIP's texts, the person, the picture.

The thesis's section 4.5.2, eq. 4.22: lambda_dir L*_dir + lambda_id L_id + lambda_l2 |x - x_src|^2, each source label
with its own direction to the target, which is 36 directions. Experts are frozen and are not saved with what they guide;
their fingerprints are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.clip import ImageTextEncoder
from talkface.experts.prompts import GUIDING_PROMPTS, TEMPLATES, directions, text_features
from talkface.experts.registry import fingerprint, load_expert
from talkface.losses.expert import directional_loss, identity_loss, pixel_loss

TERMS = ("direction", "identity", "pixels")


class ClipGuide(nn.Module):
    """The terms of an edited batch.

    Args:
        clip: an `ImageTextEncoder`, or the `.safetensors` of one that `scripts/train_expert.py` made.
        recogniser: a differentiable `FaceRecogniser`, alike; None: nobody asks for the person.
        direction_weight, identity_weight, pixel_weight: the thesis's 2, 1, 1.
        pixel_power: 2 the thesis's squares, 1 DiffusionCLIP's absolute differences.
        prompts: one for each emotion, in the order of their ids. Two emotions of the same prompt are one to CLIP: the
            thesis says "face" of neutral and of contempt.
        templates: "plain", or "imagenet" for the mean over 79 sentences.

    Raises:
        TalkfaceError: unknown templates, an expert of another role, a recogniser without gradients.
    """

    def __init__(
        self,
        clip: nn.Module | str,
        recogniser: nn.Module | str | None = None,
        *,
        direction_weight: float = 2.0,
        identity_weight: float = 1.0,
        pixel_weight: float = 1.0,
        pixel_power: int = 2,
        prompts: Sequence[str] = GUIDING_PROMPTS,
        templates: str = "plain",
    ) -> None:
        super().__init__()
        clip = load_expert(clip) if isinstance(clip, str) else clip
        person: nn.Module | None = load_expert(recogniser) if isinstance(recogniser, str) else recogniser
        if not isinstance(clip, ImageTextEncoder):
            raise TalkfaceError(
                f"clip: {type(clip).__name__}; allowed is an ImageTextEncoder of talkface.experts.clip"
            )
        if person is not None and not getattr(person, "differentiable", False):
            raise TalkfaceError(
                f"recogniser: {type(person).__name__} gives no gradients; allowed are ArcFaceRecogniser and what "
                "scripts/train_expert.py identity makes, or null"
            )
        if templates not in TEMPLATES:
            raise TalkfaceError(f"templates: '{templates}'; allowed: {', '.join(TEMPLATES)}")
        self.clip: ImageTextEncoder = clip.eval().requires_grad_(False)
        self.recogniser = None if person is None else person.eval().requires_grad_(False)
        self.weights = dict(zip(TERMS, (direction_weight, identity_weight, pixel_weight), strict=True))
        self.pixel_power, self.prompts, self.templates = pixel_power, tuple(prompts), templates
        self._directions: Tensor | None = None

    def train(self, mode: bool = True) -> ClipGuide:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    def fingerprints(self) -> list[str]:
        """Of the experts, so that none of them judges what it guided."""
        return [fingerprint(expert) for expert in (self.clip, self.recogniser) if expert is not None]

    def directions(self, device: torch.device) -> Tensor:
        """(emotions, emotions, D), row the source, column the target, computed once; zero where both read the same."""
        if self._directions is None or self._directions.device != device:
            features = text_features(self.clip, self.prompts, TEMPLATES[self.templates])
            self._directions = directions(features).to(device)
        return self._directions

    def forward(self, edited: Tensor, source: Tensor, sources: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The terms, not weighted, (B,) each.

        Args:
            edited, source: (B, 3, S, S) in [-1, 1], canonical crops: recognisers cut the face out of them by the places
                that eyes, nose and mouth have there.
            sources, targets: (B,) emotions.
        """
        # in single precision: what counts is a small difference of what CLIP says of two pictures
        with torch.autocast(edited.device.type, enabled=False):
            return self._terms(edited.float(), source.float(), sources, targets)

    def _terms(self, edited: Tensor, source: Tensor, sources: Tensor, targets: Tensor) -> dict[str, Tensor]:
        told = self.directions(edited.device)[sources, targets]
        with torch.no_grad():
            before = self.clip.encode_images(source)
            person = None if self.recogniser is None else self.recogniser(source)
        terms = {"direction": directional_loss(self.clip.encode_images(edited), before, told)}
        if self.recogniser is not None and person is not None:
            terms["identity"] = identity_loss(self.recogniser(edited), person)
        terms["pixels"] = pixel_loss(edited, source, self.pixel_power)
        return terms

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted mean over the batch."""
        return torch.stack([self.weights[name] * value.mean() for name, value in terms.items()]).sum()
