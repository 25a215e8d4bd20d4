"""Sentences for CLIP: prompts of emotions, the templates that they are put into, directions between them.

A direction is the difference of two prompts' vectors. With templates it is the mean of the differences within each
template, brought to unit length, as in StyleGAN-NADA (Gal et al., "StyleGAN-NADA: CLIP-guided domain adaptation of
image generators", SIGGRAPH 2022) and in the thesis. The templates are those that OpenAI published for ImageNet, less
"a photo of many {}.": 79.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.errors import TalkfaceError
from talkface.experts.clip import ImageTextEncoder
from talkface.experts.registry import fingerprint

# in the order of AffectNet's labels
EMOTION_PROMPTS = (
    "neutral face", "happy face", "sad face", "surprised face", "scared face", "disgusted face", "angry face",
    "contemptuous face",
)  # fmt: skip
"""One prompt per emotion, to tell all eight apart."""
GUIDING_PROMPTS = (
    "face", "happy face", "sad face", "surprised face", "scared face", "disgusted face", "angry face", "face",
)  # fmt: skip
"""The thesis's: nothing is said of neutral faces, and contempt counts as neutral."""
PLAIN = ("{}",)
"""No template."""


def _templates() -> Iterator[str]:
    for kind in (
        "bad", "low resolution", "bright", "cropped", "dark", "pixelated", "jpeg corrupted", "blurry", "good",
        "close-up", "black and white",
    ):  # fmt: skip
        yield from (f"a {kind} photo of {article} {{}}." for article in ("a", "the"))
    for kind in ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small"):
        yield from (f"a photo of {article} {kind} {{}}." for article in ("a", "the"))
    yield from (f"a photo of {article} {{}}." for article in ("a", "the", "my", "one"))
    for medium in (
        "sculpture",
        "rendering",
        "tattoo",
        "drawing",
        "painting",
        "doodle",
        "sketch",
        "rendition",
    ):
        yield from (f"a {medium} of {article} {{}}." for article in ("a", "the"))
    for medium in ("graffiti", "art"):
        yield from (f"{medium} of {article} {{}}." for article in ("a", "the"))
    for stuff in ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie"):
        yield from (f"{article} {stuff} {{}}." for article in ("a", "the"))
    yield from (f"{article} {{}} in a video game." for article in ("a", "the"))
    yield from (f"itap of {article} {{}}." for article in ("a", "the", "my"))


IMAGENET_TEMPLATES = tuple(_templates())
TEMPLATES = {"plain": PLAIN, "imagenet": IMAGENET_TEMPLATES}


@torch.no_grad()
def text_features(
    encoder: ImageTextEncoder,
    prompts: Sequence[str],
    templates: Sequence[str] = PLAIN,
    cache: str | Path | None = None,
) -> Tensor:
    """Vectors of every prompt in every template: (len(prompts), len(templates), dim), each of unit length.

    Args:
        templates: sentences with `{}` in them.
        cache: folder for the result; a file's name is the hash of expert, prompts and templates, so another expert or
            another wording is computed anew.

    Raises:
        TalkfaceError: a template without `{}`; a file of the cache with other sizes than the expert's.
    """
    for template in templates:
        if "{}" not in template:
            raise TalkfaceError(f"template {template!r}: it has no {{}}, where the prompt belongs")
    shape = (len(prompts), len(templates), encoder.dim)
    file = None
    if cache is not None:
        words = "\n".join([fingerprint(encoder), *prompts, "", *templates])
        file = Path(cache) / f"text-{hashlib.sha256(words.encode()).hexdigest()[:16]}.safetensors"
        if file.is_file():
            return read_text_features(file, shape)
    sentences = [template.format(prompt) for prompt in prompts for template in templates]
    parts = [encoder.encode_texts(sentences[k : k + 128]) for k in range(0, len(sentences), 128)]
    features = torch.cat(parts).view(shape)
    if file is not None:
        from safetensors.torch import save_file

        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        save_file({"features": features.cpu().contiguous()}, partial)
        partial.replace(file)
    return features


def read_text_features(file: str | Path, shape: tuple[int, int, int]) -> Tensor:
    """A file that `text_features` wrote.

    Raises:
        TalkfaceError: it cannot be read, or holds another number of prompts or templates or another dimension.
    """
    from safetensors.torch import load_file

    try:
        features = load_file(file)["features"]
    except Exception as error:  # safetensors has a class of its own
        raise TalkfaceError(f"text features {file} cannot be read ({error}); delete the file") from error
    if tuple(features.shape) != shape:
        raise TalkfaceError(
            f"text features {file}: {tuple(features.shape)} (prompts, templates, dimension), but the CLIP expert gives "
            f"{shape}; use the expert that wrote the file, or delete it"
        )
    return features


def text_direction(source: Tensor, target: Tensor) -> Tensor:
    """(T, dim) vectors of two prompts in T templates -> (dim,) direction from source to target, of unit length.

    Where both prompts are the same the direction is zero.
    """
    return F.normalize((target - source).mean(dim=0), dim=0)


def directions(features: Tensor) -> Tensor:
    """(N, T, dim) of `text_features` -> (N, N, dim) of unit length: row the source, column the target; 0 if equal."""
    mean = features.mean(dim=1)
    return F.normalize(mean[None, :] - mean[:, None], dim=-1)
