"""Vector quantization: latents snap to the nearest of K learned codes.

van den Oord et al. 2017 (arXiv 1711.00937), eq. 1-3, with the codebook loss as VQGAN (Esser et al. 2021,
arXiv 2012.09841) trains it. Beyond the paper: usage statistics, revival of codes that nobody uses any more
(Dhariwal et al. 2020, arXiv 2005.00341, section 3.1), and an optional codebook learned by exponential moving
averages (arXiv 1711.00937, appendix A). It is not an autoencoder: see `vqgan`.

`GaussianBottleneck` stands in the same place without codes: the variational bottleneck of latent diffusion models
with a fixed deviation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError


class VectorQuantizer(nn.Module):
    """K codes of `dim` numbers.

    Args:
        num_codes: K.
        dim: latent channels.
        beta: weight of the second loss term.
        legacy_beta: True (the thesis): `beta` scales the term that moves the codes; False (arXiv 1711.00937):
            the term that commits the encoder to its codes.
        ema: learn the codes as moving averages of the latents they stand for, without gradients; the loss is
            then `beta` times the commitment term.
        ema_decay: decay of those averages, per training step.
        revive_after: replace a code that no latent chose for this many training steps by a latent of the
            current batch; 0: never.
    """

    _STATISTICS_DECAY = 0.99
    usage: Tensor
    steps_unused: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        beta: float = 0.25,
        legacy_beta: bool = True,
        ema: bool = False,
        ema_decay: float = 0.99,
        revive_after: int = 0,
    ) -> None:
        super().__init__()
        self.num_codes, self.dim = num_codes, dim
        self.beta, self.legacy_beta = beta, legacy_beta
        self.ema, self.ema_decay, self.revive_after = ema, ema_decay, revive_after
        self.embedding = nn.Embedding(num_codes, dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / num_codes, 1.0 / num_codes)
        self.embedding.weight.requires_grad_(not ema)
        self.register_buffer("usage", torch.zeros(num_codes))
        self.register_buffer("steps_unused", torch.zeros(num_codes, dtype=torch.int32))
        if ema:
            self.register_buffer("cluster_size", torch.zeros(num_codes))
            self.register_buffer("cluster_sum", torch.zeros(num_codes, dim))

    def nearest(self, vectors: Tensor, chunk_elements: int | None = None) -> Tensor:
        """Index of the code with the smallest Euclidean distance.

        |v - c|^2 = |v|^2 - 2 v.c + |c|^2, whose first term does not depend on the code: one matrix product
        and a search for the largest v.c - |c|^2 / 2, in chunks.

        Args:
            vectors: (N, dim).
            chunk_elements: scores held at a time; None: what a processor's cache holds, or 64 M on a GPU.
        Returns:
            (N,) int64.
        """
        if chunk_elements is None:
            chunk_elements = 1 << 17 if vectors.device.type == "cpu" else 1 << 26
        codes = self.embedding.weight.detach().float()
        offset = -0.5 * codes.square().sum(dim=1)
        transposed = codes.t().contiguous()
        with torch.autocast(vectors.device.type, enabled=False):
            chunks = vectors.detach().float().split(max(1, chunk_elements // self.num_codes))
            return torch.cat([torch.addmm(offset, chunk, transposed).max(dim=1).indices for chunk in chunks])

    def codes(self, indices: Tensor) -> Tensor:
        """indices (B, H, W) -> latents (B, dim, H, W)."""
        return self.embedding(indices).permute(0, 3, 1, 2)

    def snap(self, latents: Tensor) -> Tensor:
        """latents (B, dim, H, W) -> the nearest codes; gradients flow straight through."""
        batch, channels, height, width = latents.shape
        indices = self.nearest(latents.permute(0, 2, 3, 1).reshape(-1, channels))
        codes = self.codes(indices.view(batch, height, width)).to(latents.dtype)
        return latents + (codes - latents).detach()

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Snap to the nearest codes; in training mode also update statistics, averages and dead codes.

        Args:
            latents: (B, dim, H, W).
        Returns:
            quantized (B, dim, H, W), whose gradient flows to `latents` unchanged (straight-through); the
            codebook loss, a scalar; indices (B, H, W).
        Raises:
            TalkfaceError: another number of channels.
        """
        batch, channels, height, width = latents.shape
        if channels != self.dim:
            raise TalkfaceError(f"latent channels: {channels}; allowed: {self.dim}, the size of the codes")
        vectors = latents.permute(0, 2, 3, 1).reshape(-1, channels)
        flat_indices = self.nearest(vectors)
        indices = flat_indices.view(batch, height, width)
        quantized = self.codes(indices).to(latents.dtype)
        codebook_loss = self._loss(latents.float(), quantized.float())
        if self.training:
            self._learn(vectors.detach().float(), flat_indices)
        return latents + (quantized - latents).detach(), codebook_loss, indices

    def _loss(self, latents: Tensor, quantized: Tensor) -> Tensor:
        commitment = F.mse_loss(latents, quantized.detach())
        if self.ema:
            return self.beta * commitment
        codebook = F.mse_loss(quantized, latents.detach())
        if self.legacy_beta:
            return commitment + self.beta * codebook
        return codebook + self.beta * commitment

    @torch.no_grad()
    def _learn(self, vectors: Tensor, indices: Tensor) -> None:
        counts = torch.bincount(indices, minlength=self.num_codes).to(vectors.dtype)
        self.usage.lerp_(counts, 1.0 - self._STATISTICS_DECAY)
        self.steps_unused += 1
        self.steps_unused[counts > 0] = 0
        if self.ema:
            sums = torch.zeros_like(self.cluster_sum).index_add_(0, indices, vectors)
            self.cluster_size.lerp_(counts, 1.0 - self.ema_decay)
            self.cluster_sum.lerp_(sums, 1.0 - self.ema_decay)
            # A code whose average has faded away keeps its place: dividing by almost nothing is noise.
            alive = self.cluster_size > 1e-3
            means = self.cluster_sum / self.cluster_size.clamp(min=1e-3)[:, None]
            self.embedding.weight.copy_(torch.where(alive[:, None], means, self.embedding.weight))
        if self.revive_after > 0:
            self.revive(vectors, self.steps_unused >= self.revive_after)

    @torch.no_grad()
    def revive(self, vectors: Tensor, dead: Tensor) -> int:
        """Put the codes marked in `dead` (K,) bool onto vectors (N, dim) spread evenly over the given ones.

        Deterministic, so that a resumed training run stays on its trajectory.

        Returns:
            How many codes were moved.
        """
        places = dead.nonzero().flatten()[: vectors.shape[0]]
        if len(places) == 0:
            return 0
        picks = torch.linspace(0, vectors.shape[0] - 1, len(places), device=vectors.device).round().long()
        chosen = vectors[picks].to(self.embedding.weight.dtype)
        self.embedding.weight[places] = chosen
        self.steps_unused[places] = 0
        if self.ema:
            self.cluster_size[places] = 1.0
            self.cluster_sum[places] = chosen.float()
        return len(places)

    def perplexity(self) -> Tensor:
        """exp(entropy) of the code frequencies of recent training steps: 1 (one code) .. K (all alike)."""
        frequencies = self.usage / self.usage.sum().clamp(min=1e-12)
        return torch.exp(-(frequencies * frequencies.clamp(min=1e-12).log()).sum())

    def share_used(self) -> Tensor:
        """Share of the codes, 0..1, that recent training steps chose at all."""
        return (self.usage > 1e-3).float().mean()


class GaussianBottleneck(nn.Module):
    """No codes: noise of a fixed deviation in training, and a pull to zero that makes the noise count.

    The bottleneck of Kingma & Welling 2014 (arXiv 1312.6114), appendix B, with a constant variance: its divergence
    from a standard normal is then |z|^2 / 2 and a constant. It keeps more detail than a codebook of 13 bits a place
    and costs no search; a diffusion model never needs the codes.

    Args:
        deviation: of the noise that training adds; 0: none.
        weight: of the divergence, per element.
    """

    def __init__(self, deviation: float, weight: float = 1e-3) -> None:
        super().__init__()
        self.deviation, self.weight = deviation, weight

    def snap(self, latents: Tensor) -> Tensor:
        """The same."""
        return latents

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, None]:
        """latents (B, C, H, W) -> with noise in training; the divergence, a scalar; no indices."""
        divergence = 0.5 * self.weight * latents.float().square().mean()
        if self.training and self.deviation > 0:
            latents = latents + self.deviation * torch.randn_like(latents)
        return latents, divergence, None
