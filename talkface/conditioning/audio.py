"""Sound around a frame, as what the network reads; and bringing features to the frames' times.

The thesis's temporal attention (one weight per feature in the window, after Thies et al. 2020, arXiv
1912.05566, section 3.1) and, because a single context token makes cross-attention a constant, better measured
ways: the window as a sequence of tokens, and a direct path into the time embedding. The encoders that make
    the features are in
`talkface.experts.speech`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from talkface.conditioning.base import Conditioner, Conditioning, read
from talkface.errors import TalkfaceError

AUDIO_MODES = ("attention", "expanded_attention", "tokens", "embedding")


class FeatureWindow:
    """The features at hand of a sound that is still coming: a few rows of the (T, D) that it will have had.

    It is read as the whole would be, by numbers counted from the beginning of the sound; what has gone by is
    forgotten, and what is beyond the last row is not yet known.
    """

    def __init__(self, dim: int) -> None:
        self.rows = torch.empty(0, dim)
        self.first = 0

    def __len__(self) -> int:
        return self.first + len(self.rows)

    def __getitem__(self, numbers: Tensor) -> Tensor:
        if len(numbers) and int(numbers.min()) < self.first:
            raise IndexError(
                f"feature {int(numbers.min())} is asked for; those before {self.first} are forgotten"
            )
        return self.rows[numbers - self.first]

    def replace(self, first: int, rows: Tensor) -> None:
        """From now on these rows (N, D), numbered from `first`, and no others."""
        self.rows, self.first = rows, first

    def extend(self, rows: Tensor, forget: int) -> None:
        """Add rows (N, D) at the end, and forget those numbered below `forget`."""
        gone = min(max(0, forget - self.first), len(self.rows))
        self.replace(self.first + gone, torch.cat([self.rows[gone:], rows]))

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.rows.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows."""
        return self.rows.dtype


Features = Tensor | FeatureWindow


def interpolate_features(features: Features, feature_rate: float, times: Tensor) -> Tensor:
    """Features at given times, linear between neighbours and constant beyond the ends.

    Args:
        features: (T, D); feature i belongs to time (i + 0.5) / feature_rate.
        feature_rate: in Hz.
        times: (N,) in seconds.
    Returns:
        (N, D).
    Raises:
        TalkfaceError: no features.
    """
    if len(features) == 0:
        raise TalkfaceError("sound features: 0 of them; allowed: 1 or more; the sound is too short")
    # float64: in a long film float32 seconds are too coarse to address features exactly.
    position = (times.to(features.device, torch.float64) * feature_rate - 0.5).clamp(0, len(features) - 1)
    below = position.floor().long()
    above = position.ceil().long()
    return torch.lerp(features[below], features[above], (position - below).to(features.dtype)[:, None])


def audio_windows(
    features: Features, feature_rate: float, times: Tensor, window: int, window_rate: float
) -> Tensor:
    """Features around each time: at time + j / window_rate for j = -window .. window.

    Args:
        features: (T, D).
        feature_rate: in Hz.
        times: (N,) in seconds, the frames' centres.
        window: steps to each side.
        window_rate: in Hz; the film's frame rate is the thesis's choice.
    Returns:
        (N, 2 window + 1, D).
    """
    offsets = torch.arange(-window, window + 1, dtype=torch.float64, device=times.device) / window_rate
    wanted = times.double()[:, None] + offsets
    return interpolate_features(features, feature_rate, wanted.flatten()).view(*wanted.shape, -1)


class TemporalAttention(nn.Module):
    """Convolutions over the window give one weight per step; the result is the weighted sum of the features.

    Args:
        feature_dim: width of the features.
        length: steps in the window; baked into the weights.
        expand: sum over features widened to 64 by three convolutions instead of over the features themselves:
            the thesis's variant for the 29 character scores of a speech recogniser.
    """

    def __init__(self, feature_dim: int, length: int, expand: bool = False) -> None:
        super().__init__()
        score_widths = (16, 8, 4, 2, 1) if expand else (192, 64, 16, 4, 1)
        self.attentionConvNet = self._convolutions((feature_dim, *score_widths))
        self.attentionNet = nn.Sequential(nn.Linear(length, length), nn.Softmax(dim=1))
        self.expander = self._convolutions((feature_dim, 32, 64, 64)) if expand else nn.Identity()
        self.dim = 64 if expand else feature_dim

    @staticmethod
    def _convolutions(widths: tuple[int, ...]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv1d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.02)]
        return nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """features (B, length, feature_dim) -> (B, dim)."""
        columns = features.transpose(1, 2)
        weights = self.attentionNet(self.attentionConvNet(columns).squeeze(1))
        return torch.einsum("bdl,bl->bd", self.expander(columns), weights)


class AudioConditioner(Conditioner):
    """The window of sound features around a frame. Its null is zeros.

    Args:
        feature_dim: width of the features.
        window: steps to each side; the window has 2 window + 1.
        mode: "attention" (the thesis): one context token, the attended sum. "expanded_attention": the
            thesis's variant for character scores, 64 wide. "tokens": every step a context token, projected,
            with a learned position. "embedding": no context, only the embedding.
        dim: width of the context tokens; None: as the features ("expanded_attention": 64), without a
            projection where the mode has none of its own.
        embedding_dim: width of an embedding made from the whole window by two linear layers; None: none.
        drop_rate: share of training samples without sound (the thesis: 0).
    Raises:
        TalkfaceError: unknown mode; mode "embedding" without embedding_dim.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        feature_dim: int,
        window: int,
        mode: str = "attention",
        dim: int | None = None,
        embedding_dim: int | None = None,
        drop_rate: float = 0.2,
    ) -> None:
        super().__init__(drop_rate)
        if mode not in AUDIO_MODES:
            raise TalkfaceError(f"audio mode: '{mode}'; allowed: {', '.join(AUDIO_MODES)}")
        if mode == "embedding" and embedding_dim is None:
            raise TalkfaceError("embedding_dim: None; allowed: a number with audio mode 'embedding'")
        self.feature_dim, self.mode = feature_dim, mode
        self.window, self.length = window, 2 * window + 1
        self.num_tokens = {"tokens": self.length, "embedding": 0}.get(mode, 1)
        self.register_buffer("feature_mean", torch.zeros(feature_dim))
        self.register_buffer("feature_std", torch.ones(feature_dim))

        native = 64 if mode == "expanded_attention" else feature_dim
        self.context_dim = 0 if mode == "embedding" else (native if dim is None else dim)
        if mode in ("attention", "expanded_attention"):
            self.attention = TemporalAttention(feature_dim, self.length, expand=mode == "expanded_attention")
        if mode == "tokens":
            self.positions = nn.Parameter(0.02 * torch.randn(1, self.length, self.context_dim))
        needs_projection = mode == "tokens" or self.context_dim not in (0, native)
        self.projection = nn.Linear(native, self.context_dim) if needs_projection else nn.Identity()
        self.embedding_dim = embedding_dim or 0
        if self.embedding_dim:
            self.direct = nn.Sequential(
                nn.Linear(self.length * feature_dim, self.embedding_dim),
                nn.SiLU(),
                nn.Linear(self.embedding_dim, self.embedding_dim),
            )
        sizes = {"context": self.context_dim, "embedding": self.embedding_dim}
        self.fills = tuple(field for field, size in sizes.items() if size)

    def set_feature_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Normalise features by (features - mean) / std from now on; zero and one until called.

        Args:
            mean, std: (feature_dim,) of the training features.
        Raises:
            TalkfaceError: wrong length, or a standard deviation that is not positive.
        """
        right_size = mean.shape == std.shape == self.feature_mean.shape
        if not right_size or not bool((std > 0).all()):
            raise TalkfaceError(
                f"feature statistics of {tuple(mean.shape)} and {tuple(std.shape)}; allowed: "
                f"({self.feature_dim},) each, std positive"
            )
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)

    def forward(self, batch: Mapping[str, Tensor]) -> Conditioning:
        """Read batch["audio"] (B, 2 window + 1, feature_dim)."""
        audio = read(batch, "audio", (self.length, self.feature_dim), "AudioConditioner")
        features = (audio.to(self.feature_mean.dtype) - self.feature_mean) / self.feature_std
        context = None
        if self.mode == "tokens":
            context = self.projection(features) + self.positions
        elif self.mode != "embedding":
            context = self.projection(self.attention(features))[:, None]
        embedding = self.direct(features.flatten(1)) if self.embedding_dim else None
        return Conditioning(context=context, embedding=embedding)

    def null(self, batch_size: int) -> Conditioning:
        """Zeros."""
        like = self.feature_mean
        return Conditioning(
            context=like.new_zeros(batch_size, self.num_tokens, self.context_dim)
            if self.context_dim
            else None,
            embedding=like.new_zeros(batch_size, self.embedding_dim) if self.embedding_dim else None,
        )
