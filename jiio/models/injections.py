"""Injections: u, what the input x says to the cell.

Evaluated once per forward pass, or once per step where x itself is being optimised. u is one tensor (B, ...) or, for a
state of several branches, a tuple with one feature map each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..checks import CellError, check_integer, fail
from ..persample import SampleBySample
from .layers import check_dtype, check_image, check_sizes, convolution, elementwise, group_norm


class LinearInjection(SampleBySample, nn.Module):
    """u = U x + b for a dense state. x: (B, ...) with ``inputs`` numbers per sample -> (B, features)."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.inputs = check_integer("inputs", inputs, 1)
        self.linear = nn.Linear(inputs, check_integer("features", features, 1))
        nn.init.normal_(self.linear.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if flat.shape[1] != self.inputs:
            fail("x", f"{self.inputs} numbers per sample", x, error=CellError)
        check_dtype("x", x, self.linear.weight)
        return self.linear(flat)

    @property
    def lipschitz(self) -> float:
        """The spectral norm of U, a bound on |u - u'| / |x - x'|."""
        with torch.no_grad():
            return float(torch.linalg.matrix_norm(self.linear.weight, 2))


class ConvInjection(SampleBySample, nn.Module):
    """The stem: two conv3x3 + group norm + activation, each of the first ``halvings`` with stride 2.

    x: (B, source, H, W) -> u: (B, channels, H / 2**halvings, W / 2**halvings), for the finest branch. groups: of the
    group norm, a divisor of ``channels``. activation: "relu", "tanh", "elu", "softplus", "silu" or "gelu".
    ``divisor`` is what H and W must be multiples of; a cell with n branches needs 2**(halvings + n - 1). Group norm
    instead of the batch norm of the paper: with batch statistics x would be a different problem for every batch it is
    solved in.
    """

    def __init__(
        self,
        source: int,
        channels: int,
        *,
        halvings: int = 0,
        groups: int = 4,
        activation: str = "relu",
        divisor: int | None = None,
    ) -> None:
        super().__init__()
        self.source = check_integer("source", source, 1)
        if check_integer("halvings", halvings, 0) > 2:
            fail("halvings", "0, 1 or 2 steps of stride 2 in the stem", halvings)
        self.divisor = 2**halvings if divisor is None else divisor

        # Each halving is the stride of one convolution, the first ones first.
        self.conv1 = convolution(source, channels, 3, stride=2 if halvings > 0 else 1)
        self.conv2 = convolution(channels, channels, 3, stride=2 if halvings > 1 else 1)
        self.norm1, self.norm2 = group_norm(channels, groups), group_norm(channels, groups)
        self.act = elementwise(activation)

    def forward(self, x: Tensor) -> Tensor:
        check_image("x", x, self.source, self.divisor)
        check_dtype("x", x, self.conv1.weight)
        y = self.act(self.norm1(self.conv1(x)))
        return self.act(self.norm2(self.conv2(y)))


class DecoderInjection(SampleBySample, nn.Module):
    """From a latent code to feature maps: a linear layer writes a few maps per branch, a 1x1 convolution widens them.

    x: (B, latent) -> a tuple with u_i (B, channels_i, H / 2**i, W / 2**i), one per branch; a single tensor where there
    is one branch. Branch i gets planes * 2**i maps (at most channels_i), so every resolution hears of the latent code,
    and a linear basis of the images is within reach at once. The offset starts at random values: at x = 0, where input
    optimisation usually starts, the cell is driven like anywhere else.

    latent: numbers in a code. channels: of each branch, finest first. size: (H, W) of the finest branch. planes: maps
    of the latent code in that branch.
    """

    def __init__(self, latent: int, channels: tuple[int, ...], size: tuple[int, int], *, planes: int = 1) -> None:
        super().__init__()
        self.latent = check_integer("latent", latent, 1)
        check_integer("planes", planes, 1)
        channels = check_sizes("channels", channels)
        height, width = check_sizes("size", size, 2)
        divisor = 2 ** (len(channels) - 1)
        if height % divisor or width % divisor:
            fail("size", f"sides that are multiples of {divisor} for {len(channels)} branches", size)

        # The maps (planes_i, H_i, W_i) of every branch, as slices of one long vector.
        self.shapes = tuple((min(planes * 2**i, c), height // 2**i, width // 2**i) for i, c in enumerate(channels))
        self.sizes = tuple(math.prod(shape) for shape in self.shapes)
        self.linear = nn.Linear(latent, sum(self.sizes))
        nn.init.normal_(self.linear.weight, std=latent**-0.5)
        nn.init.normal_(self.linear.bias)  # a drive at x = 0
        self.widen = nn.ModuleList(convolution(s[0], c, 1) for s, c in zip(self.shapes, channels, strict=True))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if x.dim() != 2 or x.shape[1] != self.latent:
            fail("x", f"latent codes of shape (B, {self.latent})", x, error=CellError)
        check_dtype("x", x, self.linear.weight)
        parts = self.linear(x).split(self.sizes, dim=1)
        maps = tuple(
            widen(part.unflatten(1, shape)) for widen, part, shape in zip(self.widen, parts, self.shapes, strict=True)
        )
        return maps if len(self.widen) > 1 else maps[0]
