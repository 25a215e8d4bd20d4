"""ONNX files for the experts that read them: written byte by byte, so that no package is needed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


# a few fields of ONNX's protobuf messages, enough for: mean of each channel -> linear layer
def varint(value: int) -> bytes:
    out = b""
    while True:
        value, low = value >> 7, value & 127
        out += bytes([low | (128 if value else 0)])
        if not value:
            return out


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def node(kind: str, inputs: list[str], output: str) -> bytes:
    return block(1, b"".join(block(1, name) for name in inputs) + block(2, output) + block(4, kind))


def tensor(name: str, values: torch.Tensor) -> bytes:
    dims = b"".join(number(1, size) for size in values.shape)
    raw = struct.pack(f"<{values.numel()}f", *values.flatten().tolist())
    return block(5, dims + number(2, 1) + block(8, name) + block(9, raw))


def port(field: int, name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(block(1, number(1, size)) for size in shape)
    return block(field, block(1, name) + block(2, block(1, number(1, 1) + block(2, dims))))


def _channel_model(
    path: Path, weight: torch.Tensor, bias: torch.Tensor | None = None, size: int = 16, batch: int = 1
) -> Path:
    bias = torch.zeros(weight.shape[1]) if bias is None else bias
    graph = b"".join(
        [
            node("GlobalAveragePool", ["input"], "pooled"),
            node("Flatten", ["pooled"], "flat"),
            node("Gemm", ["flat", "weight", "bias"], "output"),
            block(2, "channels"),
            tensor("weight", weight),
            tensor("bias", bias),
            port(11, "input", (batch, 3, size, size)),
            port(12, "output", (batch, weight.shape[1])),
        ]
    )
    path.write_bytes(number(1, 8) + block(7, graph) + block(8, block(1, "") + number(2, 13)))
    return path


@pytest.fixture(scope="session")
def channel_model() -> Callable[..., Path]:
    """channel_model(path, weight (3, K), bias (K) or None, size) -> ONNX file: mean colour @ weight + bias."""
    return _channel_model
