"""What a network is told: a `Conditioning`, the `Conditioner`s that make it, and the set that joins them.

Three ways into the network, by name: `context` (tokens for cross-attention), `concat` (maps stacked onto the
noisy latents), `embedding` (a vector added to the time embedding). Each conditioner has its own drop rate,
drawn per sample, and its own null, so that guidance can have one scale per conditioner (arXiv 2207.12598).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from talkface.errors import TalkfaceError

_FIELDS = ("context", "concat", "embedding")
CONTEXT_MODES = ("tokens", "concatenate")


@dataclass
class Conditioning:
    """Named inputs of a network for one batch; a field that nobody fills is None.

    Attributes:
        context: (B, tokens, D).
        concat: (B, C, H, W).
        embedding: (B, D).
    """

    context: Tensor | None = None
    concat: Tensor | None = None
    embedding: Tensor | None = None

    def _present(self) -> dict[str, Tensor]:
        return {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}

    @property
    def batch_size(self) -> int | None:
        """Number of samples; None when no field is filled."""
        return next((value.shape[0] for value in self._present().values()), None)

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """Every field moved or cast, as Tensor.to."""
        return Conditioning(**{name: value.to(*args, **kwargs) for name, value in self._present().items()})

    def __getitem__(self, index: slice | Tensor) -> Conditioning:
        """The samples that a slice, index tensor or mask picks."""
        return Conditioning(**{name: value[index] for name, value in self._present().items()})

    def repeat(self, times: int) -> Conditioning:
        """The whole batch `times` times in a row."""
        return Conditioning.cat([self] * times)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Batches one after the other.

        Raises:
            TalkfaceError: they do not fill the same fields.
        """
        fields = [tuple(part._present()) for part in parts]
        if len(set(fields)) != 1:
            raise TalkfaceError(f"fields of the conditionings to join: {fields}; allowed: the same in each")
        return Conditioning(**{name: torch.cat([getattr(p, name) for p in parts]) for name in fields[0]})

    def select(self, keep: Tensor, other: Conditioning) -> Conditioning:
        """Per sample, self where `keep` (B,) bool is True and `other` elsewhere.

        Raises:
            TalkfaceError: the two do not fill the same fields.
        """
        mine, theirs = self._present(), other._present()
        if mine.keys() != theirs.keys():
            raise TalkfaceError(
                f"fields to select from: {list(mine)} and {list(theirs)}; allowed: the same in both"
            )

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(keep.to(a.device).view(-1, *[1] * (a.dim() - 1)), a, b)

        return Conditioning(**{name: pick(value, theirs[name]) for name, value in mine.items()})


class Conditioner(nn.Module):
    """Makes part of a conditioning from a batch.

    Subclasses set `fills` and the sizes of what they fill, and implement `forward` and `null`.

    Attributes:
        drop_rate: 0..1, share of training samples in which it is replaced by its null.
        fills: which fields of Conditioning it fills.
        context_dim, concat_channels, embedding_dim: their sizes; 0 where it does not fill the field.
    """

    fills: tuple[str, ...] = ()
    context_dim: int = 0
    concat_channels: int = 0
    embedding_dim: int = 0

    def __init__(self, drop_rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= drop_rate <= 1.0:
            raise TalkfaceError(f"drop_rate: {drop_rate}; allowed: 0 to 1")
        self.drop_rate = drop_rate

    def forward(self, batch: Mapping[str, Tensor]) -> Conditioning:
        """The conditioning of a batch."""
        raise NotImplementedError

    def null(self, batch_size: int) -> Conditioning:
        """The conditioning that says nothing, in the same shapes."""
        raise NotImplementedError


def read(batch: Mapping[str, Tensor], key: str, shape: tuple[int | None, ...], reader: str) -> Tensor:
    """batch[key], checked.

    Args:
        shape: allowed sizes after the batch dimension; None = any.
        reader: who asks, for the message.
    Raises:
        TalkfaceError: the key is missing, or the shape is another.
    """
    if key not in batch:
        raise TalkfaceError(
            f"batch without '{key}'; {reader} reads it; the batch has: {', '.join(sorted(batch))}"
        )
    value = batch[key]
    fits = value.dim() == len(shape) + 1 and all(
        want is None or want == got for want, got in zip(shape, value.shape[1:], strict=True)
    )
    if not fits:
        allowed = ", ".join(["B", *("any" if size is None else str(size) for size in shape)])
        raise TalkfaceError(
            f"shape of batch['{key}']: {tuple(value.shape)}; allowed: ({allowed}) for {reader}"
        )
    return value


class ConditionerSet(nn.Module):
    """All conditioners of a model, by name.

    `concat` maps are stacked and `embedding` vectors concatenated in the order of the names.

    Args:
        conditioners: name -> conditioner; the name is that of drops and guidance scales.
        context_mode: "tokens": contexts of equal width follow each other as more tokens. "concatenate" (the
            thesis): contexts of one token each are glued into one wider token.
    Raises:
        TalkfaceError: unknown mode; "tokens" with contexts of different width.
    """

    def __init__(self, conditioners: dict[str, Conditioner], context_mode: str = "tokens") -> None:
        super().__init__()
        if context_mode not in CONTEXT_MODES:
            raise TalkfaceError(f"context_mode: '{context_mode}'; allowed: {', '.join(CONTEXT_MODES)}")
        self.conditioners = nn.ModuleDict(conditioners)
        self.context_mode = context_mode
        widths = {name: c.context_dim for name, c in conditioners.items() if c.context_dim}
        if context_mode == "tokens" and len(set(widths.values())) > 1:
            raise TalkfaceError(
                f"widths of the context tokens: {widths}; allowed: all equal with context_mode 'tokens'; "
                "change dim, or use context_mode 'concatenate'"
            )
        self.context_dim = (
            sum(widths.values()) if context_mode == "concatenate" else max(widths.values(), default=0)
        )
        self.concat_channels = sum(c.concat_channels for c in conditioners.values())
        self.embedding_dim = sum(c.embedding_dim for c in conditioners.values())

    @property
    def drop_rates(self) -> dict[str, float]:
        """name -> share of training samples in which that conditioner is null."""
        return {name: c.drop_rate for name, c in self.conditioners.items() if isinstance(c, Conditioner)}

    def check_network(self, network: nn.Module, latent_channels: int) -> None:
        """Fail at construction, not in the first training step.

        Raises:
            TalkfaceError: the network's in_channels are not latents + concat, or it reads another context_dim
                or embedding_dim than this set gives.
        """
        wanted = latent_channels + self.concat_channels
        if network.in_channels != wanted:
            raise TalkfaceError(
                f"in_channels of the network: {network.in_channels}; allowed: {wanted} = {latent_channels} "
                f"of the latents + {self.concat_channels} that the conditioners stack onto them"
            )
        for name in ("context_dim", "embedding_dim"):
            built, given = getattr(network, name) or 0, getattr(self, name)
            if built != given:
                raise TalkfaceError(
                    f"{name} of the network: {built or None}; allowed: {given or None}, what "
                    f"{', '.join(self.conditioners)} give"
                )

    def draw_drops(self, batch_size: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Which samples lose which conditioner in a training step: name -> (B,) bool, drawn independently."""
        device = "cpu" if generator is None else generator.device
        return {
            name: torch.rand(batch_size, generator=generator, device=device) < rate
            for name, rate in self.drop_rates.items()
        }

    def forward(self, batch: Mapping[str, Tensor], drop: Mapping[str, Tensor] | None = None) -> Conditioning:
        """Join what all conditioners make of the batch.

        Args:
            batch: what the conditioners read.
            drop: name -> (B,) bool, True = null for that sample; a name left out is kept.
        """
        self._check_names(drop or {})
        parts = {name: conditioner(batch) for name, conditioner in self.conditioners.items()}
        for name, dropped in (drop or {}).items():
            parts[name] = self._null(name, parts[name]).select(dropped, parts[name])
        return self._join(parts.values())

    def with_nulls(
        self, batch: Mapping[str, Tensor], names: Iterable[str]
    ) -> tuple[Conditioning, dict[str, Conditioning]]:
        """The conditioning, and per name the one in which only that conditioner is null: for guidance."""
        names = list(names)
        self._check_names(names)
        parts = {name: conditioner(batch) for name, conditioner in self.conditioners.items()}
        nulls = {name: self._join({**parts, name: self._null(name, parts[name])}.values()) for name in names}
        return self._join(parts.values()), nulls

    def _check_names(self, names: Iterable[str]) -> None:
        if unknown := [name for name in names if name not in self.conditioners]:
            raise TalkfaceError(f"conditioners: {unknown}; allowed: {', '.join(self.conditioners)}")

    def _null(self, name: str, like: Conditioning) -> Conditioning:
        conditioner = self.conditioners[name]
        assert isinstance(conditioner, Conditioner) and like.batch_size is not None
        return conditioner.null(like.batch_size)

    def _join(self, parts: Iterable[Conditioning]) -> Conditioning:
        parts = list(parts)
        contexts, maps, vectors = (
            [value for part in parts if (value := getattr(part, field)) is not None] for field in _FIELDS
        )
        if self.context_mode == "concatenate" and any(c.shape[1] != 1 for c in contexts):
            raise TalkfaceError(
                f"tokens per context: {[c.shape[1] for c in contexts]}; allowed: 1 each with context_mode "
                "'concatenate'; use context_mode 'tokens'"
            )
        token_dim = 2 if self.context_mode == "concatenate" else 1
        return Conditioning(
            context=torch.cat(contexts, dim=token_dim) if contexts else None,
            concat=torch.cat(maps, dim=1) if maps else None,
            embedding=torch.cat(vectors, dim=1) if vectors else None,
        )
