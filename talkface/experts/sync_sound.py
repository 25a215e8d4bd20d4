"""The spectra that the reference sync networks were trained on, number for number.

`mfcc` is that of the package python_speech_features at its defaults (SyncNet), `wav2lip_mel` that of Wav2Lip's
preparation (librosa's Slaney filters over a pre-emphasised sound). Neither package is needed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MFCC_RATE, MFCC_COUNT = 100, 13
MEL_RATE, MEL_BANDS = 80, 80
_RATE, _EMPHASIS = 16000, 0.97
_WINDOW, _STEP, _FFT, _FILTERS, _LIFTER = 400, 160, 512, 26, 22
_MEL_FFT, _MEL_HOP = 800, 200


def emphasised(samples: Tensor) -> Tensor:
    """x[n] - 0.97 x[n - 1], and x[0] as it is: (n,) -> (n,)."""
    return torch.cat([samples[:1], samples[1:] - _EMPHASIS * samples[:-1]])


def mfcc(samples: Tensor) -> Tensor:
    """MFCCs at 100 Hz, 25 ms each, the first replaced by the logarithm of the energy.

    Args:
        samples: (n,) at 16 kHz in [-1, 1]; they are scaled to the 16-bit range in which SyncNet learnt.

    Returns:
        (T, 13), T = 1 + ceil((n - 400) / 160), at least 1; frame i begins at i / 100 s.
    """
    sound = emphasised(samples.double() * 32768)
    count = 1 + max(0, math.ceil((len(sound) - _WINDOW) / _STEP))
    padded = F.pad(sound, (0, max(0, (count - 1) * _STEP + _WINDOW - len(sound))))
    power = torch.fft.rfft(padded.unfold(0, _WINDOW, _STEP)[:count], _FFT).abs().square() / _FFT
    least = torch.finfo(torch.float64).eps
    energy = power.sum(1)
    energy = torch.where(energy == 0, least, energy)
    bands = power @ _triangles().T.to(power)
    bands = torch.where(bands == 0, least, bands).log()
    # orthonormal DCT of type 2, then the lifter
    n, k = torch.arange(_FILTERS).double(), torch.arange(MFCC_COUNT).double()
    basis = torch.cos(math.pi / _FILTERS * (n[:, None] + 0.5) * k) * math.sqrt(2 / _FILTERS)
    basis[:, 0] /= math.sqrt(2)
    lift = 1 + _LIFTER / 2 * torch.sin(math.pi * k / _LIFTER)
    cepstra = bands @ basis.to(bands) * lift.to(bands)
    cepstra[:, 0] = energy.log()
    return cepstra.float()


def _triangles() -> Tensor:
    """(26, 257) triangular filters, evenly spaced in mel (2595 log10(1 + f / 700)), corners at whole bins."""
    top = 2595 * math.log10(1 + _RATE / 2 / 700)
    mels = torch.linspace(0, top, _FILTERS + 2, dtype=torch.float64)
    corners = ((_FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / _RATE).floor()
    bins = torch.arange(_FFT // 2 + 1).double()[None]
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rise = (bins - low) / (middle - low).clamp(min=1)
    fall = (high - bins) / (high - middle).clamp(min=1)
    return torch.where((bins >= low) & (bins < middle), rise, 0.0) + torch.where(
        (bins >= middle) & (bins < high), fall, 0.0
    )


def wav2lip_mel(samples: Tensor) -> Tensor:
    """Log-mel at 80 Hz as Wav2Lip's expert takes it: 80 bands from 55 to 7600 Hz, -100 ... 0 dB brought to -4 ... 4.

    Args:
        samples: (n,) at 16 kHz in [-1, 1].

    Returns:
        (T, 80), T = 1 + n // 200; frame i is centred at i / 80 s.
    """
    import torchaudio

    reach = _MEL_FFT // 2
    sound = emphasised(samples.float())
    if len(sound) <= reach:  # reflection needs something to reflect
        sound = F.pad(sound, (0, reach + 1 - len(sound)))
    window = torch.hann_window(_MEL_FFT, device=sound.device)
    spectrum = torch.stft(sound, _MEL_FFT, _MEL_HOP, window=window, center=True, return_complex=True).abs()
    filters = torchaudio.functional.melscale_fbanks(
        _MEL_FFT // 2 + 1, 55.0, 7600.0, MEL_BANDS, _RATE, norm="slaney", mel_scale="slaney"
    )
    level = 20 * (spectrum.T @ filters.to(spectrum)).clamp(min=1e-5).log10() - 20
    return (8 * (level + 100) / 100 - 4).clamp(-4, 4)
