"""Lip readers: what does this mouth say? The class of the public models, and small bundled ones of the same parts.

A reader sees a film's mouths as `talkface.experts.mouth_crop` cuts them, 88 x 88 pixels, grey, in [0, 1], 25 a second,
and says how likely every unit of its vocabulary is in every frame (connectionist temporal classification, Graves et
al., ICML 2006; unit 0 is the blank). The public models of Ma, Petridis & Pantic (Conv3D, ResNet-18, 12 conformer
blocks, CTC and an attention decoder over 5,049 sentence pieces) are read by `talkface.importers.auto_avsr`. The
bundled ones read characters and visemes of rendered people, trained by `talkface.training.lipreading`; what they are
worth is in docs/results/experts.md.

As a loss, a reader gives features of sequences. The thesis this package succeeds fed single frames in [-1, 1] to the
front end of the public model (`frame_features`); values outside [0, 1] are an error here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.experts.conformer import POSITIONS, AttentionDecoder, Conformer, TemporalConvolution
from talkface.experts.lip_frontend import LipFrontEnd

BLANK = "<blank>"
ENCODERS = ("conformer", "convolution")
SLACK = 1e-3  # interpolation may leave the range by rounding


class LipReader(nn.Module):
    """Mouths to features, probabilities and text. Defaults: the public models.

    Args:
        vocabulary: units by id; the first is the blank. An attention decoder begins and ends with the last one.
        visemes: names of viseme classes by id, the first the blank, for a second CTC head; empty: none.
        channels, blocks, activation: see `LipFrontEnd`.
        encoder: "conformer", or "convolution": dilated convolutions over time.
        dim, heads, hidden, layers, kernel: of the encoder (`heads` and `hidden`: of the conformer and the decoder).
        positions: of the conformer, see `talkface.experts.conformer.Attention`.
        decoder_layers: blocks of the attention decoder; 0: none.
        reduce: the crop is made this many times smaller before it is looked at.
        crop_size: side of the crops in pixels.
        mean, std: of the crops' grey values.
        dropout: in training.

    Attributes:
        crop_size, mean, std, vocabulary, visemes: as given.
        fps: frames per second of what it was trained on.
        dim: width of `features`.

    Raises:
        TalkfaceError: an encoder or activation that there is not, or a vocabulary of fewer than two units.
    """

    fps = 25.0

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        visemes: Sequence[str] = (),
        channels: int = 64,
        blocks: tuple[int, int, int, int] = (2, 2, 2, 2),
        activation: str = "swish",
        encoder: str = "conformer",
        dim: int = 768,
        heads: int = 12,
        hidden: int = 3072,
        layers: int = 12,
        kernel: int = 31,
        positions: str = "latest",
        decoder_layers: int = 0,
        reduce: int = 1,
        crop_size: int = 88,
        mean: float = 0.421,
        std: float = 0.165,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise TalkfaceError(f"encoder: {encoder!r}; allowed: {', '.join(ENCODERS)}")
        if positions not in POSITIONS:
            raise TalkfaceError(f"positions: {positions!r}; allowed: {', '.join(POSITIONS)}")
        if len(vocabulary) < 2:
            raise TalkfaceError(f"vocabulary: {len(vocabulary)} units; allowed: the blank and one or more")
        self.vocabulary, self.visemes = tuple(vocabulary), tuple(visemes)
        self._paddable = encoder != "conformer" or positions == "latest"
        self.crop_size, self.reduce, self.mean, self.std, self.dim = crop_size, reduce, mean, std, dim
        self.frontend = LipFrontEnd(channels, blocks, activation)
        self.proj_encoder = nn.Linear(self.frontend.dim, dim)
        self.encoder: Conformer | TemporalConvolution
        if encoder == "conformer":
            self.encoder = Conformer(dim, heads, hidden, layers, kernel, dropout, positions)
        else:
            self.encoder = TemporalConvolution(dim, layers, kernel, dropout)
        self.ctc = nn.ModuleDict({"ctc_lo": nn.Linear(dim, len(self.vocabulary))})
        self.viseme_ctc = nn.Linear(dim, len(self.visemes)) if self.visemes else None
        self.decoder = (
            AttentionDecoder(len(self.vocabulary), dim, heads, hidden, decoder_layers, dropout)
            if decoder_layers
            else None
        )

    def _looked_at(self, mouths: Tensor, there: Tensor | None = None) -> Tensor:
        """Checked, reduced and normalised; padding is 0, as beyond the ends."""
        size = self.crop_size
        if mouths.dim() != 5 or mouths.shape[2:] != (1, size, size) or 0 in mouths.shape:
            raise TalkfaceError(
                f"mouths: shape {tuple(mouths.shape)}; allowed (B, T, 1, {size}, {size}); cut them with mouth_crops"
            )
        low, high = (float(value) for value in mouths.detach().aminmax())
        if not (low >= -SLACK and high <= 1 + SLACK):  # not a number is neither
            raise TalkfaceError(
                f"mouths: values from {low:.3g} to {high:.3g}; allowed 0 to 1 (grey); cut them with mouth_crops"
            )
        if self.reduce > 1:
            mouths = F.avg_pool2d(mouths.flatten(0, 1), self.reduce).unflatten(0, mouths.shape[:2])
        normal = (mouths - self.mean) / self.std
        return normal if there is None else normal * there[:, :, None, None, None]

    def frame_features(self, mouths: Tensor) -> Tensor:
        """The front end alone: (B, T, 1, S, S) in [0, 1] -> (B, T, 8 channels); it sees five frames at once."""
        return self.frontend(self._looked_at(mouths))

    def glance(self, mouths: Tensor) -> Tensor:
        """The front end on moments of five frames, (B, 5, 1, S, S) in [0, 1] -> (B, D) of the middle frames."""
        return self.frontend.glance(self._looked_at(mouths))

    def features(self, mouths: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the encoder makes of sequences.

        Args:
            mouths: (B, T, 1, crop_size, crop_size) grey in [0, 1]; differentiable.
            lengths: (B,) frames that each clip really has; the rest is padding. None: all of them.

        Returns:
            (B, T, dim); a frame's features depend on the frames around it. Those of padding mean nothing.

        Raises:
            TalkfaceError: another shape, values outside [0, 1], lengths that are not 1 to T.
        """
        return self.both_features(mouths, lengths)[1]

    def both_features(self, mouths: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`frame_features` and `features` at the price of one."""
        there = self._there(mouths, lengths)
        seen = self.frontend(self._looked_at(mouths, there))
        return seen, self.encoder(self.proj_encoder(seen), there)

    def _there(self, mouths: Tensor, lengths: Tensor | None) -> Tensor | None:
        """(B, T) bool, or None when nothing is padded."""
        if lengths is None:
            return None
        frames = mouths.shape[1]
        lengths = lengths.to(mouths.device)
        if lengths.shape != mouths.shape[:1] or not bool(((lengths >= 1) & (lengths <= frames)).all()):
            raise TalkfaceError(
                f"lengths: {lengths.tolist()}; allowed: {len(mouths)} numbers from 1 to {frames}"
            )
        if bool((lengths == frames).all()):
            return None
        if not self._paddable:
            raise TalkfaceError(
                f"lengths: {lengths.tolist()}; allowed: equal ones, for a legacy reader depends on them; read the "
                "clips one by one"
            )
        return torch.arange(frames, device=mouths.device)[None] < lengths[:, None]

    def head(self, features: Tensor, name: str = "vocabulary") -> Tensor:
        """Features (B, T, dim) -> log-probabilities (B, T, V) of "vocabulary" or "visemes".

        Raises:
            TalkfaceError: a head that this reader lacks.
        """
        heads = {"vocabulary": self.ctc["ctc_lo"], "visemes": self.viseme_ctc}
        chosen = heads.get(name)
        if chosen is None:
            there = [key for key, value in heads.items() if value is not None]
            raise TalkfaceError(f"head: {name!r}; this reader has: {', '.join(there)}")
        return chosen(features).float().log_softmax(dim=-1)

    def log_probabilities(
        self, mouths: Tensor, lengths: Tensor | None = None, head: str = "vocabulary"
    ) -> Tensor:
        """(B, T, V) natural logarithms, for `torch.nn.functional.ctc_loss` after a transposition; see `features`."""
        return self.head(self.features(mouths, lengths), head)

    @torch.no_grad()
    def read(
        self, mouths: Tensor, lengths: Tensor | None = None, head: str = "vocabulary", method: str = "ctc"
    ) -> list[str]:
        """What is said: one string a clip; visemes are separated by spaces.

        Args:
            mouths, lengths: see `features`.
            head: "vocabulary" or "visemes".
            method: "ctc" = the likeliest unit of every frame, repetitions and blanks removed; "attention" = the
                decoder's likeliest next unit (the public models; they search with a beam and a language model).

        Raises:
            TalkfaceError: a method or head that this reader lacks; see also `features`.
        """
        return self.decode(self.features(mouths, lengths), head, method, lengths)

    @torch.no_grad()
    def decode(
        self, features: Tensor, head: str = "vocabulary", method: str = "ctc", lengths: Tensor | None = None
    ) -> list[str]:
        """What `read` says of features that are there already, (B, T, dim)."""
        if method == "ctc":
            best = self.head(features, head).argmax(-1)
            ends = [features.shape[1]] * len(best) if lengths is None else lengths.tolist()
            found = [collapse(row[:end].tolist()) for row, end in zip(best, ends, strict=True)]
        elif method == "attention" and self.decoder is not None and head == "vocabulary":
            found = self._say(features, self._there(features, lengths))
        else:
            allowed = "ctc" if self.decoder is None else "ctc, and attention for the vocabulary"
            raise TalkfaceError(f"method: {method!r} of head {head!r}; this reader allows: {allowed}")
        if head == "visemes":
            return [" ".join(self.visemes[unit] for unit in units) for units in found]
        return ["".join(self.vocabulary[unit] for unit in units).replace("▁", " ").strip() for units in found]

    def _say(self, features: Tensor, there: Tensor | None) -> list[list[int]]:
        """Greedy decoding by attention, until the end unit or as many units as frames."""
        assert self.decoder is not None
        end = len(self.vocabulary) - 1
        tokens = torch.full((len(features), 1), end, device=features.device)
        over = torch.zeros(len(features), dtype=torch.bool, device=features.device)
        for _ in range(features.shape[1]):
            following = self.decoder(tokens, features, there)[:, -1].argmax(-1)
            following = following.masked_fill(over, end)
            tokens = torch.cat([tokens, following[:, None]], dim=1)
            over = over | (following == end)
            if bool(over.all()):
                break
        return [[unit for unit in row[1:] if unit != end] for row in tokens.tolist()]


def collapse(path: Sequence[int]) -> list[int]:
    """A CTC path to its units: repetitions once, blanks (0) away."""
    return [unit for place, unit in enumerate(path) if unit != 0 and (place == 0 or path[place - 1] != unit)]
