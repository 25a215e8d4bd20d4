"""Cut a face out of a picture in a canonical position, and put a generated one back without a seam."""

from talkface.portrait.blend import (
    MASK_KINDS,
    ColourMatcher,
    blend_mask,
    colour_ring,
    generation_mask,
    match_colour,
    paste,
)
from talkface.portrait.crop import AlignedCrop, alignment_matrix, random_jitter
from talkface.portrait.smoothing import AlignmentSmoother

__all__ = [
    "MASK_KINDS",
    "AlignedCrop",
    "AlignmentSmoother",
    "ColourMatcher",
    "alignment_matrix",
    "blend_mask",
    "colour_ring",
    "generation_mask",
    "match_colour",
    "paste",
    "random_jitter",
]
