"""A convolution whose second derivatives cost what its first ones do.

PyTorch writes the second derivative of a convolution as convolutions with batch and channels swapped, which on a CPU
take several times as long as ordinary ones. Here the input gradient *is* an ordinary convolution, with the kernel
turned round, so its own derivatives are ordinary too; and input and weight gradients are separate nodes of the graph,
so that a vector-Jacobian product with respect to the input never computes a weight gradient that nobody asked for.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight


class _Weight(torch.autograd.Function):
    """conv(x, w) + b, differentiable in w and b alone. ``held``: a list with x, whose graph second derivatives need."""

    @staticmethod
    def forward(ctx: Any, held: list[Tensor], w: Tensor, b: Tensor | None) -> Tensor:
        ctx.held = held
        ctx.save_for_backward(w)
        return F.conv2d(held[0].detach(), w, b, padding=w.shape[-1] // 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor | None]:
        (w,), (x,), (g,) = ctx.saved_tensors, ctx.held, gradients
        bias = g.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return None, conv2d_weight(x, w.shape, g, padding=w.shape[-1] // 2), bias


class _Input(torch.autograd.Function):
    """The value y = conv(x, w) + b, differentiable in x; w counts as given by y, which passes its own gradient on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(w)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:
        (w,), (g,) = ctx.saved_tensors, gradients
        return convolve(g, w.transpose(0, 1).flip(2, 3)), None, g


def convolve(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """The convolution (B, C, H, W) -> (B, C', H, W) of odd size, with zeros outside; w (C', C, k, k), b (C',)."""
    return _Input.apply(x, w, _Weight.apply([x], w, b))  # type: ignore[return-value]


class SmoothConv2d(nn.Conv2d):
    """``nn.Conv2d`` of stride one and odd size that keeps the resolution, with quick second derivatives.

    (B, source, H, W) -> (B, target, H, W). size: of the kernel, odd.
    """

    def __init__(self, source: int, target: int, size: int) -> None:
        super().__init__(source, target, size, padding=size // 2)

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        assert bias is not None
        if torch.is_autocast_enabled(input.device.type):
            low = torch.get_autocast_dtype(input.device.type)
            input, weight, bias = input.to(low), weight.to(low), bias.to(low)
        return convolve(input, weight, bias)
