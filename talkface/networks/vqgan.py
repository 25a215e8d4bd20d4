"""First stages: pictures to latents and back. VQGAN, and the identity for pixel diffusion.

Esser et al. 2021 (arXiv 2012.09841) in the sizes of the thesis: downsampling 4, 3 latent channels, 16384
codes, 60.6 M parameters. Diffusion works on the latents *before* quantization; `decode` quantizes. A first
stage owns the scale of its latents: `set_latent_statistics` makes them about unit variance for the diffusion
model. The losses it is trained with are in `talkface.losses.first_stage`; the discriminator in
`talkface.networks.discriminator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkface.errors import TalkfaceError
from talkface.networks.autoencoder import Decoder, Encoder
from talkface.networks.discriminator import PatchDiscriminator
from talkface.networks.quantizer import GaussianBottleneck, VectorQuantizer

__all__ = ["VQGAN", "IdentityFirstStage", "PatchDiscriminator", "VQGANOutput"]


@dataclass
class VQGANOutput:
    """One pass of the autoencoder, as its training needs it.

    Attributes:
        reconstruction: (B, 3, H, W), about [-1, 1].
        codebook_loss: scalar; without a codebook, the divergence of the latents.
        indices: (B, h, w) chosen codes; None without a codebook.
        latents: (B, C, h, w) before quantization, without normalisation.
    """

    reconstruction: Tensor
    codebook_loss: Tensor
    indices: Tensor | None
    latents: Tensor


class VQGAN(nn.Module):
    """Vector-quantized autoencoder. The defaults are the thesis's.

    Args:
        channels: width at full resolution (encoder).
        channel_mult: width multiplier per level; the downsampling factor is patch_size * 2 ** (levels - 1).
        num_res_blocks: residual blocks per encoder level; the decoder has one more.
        attention_resolutions: feature map sizes with attention; () for none, not even in the middle.
        image_size: picture size these resolutions are counted from.
        latent_channels: channels of latents and codes.
        codebook_size: number of codes; None: no codebook but a `GaussianBottleneck`.
        ema_codebook: learn codes by moving averages instead of gradients.
        decoder_channels, decoder_channel_mult, decoder_num_res_blocks: a decoder cheaper than the encoder;
            None: as the encoder (with one block more per level).
        dropout: rate inside residual blocks.
        beta, legacy_beta, revive_after: see `VectorQuantizer`.
        latent_noise: deviation of the noise of that bottleneck; unused with a codebook.
        patch_size: fold squares of this many pixels a side into channels before the encoder, and unfold them
            after the decoder (Shi et al. 2016, arXiv 1609.05158). 1, the thesis: none. 2 leaves out the
            narrow, memory-bound layers at full resolution: several times faster on a processor.
        feature_channels: between encoder and `quant_conv`, and `post_quant_conv` and decoder; None: latent_channels.
        middle_attention: attention at the lowest resolution; None: where attention_resolutions has any.
        norm_groups: groups of every normalisation; None: see `layers.group_norm`. Weights trained elsewhere have 32.
    Raises:
        TalkfaceError: encoder and decoder with different numbers of levels.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        *,
        channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 4),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (32,),
        image_size: int = 128,
        latent_channels: int = 3,
        codebook_size: int | None = 16384,
        ema_codebook: bool = False,
        decoder_channels: int | None = None,
        decoder_channel_mult: Sequence[int] | None = None,
        decoder_num_res_blocks: int | None = None,
        dropout: float = 0.0,
        beta: float = 0.25,
        legacy_beta: bool = True,
        revive_after: int = 0,
        latent_noise: float = 0.1,
        patch_size: int = 1,
        feature_channels: int | None = None,
        middle_attention: bool | None = None,
        norm_groups: int | None = None,
    ) -> None:
        super().__init__()
        decoder_mult = channel_mult if decoder_channel_mult is None else decoder_channel_mult
        if len(decoder_mult) != len(channel_mult):
            raise TalkfaceError(
                f"levels of decoder_channel_mult: {len(decoder_mult)}; allowed: {len(channel_mult)}, "
                "those of channel_mult"
            )
        features = latent_channels if feature_channels is None else feature_channels
        if middle_attention is None:
            middle_attention = len(attention_resolutions) > 0
        self.latent_channels, self.image_size = latent_channels, image_size
        self.downsample_factor = patch_size * 2 ** (len(channel_mult) - 1)
        self.patch_size = patch_size
        self.encoder = Encoder(
            in_channels=3 * patch_size**2,
            out_channels=features,
            channels=channels,
            channel_mult=channel_mult,
            num_res_blocks=num_res_blocks,
            attention_resolutions=attention_resolutions,
            image_size=image_size // patch_size,
            dropout=dropout,
            middle_attention=middle_attention,
            norm_groups=norm_groups,
        )
        self.decoder = Decoder(
            in_channels=features,
            out_channels=3 * patch_size**2,
            channels=channels if decoder_channels is None else decoder_channels,
            channel_mult=decoder_mult,
            num_res_blocks=num_res_blocks + 1 if decoder_num_res_blocks is None else decoder_num_res_blocks,
            attention_resolutions=attention_resolutions,
            image_size=image_size // patch_size,
            dropout=dropout,
            middle_attention=middle_attention,
            norm_groups=norm_groups,
        )
        self.quantize: VectorQuantizer | GaussianBottleneck
        if codebook_size is None:
            self.quantize = GaussianBottleneck(latent_noise)
        else:
            self.quantize = VectorQuantizer(
                codebook_size,
                latent_channels,
                beta=beta,
                legacy_beta=legacy_beta,
                ema=ema_codebook,
                revive_after=revive_after,
            )
        self.quant_conv = nn.Conv2d(features, latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, features, 1)
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution, where the adaptive adversarial weight compares gradients."""
        return self.decoder.conv_out.weight

    def set_latent_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Make `encode` return (latents - mean) / std per channel, and `decode` expect that.

        Args:
            mean, std: (latent_channels,), measured on raw latents (those of `forward`). Zero and one, the
                thesis, until this is called.
        Raises:
            TalkfaceError: wrong length, or a standard deviation that is not positive.
        """
        if (
            mean.shape != self.latent_mean.shape
            or std.shape != self.latent_std.shape
            or not bool((std > 0).all())
        ):
            raise TalkfaceError(
                f"latent statistics: mean {mean.tolist()}, std {std.tolist()}; allowed: "
                f"{self.latent_channels} numbers each, std positive"
            )
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def _features(self, images: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(F.pixel_unshuffle(images, self.patch_size)))

    def _pictures(self, codes: Tensor) -> Tensor:
        return F.pixel_shuffle(self.decoder(self.post_quant_conv(codes)), self.patch_size)

    def encode(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> latents (B, latent_channels, H / f, W / f), before quantization.

        Raises:
            TalkfaceError: height or width not a multiple of the downsampling factor.
        """
        factor = self.downsample_factor
        if images.shape[2] % factor or images.shape[3] % factor:
            raise TalkfaceError(
                f"size of images: {images.shape[2]} x {images.shape[3]}; allowed: multiples of {factor}"
            )
        raw = self._features(images)
        return (raw - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, C, h, w) -> images (B, 3, h * f, w * f), about [-1, 1], through the codebook if there is one."""
        raw = latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        return self._pictures(self.quantize.snap(raw))

    def forward(self, images: Tensor) -> VQGANOutput:
        """images (B, 3, H, W) in [-1, 1] -> reconstruction, codebook loss, indices, raw latents."""
        latents = self._features(images)
        quantized, codebook_loss, indices = self.quantize(latents)
        reconstruction = self._pictures(quantized)
        return VQGANOutput(reconstruction, codebook_loss, indices, latents)


class IdentityFirstStage(nn.Module):
    """Pixels are the latents: turns latent diffusion into pixel diffusion."""

    latent_channels = 3
    downsample_factor = 1

    def encode(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) -> the same."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """latents (B, 3, H, W) -> the same."""
        return latents
