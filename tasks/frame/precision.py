"""The number format that layers compute in while they are trained; weights, states and everything else stay float32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = ("auto", "float32", "bfloat16")
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


def number_format(precision: str, device: torch.device) -> torch.dtype:
    """What layers compute in.

    ``auto`` asks for vectors of 512 bits on a CPU: bfloat16 units (AMX) are several times faster, but without such
    vectors PyTorch has no quick bfloat16 convolution at all, and float32 is faster by far.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    quick = device.type == "cuda" or (device.type == "cpu" and "AVX512" in torch.backends.cpu.get_cpu_capability())
    return torch.bfloat16 if quick else torch.float32


def in_hardware(kind: torch.dtype, device: torch.device) -> bool:
    """Whether a CPU multiplies bfloat16 numbers itself, so that they are quicker whatever the network."""
    offered = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return kind == torch.bfloat16 and bool(offered.get("avx512_bf16") or offered.get("amx_bf16"))


@contextlib.contextmanager
def inside(model: nn.Module, kind: torch.dtype) -> Iterator[None]:
    """Within, one module computes in this format, its layers and all between them, and answers in that of what it was
    given. Quicker than :func:`lowered`, and less exact.
    """
    with _changed([model], kind):
        yield


@contextlib.contextmanager
def lowered(model: nn.Module, kind: torch.dtype) -> Iterator[None]:
    """Within, the convolutions and linear maps of a model compute in this format and answer in that of what they were
    given: a solve around them sees one type, and its own algebra stays exact.
    """
    with _changed([part for part in model.modules() if isinstance(part, LAYERS)], kind):
        yield


@contextlib.contextmanager
def _changed(layers: Sequence[nn.Module], kind: torch.dtype) -> Iterator[None]:
    """Within, these answer in the format of what they are given and compute in this one."""
    if kind == torch.float32:
        yield
        return
    for layer in layers:
        layer.forward = _low(layer.forward, kind)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _low(forward: Callable[..., Tensor], kind: torch.dtype) -> Callable[..., Tensor]:
    def call(x: Tensor, *more: Any) -> Tensor:
        with torch.autocast(x.device.type, kind):
            return forward(x, *more).to(x.dtype)

    return call
