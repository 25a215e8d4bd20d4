"""The light of a photograph, told from the skin that it falls on."""

from __future__ import annotations

from torch import Tensor

_SKIN_LIGHTNESS = 0.28  # linear luminance of average skin in even light
_SKIN = (1.45, 1.0, 0.75)  # its linear RGB relative to green, in white light
# Share of an unusual hue, in powers, that is the light's (or the camera's): real teeth in eleven photographs and films,
# between skin of 1.5 : 1 : 0.7 and of 2.9 : 1 : 0.13, follow the hue of the skin with powers of 0.75 to 1.
_HUE = 0.8
_BRIGHTNESS = 0.6  # share of an unusual luminance: dark skin is not all shadow


def luminance(colours: Tensor) -> Tensor:
    """(..., 3) linear RGB -> (...), ITU-R BT.709."""
    return colours @ colours.new_tensor([0.2126, 0.7152, 0.0722])


def light_on(skin: Tensor) -> Tensor:
    """(B, 3) linear RGB of skin -> (B, 3) linear RGB of white in the same light."""
    hue = (skin.clamp(min=1e-3) / skin.new_tensor(_SKIN)) ** _HUE
    strength = (luminance(skin) / _SKIN_LIGHTNESS) ** _BRIGHTNESS
    return hue * (strength / luminance(hue))[:, None]
