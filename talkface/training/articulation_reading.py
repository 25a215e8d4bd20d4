"""A speech encoder is taught by a reader: what it tells is to be read as the exact articulation is.

Equation 5.4 of the thesis, with actions in the place of films: the cosine distance of what a frozen reader makes of
both, beside the error of the actions, and a pull to what the encoder told before. Squared error alone leaves a mean
over ways to say a sound, which moves rightly on the whole and says little.

Only the encoder's last blocks are trained, on what its lower ones heard of many sounds once: a tenth of the price of
whole encoders, and what these know of noise and of voices stays.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.action_reader import ActionReader
from talkface.experts.speech import ArticulationEncoder
from talkface.training.speech import motion_loss

__all__ = ["LastBlocks", "ReadBatch", "heard_below", "reading_distance", "reading_losses"]


@dataclass
class ReadBatch:
    """B sequences of actions with what they say, padded to the longest.

    Attributes:
        actions: (B, T, A) in [0, 1] at 50 Hz; lengths: (B,) frames at 25 Hz that each really has.
        characters, visemes: int64 units of all, one after the other; character_counts, viseme_counts: (B,).
        frame_visemes: (B, T // 2) int64, -100 in padding.
    """

    actions: Tensor
    lengths: Tensor
    characters: Tensor
    character_counts: Tensor
    visemes: Tensor
    viseme_counts: Tensor
    frame_visemes: Tensor


def reading_losses(reader: ActionReader, batch: ReadBatch) -> dict[str, Tensor]:
    """Terms of a reader's training: CTC of characters and visemes, and the viseme of every frame by the same head."""
    said, shown = reader.log_probabilities(batch.actions)
    characters = F.ctc_loss(
        said.transpose(0, 1), batch.characters, batch.lengths, batch.character_counts, zero_infinity=True
    )
    visemes = F.ctc_loss(
        shown.transpose(0, 1), batch.visemes, batch.lengths, batch.viseme_counts, zero_infinity=True
    )
    frames = F.nll_loss(shown.transpose(1, 2), batch.frame_visemes)
    return {"characters": characters, "visemes": 0.5 * visemes, "frames": frames}


def reading_distance(reader: ActionReader, told: Tensor, exact: Tensor) -> Tensor:
    """Mean over frames of 1 - cosine of what the reader makes of actions (B, T, A), and of the exact ones."""
    return (1.0 - F.cosine_similarity(reader.features(told), reader.features(exact), dim=-1)).mean()


@torch.no_grad()
def heard_below(encoder: ArticulationEncoder, sound: Tensor, cut: int) -> Tensor:
    """What the blocks below number `cut` make of sounds (B, samples): (B, T + 2 * reach, channels), silence around."""
    return encoder.below(sound, cut, None, encoder.reach).transpose(1, 2)


class LastBlocks(nn.Module):
    """The blocks of an encoder from number `cut` on, with its head, to be trained.

    Args:
        encoder: started from; not changed.
        cut: number of the first block that is trained, 0 to one less than there are.
        mean, scale: (A,) of the actions: errors are counted in these units.

    Attributes:
        reach: features on each side that an output depends on.

    Raises:
        TalkfaceError: there is no such block.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, encoder: ArticulationEncoder, cut: int, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        if not 0 <= cut < len(encoder.blocks):
            raise TalkfaceError(f"cut: {cut}; allowed 0 to {len(encoder.blocks) - 1}, the encoder's blocks")
        self.cut = cut
        self.blocks = copy.deepcopy(encoder.blocks[cut:]).requires_grad_(True)
        self.norm = copy.deepcopy(encoder.norm).requires_grad_(True)
        self.mouth = copy.deepcopy(encoder.mouth).requires_grad_(True)
        spreads = [layer for layer in self.blocks.modules() if isinstance(layer, nn.Conv1d)]
        self.reach = sum(layer.dilation[0] * (layer.kernel_size[0] // 2) for layer in spreads)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, below: Tensor) -> Tensor:
        """(B, T + 2 * reach, channels) of `heard_below` -> actions (B, T, A), not held to [0, 1]."""
        x = below.transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.mouth(self.norm(x.transpose(1, 2)[:, self.reach : x.shape[-1] - self.reach]))

    def losses(
        self,
        below: Tensor,
        actions: Tensor,
        before: LastBlocks,
        reader: ActionReader | None,
        reading: float = 2.0,
        keep: float = 0.3,
    ) -> dict[str, Tensor]:
        """Terms of a step.

        Args:
            below: see `forward`. actions: (B, T, A) what is to be told.
            before: the same blocks as they were.
            reader: that guides; None: the control, which only learns the actions.
            reading, keep: weights of the reader's distance, and of staying near `before`.

        Returns:
            `motion` (see `motion_loss`), `keep` and, with a reader, `reading`; scalars.
        """
        told = self(below)
        with torch.no_grad():
            old = before(below)
        unit = (told - self.mean) / self.scale
        terms = {
            "motion": motion_loss(unit, (actions - self.mean) / self.scale),
            "keep": keep * motion_loss(unit, (old - self.mean) / self.scale),
        }
        if reader is not None:
            terms["reading"] = reading * reading_distance(reader, told, actions)
        return terms

    @torch.no_grad()
    def put_into(self, encoder: ArticulationEncoder) -> None:
        """Replace the encoder's own last blocks and head."""
        for mine, its in zip(self.blocks, encoder.blocks[self.cut :], strict=True):
            its.load_state_dict(mine.state_dict())
        encoder.norm.load_state_dict(self.norm.state_dict())
        encoder.mouth.load_state_dict(self.mouth.state_dict())
