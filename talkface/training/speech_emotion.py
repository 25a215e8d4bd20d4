"""Training of the articulation encoder's emotion branch: the rest of the encoder is left as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.speech import ArticulationEncoder
from talkface.training.speech import motion_loss

__all__ = ["EmotionTraining"]


class EmotionTraining(nn.Module):
    """Loss of the branch on what the frozen encoder heard.

    Args:
        encoder: with a branch; only that is trained.
        scale: (A,) spread of each of the branch's actions over the training set.

    Raises:
        TalkfaceError: the encoder has no branch.
    """

    scale: Tensor

    def __init__(self, encoder: ArticulationEncoder, scale: Tensor) -> None:
        super().__init__()
        if encoder.branch is None:
            raise TalkfaceError("emotion training: the encoder has no branch; build it with branch=...")
        self.encoder = encoder.eval().requires_grad_(False)
        self.branch = encoder.branch.train().requires_grad_(True)
        self.register_buffer("scale", scale)

    def forward(self, hidden: Tensor, emotion: Tensor, intensity: Tensor, actions: Tensor) -> Tensor:
        """The loss: how far the mouth is from that of the speaking emotional face (`motion_loss`, in units of `scale`).

        Args:
            hidden: (B, T, channels), see `ArticulationEncoder.hidden`.
            emotion, intensity: (B,) number in the branch; 0 to 1.
            actions: (B, T, A) wanted, those of the branch.
        """
        told = self.predict(hidden, emotion, intensity)
        return motion_loss(told / self.scale, actions / self.scale)

    def predict(self, hidden: Tensor, emotion: Tensor, intensity: Tensor) -> Tensor:
        """(B, T, A) the branch's actions as `EmotionalSpeech` tells them, without bounds."""
        with torch.no_grad():
            own = self.encoder.amplified(self.encoder.told(hidden), 1.0)
            spoken = self.encoder.to_actions(own, self.branch.actions)
        told = self.encoder.felt(hidden, emotion)
        return spoken + self.branch.change(told, intensity[:, None].expand(told.shape[:2]))
