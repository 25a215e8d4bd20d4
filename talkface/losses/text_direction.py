"""The direction in CLIP's space from one description to another, of one sentence each or of a template ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.errors import TalkfaceError

PLAIN = ("{}",)
_A_PHOTO_OF = (
    *(
        "the hard to see {}",
        "a hard to see {}",
        "a clean {}",
        "a dirty {}",
        "my {}",
        "the cool {}",
        "the dirty {}",
    ),
    *("the {}", "one {}", "a {}", "the clean {}", "a large {}", "a nice {}", "a weird {}", "the nice {}"),
    *("the small {}", "the weird {}", "the large {}", "a cool {}", "a small {}"),
)
_PHOTOS = ("bad", "low resolution", "cropped", "bright", "dark", "close-up", "black and white", "pixelated")
_PHOTOS += ("jpeg corrupted", "blurry", "good")
_ARTS = ("sculpture", "rendering", "tattoo", "drawing", "painting", "doodle", "sketch", "rendition")
_THINGS = (
    "embroidered {}",
    "plastic {}",
    "origami {}",
    "toy {}",
    "cartoon {}",
    "plushie {}",
    "{} in a video game",
)
TEMPLATES = (
    *(f"a photo of {what}." for what in _A_PHOTO_OF),
    *(f"a {kind} photo of {which} {{}}." for kind in _PHOTOS for which in ("a", "the")),
    *(f"a {kind} of {which} {{}}." for kind in _ARTS for which in ("a", "the")),
    *(f"{kind} of {which} {{}}." for kind in ("graffiti", "art") for which in ("a", "the")),
    *(f"{which} {what}." for what in _THINGS for which in ("a", "the")),
    *(f"itap of {which} {{}}." for which in ("a", "the", "my")),
)
"""The 79 sentences of the thesis and of DiffusionCLIP: CLIP's 80 for ImageNet without "a photo of many {}."."""


def text_direction(
    encode_texts: Callable[[Sequence[str]], Tensor],
    source: str,
    target: str,
    templates: Sequence[str] = PLAIN,
) -> Tensor:
    """(D,) of unit length, from `source` to `target`.

    As the thesis has it: of every template the difference of the two sentences' unit vectors, and of these the mean.

    Args:
        encode_texts: N sentences -> (N, D) of unit length.
        templates: sentences with one `{}`: `PLAIN` or `TEMPLATES`.

    Raises:
        TalkfaceError: CLIP hears the same in both, so that there is no direction.
    """
    with torch.no_grad():
        texts = [template.format(text) for text in (source, target) for template in templates]
        one, other = encode_texts(texts).float().chunk(2)
        difference = (other - one).mean(0)
    if float(difference.norm()) < 1e-6:
        raise TalkfaceError(
            f"prompts: {source!r} and {target!r} are the same to this CLIP; allowed are two that it tells apart"
        )
    return F.normalize(difference, dim=0)


def direction_table(
    encode_texts: Callable[[Sequence[str]], Tensor],
    prompts: Mapping[int, str],
    targets: Sequence[int],
    templates: Sequence[str] = PLAIN,
) -> dict[tuple[int, int], Tensor]:
    """Directions by (source, target), computed once for a whole training; sources of equal prompts share theirs.

    Args:
        prompts: by label; targets: labels that are edited to. A source that reads like the target has no entry.
    """
    made: dict[tuple[str, str], Tensor] = {}
    table = {}
    for source, before in prompts.items():
        for target in targets:
            if (after := prompts[target]) == before:
                continue
            if (before, after) not in made:
                made[before, after] = text_direction(encode_texts, before, after, templates)
            table[source, target] = made[before, after]
    return table
