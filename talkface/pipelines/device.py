"""Which device computes, in which precision."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import nn

from talkface.errors import TalkfaceError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """`auto` takes the first of CUDA, MPS, CPU that is there.

    Raises:
        TalkfaceError: the device does not exist here.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present[:0] = ["cuda"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    chosen = present[0] if str(name) == "auto" else str(name)
    if chosen not in present:
        raise TalkfaceError(f"device: {name}; allowed here are auto, {', '.join(present)}")
    return torch.device(chosen)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bf16 on a CUDA device or a processor that computes in it, fp32 elsewhere.

    Raises:
        TalkfaceError: unknown, or not offered by the device.
    """
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            # emulated bf16 is slower than fp32; torch tells of the instructions by a private name only
            native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
            fast = device.type == "cpu" and bool(native())
        return torch.bfloat16 if fast else torch.float32
    if name not in PRECISIONS:
        raise TalkfaceError(f"precision: {name}; allowed are auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type != "cuda":
        raise TalkfaceError(
            f"precision: fp16 needs a CUDA device, this is {device}; allowed here are fp32, bf16"
        )
    return PRECISIONS[name]


def fast_layout(network: nn.Module) -> nn.Module:
    """Store convolution weights channels last, which the kernels of CPUs and GPUs prefer.

    Results differ by rounding only. On the CPU the bundle's decoder takes a quarter less time.
    """
    # torch's own types leave out this form of Module.to, which its documentation has
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision for networks; nothing for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
