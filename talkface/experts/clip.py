"""CLIP: do a picture and a sentence mean the same? The reference, and a small network of our own with the same role.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021. Both give vectors
of unit length for pictures and sentences; their scalar product says how well they fit. Gradients reach the pictures.
The small one knows rendered faces and the words of `talkface.training.captions`, nothing else of the world.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError, require
from talkface.experts.landmark_network import ConvNorm, LandmarkNetwork, Stage

OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageTextEncoder(nn.Module):
    """The role; `CLIPExpert` and `FaceCLIP` fill it.

    Attributes:
        image_size: side in pixels of what it looks at; other sizes are resized to it.
        dim: length of its vectors.
    """

    image_size: int
    dim: int

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) RGB in [-1, 1], any S -> (B, dim) of unit length, float32, differentiable."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (N, dim) of unit length, float32."""
        raise NotImplementedError


class CLIPExpert(ImageTextEncoder):
    """A published CLIP through `transformers`: its own resizing (bicubic, shorter side), centre crop and statistics.

    What the image processor of `transformers` does with 8-bit pictures, on tensors and with gradients.

    Args:
        name_or_path: folder written by `save_pretrained` (model and tokenizer), or a name on the hub.

    Raises:
        TalkfaceError: `transformers` is not installed, or model or tokenizer cannot be loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name_or_path: str = "openai/clip-vit-base-patch16") -> None:
        super().__init__()
        transformers = require("transformers", extra="finetune")
        try:
            self.model = transformers.CLIPModel.from_pretrained(name_or_path)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name_or_path)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:120]
            raise TalkfaceError(
                f"CLIP: {name_or_path} cannot be loaded ({reason}); give a folder with config.json, model.safetensors "
                "and the tokenizer's files, as published on the Hugging Face hub under openai/clip-vit-base-patch16"
            ) from error
        self.image_size = int(self.model.config.vision_config.image_size)
        self.dim = int(self.model.config.projection_dim)
        mean, std = _statistics(Path(name_or_path))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def prepared(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, image_size, image_size), cropped, in CLIP's statistics."""
        height, width = images.shape[2:]
        factor = self.image_size / min(height, width)
        size = [max(self.image_size, int(side * factor)) for side in (height, width)]
        pictures = (images.float() + 1) / 2
        if size != [height, width]:
            pictures = F.interpolate(
                pictures, size=size, mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 1)
        top, left = (size[0] - self.image_size) // 2, (size[1] - self.image_size) // 2
        pictures = pictures[:, :, top : top + self.image_size, left : left + self.image_size]
        return (pictures - self.mean) / self.std

    def encode_images(self, images: Tensor) -> Tensor:
        seen = self.model.vision_model(pixel_values=self.prepared(images)).pooler_output
        return F.normalize(self.model.visual_projection(seen).float(), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        limit = int(self.model.config.text_config.max_position_embeddings)
        read = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        read = {name: read[name].to(self.mean.device) for name in ("input_ids", "attention_mask")}
        said = self.model.text_model(**read).pooler_output
        return F.normalize(self.model.text_projection(said).float(), dim=-1)

    def train(self, mode: bool = True) -> CLIPExpert:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)


def _statistics(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of a model's own processor, or those of OpenAI's models."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return OPENAI_MEAN, OPENAI_STD
    read = json.loads(file.read_text())
    return read.get("image_mean", OPENAI_MEAN), read.get("image_std", OPENAI_STD)


class FaceCLIP(ImageTextEncoder):
    """A small CLIP for faces: a convolutional network for pictures, a transformer over whole words for sentences.

    The first three stages of the picture network are those of `LandmarkNetwork` and start from its weights. Trained by
    `talkface.training.clip`.

    Args:
        vocabulary: the words it knows, lower case; all others share one vector.
        channels: widths at 1/2, 1/4, 1/8 and 1/16 of the picture.
        blocks: residual blocks at each of these resolutions.
        dim: length of the common vectors.
        text_dim, text_layers: width and depth of the transformer.
        max_words: longer sentences are cut.
        image_size: side of the pictures in pixels, divisible by 16.
    """

    def __init__(
        self,
        *,
        vocabulary: Sequence[str],
        channels: tuple[int, int, int, int] = (20, 40, 80, 128),
        blocks: tuple[int, int, int, int] = (0, 1, 2, 2),
        dim: int = 128,
        text_dim: int = 128,
        text_layers: int = 2,
        max_words: int = 32,
        image_size: int = 128,
    ) -> None:
        super().__init__()
        self.image_size, self.dim, self.max_words = image_size, dim, max_words
        # 0 fills up short sentences, 1 is every unknown word
        self._numbers = {word: number for number, word in enumerate(vocabulary, start=2)}
        a, b, c, d = channels
        self.stem = Stage(3, a, blocks[0])
        self.quarter = Stage(a, b, blocks[1])
        self.eighth = Stage(b, c, blocks[2])
        self.sixteenth = Stage(c, d, blocks[3])
        # where in the face something is matters: pooled to 4 x 4, not to one place
        self.squeeze = nn.Sequential(
            ConvNorm(d, 32, kernel=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
        )
        self.visual_projection = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(32 * 16, 256), nn.ReLU(), nn.Linear(256, dim)
        )
        self.words = nn.Embedding(len(vocabulary) + 2, text_dim, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(max_words, text_dim))
        layer = nn.TransformerEncoderLayer(
            text_dim, nhead=max(1, text_dim // 32), dim_feedforward=2 * text_dim, dropout=0.0, activation="gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.sentences = nn.TransformerEncoder(layer, text_layers, enable_nested_tensor=False)
        self.text_projection = nn.Linear(text_dim, dim)
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # of the logits in training: 14.3, as in the paper
        nn.init.normal_(self.words.weight, std=0.5)

    def start_from(self, landmarks: LandmarkNetwork) -> None:
        """Take over the stages that both have; their widths must be equal."""
        for name in ("stem", "quarter", "eighth"):
            getattr(self, name).load_state_dict(getattr(landmarks, name).state_dict())

    def encode_images(self, images: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        if images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        seen = self.sixteenth(self.eighth(self.quarter(self.stem(images))))
        return F.normalize(self.visual_projection(self.squeeze(seen)).float(), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        numbers = self.tokenize(texts).to(self.places.device)
        known = numbers > 0
        x = self.words(numbers) + self.places[: numbers.shape[1]]
        x = self.sentences(x, src_key_padding_mask=~known)
        weight = known.to(x.dtype)[..., None]
        return F.normalize(self.text_projection((x * weight).sum(1) / weight.sum(1)).float(), dim=-1)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (N, L) int64 numbers of words, filled up with 0; an empty sentence is one unknown word."""
        lines = [words_of(text)[: self.max_words] or [""] for text in texts]
        out = torch.zeros(len(lines), max((len(line) for line in lines), default=1), dtype=torch.long)
        for row, line in enumerate(lines):
            out[row, : len(line)] = torch.tensor([self._numbers.get(word, 1) for word in line])
        return out


def words_of(text: str) -> list[str]:
    """Lower-case words; hyphens and punctuation separate."""
    return re.findall(r"[a-z]+", text.lower())
