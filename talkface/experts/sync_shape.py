"""Lips against sound without a picture: the gap between the lips that is seen and the one that is heard.

Landmarks tell how far the lips are apart in every frame; the articulation encoder of a bundle, which learnt from
recordings of people, tells facial actions from the sound, and the parametric head tells how far those part the lips.
Both curves are correlated at every offset. There is nothing to train, and nothing that was learnt from rendered
pixels; the price is that only the opening counts: where a mouth hardly moves, it knows little.
"""

from __future__ import annotations

import torch
from torch import Tensor

from talkface.errors import TalkfaceError
from talkface.experts.speech_articulation import ArticulationEncoder
from talkface.experts.sync_offset import MAX_OFFSET, SyncReading, read_curve

GAP_OF_ACTIONS = {
    "jawOpen": 0.377,
    "mouthClose": -0.378,
    "mouthFunnel": 0.131,
    "mouthUpperUp": 0.058,
    "mouthLowerDown": 0.047,
    "mouthShrugLower": -0.051,
    "mouthRollLower": -0.038,
    "mouthRollUpper": -0.030,
    "mouthSmile": -0.031,
    "mouthPress": -0.029,
    "jawForward": 0.016,
    "cheekPuff": -0.011,
    "mouthPucker": -0.010,
    "mouthStretch": 0.005,
}
"""How much each action, at 1 and on both sides, parts the inner lips of `talkface.head`'s mean head, in distances of
the outer eye corners."""
_UPPER, _LOWER = (61, 62, 63), (67, 66, 65)


def seen_gap(landmarks: Tensor) -> Tensor:
    """Gap of the inner lips along the face, in distances of the outer eye corners: (T, 68, 2) -> (T,)."""
    along = landmarks[:, 42:48].mean(1) - landmarks[:, 36:42].mean(1)
    along = along / along.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    down = torch.stack([-along[:, 1], along[:, 0]], dim=-1)
    parted = (landmarks[:, _LOWER] - landmarks[:, _UPPER]).mean(1)
    # of the whole clip: eyes that are found a little too wide in one frame do not open the mouth
    size = (landmarks[:, 45] - landmarks[:, 36]).norm(dim=-1).median()
    return (parted * down).sum(-1) / size.clamp(min=1e-6)


class ShapeSync:
    """A sync expert that looks at landmarks.

    Args:
        speech: the articulation encoder of a bundle.

    Raises:
        TalkfaceError: the encoder does not tell how far the jaw opens.
    """

    name = "shape"

    def __init__(self, speech: ArticulationEncoder) -> None:
        if "jawOpen" not in getattr(speech, "actions", ()):
            raise TalkfaceError(
                f"sync: a sound encoder of kind {type(speech).__name__} does not tell facial actions; "
                "give a bundle with an ArticulationEncoder, such as 'default'"
            )
        self.speech = speech.eval().requires_grad_(False)

    @torch.no_grad()
    def heard_gap(self, samples: Tensor, rate: int) -> Tensor:
        """Gap that the sound tells, (n,) -> (T,), 50 a second."""
        if rate != self.speech.sample_rate:
            import torchaudio

            samples = torchaudio.functional.resample(samples, rate, self.speech.sample_rate)
        features = self.speech.encode_long(samples)
        names = [name for name in GAP_OF_ACTIONS if name in self.speech.actions]
        weights = torch.tensor([GAP_OF_ACTIONS[name] for name in names])
        return self.speech.to_actions(features, names) @ weights.to(features)

    def read(
        self,
        landmarks: Tensor,
        samples: Tensor,
        rate: int,
        fps: float = 25.0,
        max_offset: int = MAX_OFFSET,
    ) -> SyncReading:
        """Judge a clip.

        Args:
            landmarks: (T, 68, 2) in pixels, iBUG order.
            samples: (n,) mono in [-1, 1], the sound of these frames; rate: its sample rate.
            fps: of the landmarks; any.
            max_offset: frames.

        Returns:
            What was found; distances are 1 - correlation, offsets are frames of `fps`.
        """
        seen = seen_gap(landmarks.float())
        heard = self.heard_gap(samples, rate)
        return read_curve(correlations(seen, heard, fps, self.speech.feature_rate, max_offset))


def correlations(
    seen: Tensor, heard: Tensor, fps: float, rate: float, max_offset: int, least: float = 0.5
) -> Tensor:
    """1 - Pearson's correlation of two curves at the offsets -M ... M.

    Args:
        seen: (T,) at `fps`; heard: (n,) at `rate`; frame k of either is centred at (k + 0.5) / its rate.
        least: share of the frames that must have sound at an offset for it to be considered.

    Returns:
        (2 M + 1,); nan where too few frames have sound. A curve that does not move has correlation 0.
    """
    places = torch.arange(len(seen), device=seen.device)
    curve = torch.full((2 * max_offset + 1,), torch.nan)
    for index, late in enumerate(range(-max_offset, max_offset + 1)):
        at = (places + 0.5 + late) / fps * rate - 0.5
        inside = (at >= -0.5) & (at <= len(heard) - 0.5)
        if int(inside.sum()) < max(3, least * len(seen)):
            continue
        at = at[inside].clamp(0, len(heard) - 1)
        low = at.long().clamp(max=max(0, len(heard) - 2))
        high = (low + 1).clamp(max=len(heard) - 1)
        told = torch.lerp(heard[low], heard[high], (at - low).to(heard.dtype))
        a, b = seen[inside] - seen[inside].mean(), told - told.mean()
        lengths = a.norm() * b.norm()
        curve[index] = 1 - float((a @ b) / lengths) if float(lengths) > 1e-6 else 1.0
    return curve
