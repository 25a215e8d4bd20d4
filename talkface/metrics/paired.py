"""How far a picture or film is from the true one, pixel by pixel: PSNR, SSIM, LPIPS, flicker.

Every number is per picture, on the tensors as given (no resize, no JPEG), over the whole picture or over a
region. Pictures are (B, 3, H, W) in [-1, 1]; values outside are clipped first, as a file would clip them.
SSIM is Wang et al., "Image Quality Assessment", 2004, eq. 13, with the usual 11-pixel Gaussian window and no
downsampling (equal to `piq.ssim(..., downsample=False)`). None of them measures whether the lips fit the
sound: for that see `articulation`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Box = tuple[int, int, int, int]


def psnr(images: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,); infinite for equal pictures.

    10 log10(2^2 / MSE), the range of [-1, 1] being 2. MSE = sum(mask (a - b)^2) / (3 sum(mask)): the mean
    over the pixels of the region and the three channels; nothing outside the region counts.

    Args:
        mask: (1 or B, 1, H, W) weights >= 0; the whole picture without it. An empty region gives nan.
    """
    error = (images.clamp(-1, 1) - targets.clamp(-1, 1)).double() ** 2
    return 10 * torch.log10(4 / _region_mean(error, mask))


def ssim(images: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity, (B,), 1 for equal pictures; at least 11 pixels a side.

    The mean of the local similarity over channels and over the windows that lie within the picture; with a
    mask, over the windows whose centre lies in the region.
    """
    a, b = ((x.clamp(-1, 1).double() + 1) / 2 for x in (images, targets))  # it depends on where black is
    size, sigma = 11, 1.5
    offsets = torch.arange(size, dtype=a.dtype, device=a.device) - size // 2
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    line = line / line.sum()
    channels = a.shape[1]
    rows, columns = line.view(1, 1, -1, 1), line.view(1, 1, 1, -1)

    def blur(x: Tensor) -> Tensor:
        x = torch.nn.functional.conv2d(x, rows.expand(channels, 1, -1, 1), groups=channels)
        return torch.nn.functional.conv2d(x, columns.expand(channels, 1, 1, -1), groups=channels)

    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    margin = size // 2
    centres = None if mask is None else mask[..., margin:-margin, margin:-margin]
    return _region_mean(similarity, centres)


def region_lpips(
    distance: Callable[[Tensor, Tensor], Tensor], images: Tensor, targets: Tensor, box: Box | None = None
) -> Tensor:
    """Perceptual distance (B,) of the pictures, or of a box cut from both.

    Args:
        distance: an expert such as `talkface.experts.vision.LPIPS`, (B, 3, H, W) twice -> (B,).
        box: left, top, right, bottom in pixels. A box smaller than 64 pixels is enlarged (bilinear) to 64 on
            its shorter side, since the networks reduce 16-fold and more.
    """
    a, b = images.clamp(-1, 1), targets.clamp(-1, 1)
    if box is not None:
        left, top, right, bottom = box
        a, b = a[..., top:bottom, left:right], b[..., top:bottom, left:right]
    shorter = min(a.shape[-2:])
    if shorter < 64:
        size = [round(side * 64 / shorter) for side in a.shape[-2:]]
        a, b = (torch.nn.functional.interpolate(x, size=size, mode="bilinear") for x in (a, b))
    return distance(a, b)


def flicker(frames: Tensor, mask: Tensor | None = None) -> float:
    """Noise that changes from frame to frame, as a standard deviation in grey levels of 255.

    Root mean square over region and time of (x[t-1] - 2 x[t] + x[t+1]) / sqrt(6). Still and evenly changing
    pixels give 0, noise drawn anew for each frame gives its own standard deviation. Choose a region that
    should not move (skin away from the mouth) and compare with the real film, which is never 0.

    Args:
        frames: (T, 3, H, W) in [-1, 1], T >= 3.
        mask: (1 or T, 1, H, W); with one per frame a pixel counts where all three frames have it.
    """
    frames = frames.clamp(-1, 1).double()
    second = frames[:-2] - 2 * frames[1:-1] + frames[2:]
    if mask is not None and mask.shape[0] > 1:
        mask = torch.minimum(torch.minimum(mask[:-2], mask[1:-1]), mask[2:])
    squares = _region_mean(second**2 / 6, mask)
    return float(squares[~squares.isnan()].mean().sqrt() * 127.5)


def box_mask(box: Box, height: int, width: int) -> Tensor:
    """(1, 1, H, W): 1 in the box left, top, right, bottom (right and bottom excluded), 0 outside."""
    mask = torch.zeros(1, 1, height, width)
    left, top, right, bottom = box
    mask[..., top:bottom, left:right] = 1
    return mask


def _region_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (B, C, H, W) over channels and region -> (B,)."""
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    mask = mask.to(values).expand(values.shape[0], 1, -1, -1)
    return (values.mean(dim=1, keepdim=True) * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))
