"""Colours of pictures at places between their pixels."""

from __future__ import annotations

from functools import partial

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from talkface.head.raster import Fragments

_TABLE = 1024  # places in a row of a table


def linear_colours(images: Tensor, places: Tensor) -> Tensor:
    """Linear RGB (B, N, 3) of pictures at places (B, N, 2) in [-1, 1]."""
    found = F.grid_sample(
        images.float(), places[:, :, None].float(), padding_mode="border", align_corners=False
    )
    return ((found[..., 0].transpose(1, 2) + 1.0) / 2.0).clamp(0, 1) ** 2.2


def colours_at(images: Tensor, seen: Fragments, places: Tensor, mode: str = "bilinear") -> Tensor:
    """Colours (P, C) of the fragments' places (P, 2) in [-1, 1], each in its picture (N or 1, C, S, S).

    Bilinear is soft; averaging down the pixels of a finer z-buffer is soft already, a picture drawn at its own size
    wants "bicubic".
    """
    if len(images) == 1 and mode == "bicubic" and images.device.type == "cpu":
        return _cubic(images[0], places)
    look_up = partial(F.grid_sample, mode=mode, padding_mode="border", align_corners=False)
    if len(images) == 1:
        found = look_up(images, places[None, :, None].to(images))
        return found[0, :, :, 0].T.contiguous()
    colours = []
    for number, part in enumerate(places.split(torch.bincount(seen.batch, minlength=len(images)).tolist())):
        grid = part[None, :, None].to(images)
        found = look_up(images[number : number + 1], grid)
        colours.append(found[0, :, :, 0].T)
    return torch.cat(colours)


def _cubic(image: Tensor, places: Tensor) -> Tensor:
    """Colours (P, C) of one picture (C, S, S): OpenCV takes a third of torch's time, for values as good as equal."""
    count = len(places)
    if count == 0:
        return image.new_zeros(0, len(image))
    at = 0.5 * image.shape[-1] * (places.float() + 1.0) - 0.5
    table = F.pad(at, (0, 0, 0, -count % _TABLE)).view(-1, _TABLE, 2)
    x, y = table.numpy()[..., 0], table.numpy()[..., 1]
    picture = image.float().permute(1, 2, 0).contiguous().numpy()
    found = cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(found).view(-1, len(image))[:count].to(image)
