"""Parts of an equilibrium network on images of any size, in which everything is local and smooth.

There is no normalisation over the image, so what happens in a window depends on its surroundings only, up to the reach
of the network: a large picture can be treated in overlapping tiles. And the activation has a derivative everywhere,
because the network is the gradient of something, see :mod:`jiio.models.images.prior`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check_choice, check_integer
from ...layout import Tree
from ...persample import SampleBySample
from ..cells.base import AbstractCell
from ..layers import check_dtype, check_image, elementwise
from .smooth import SmoothConv2d

SMOOTH_ACTIVATIONS = ("elu", "softplus", "silu", "gelu", "tanh")
# Images in [0, 1] vary by about 0.25 and noise levels by about 0.1: both enter the network in units near one.
IMAGE_SCALE, LEVEL_SCALE = 4.0, 8.0


class LevelInjection(SampleBySample, nn.Module):
    """u = conv3x3(image at half resolution, noise level).

    ``forward(x, level)``: x (B, channels, H, W), level (B,) in the units of x -> (B, features, H/2, W/2). Four pixels
    become four channels, as in FFDNet (Zhang et al. 2018), so no detail is lost. Sides that 4 does not divide are
    continued by their last row or column.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = SmoothConv2d(4 * channels + 1, features, 3)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        check_image("x", x, self.channels)
        check_dtype("x", x, self.conv.weight)
        missing = (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)
        if any(missing):
            x = F.pad(x, missing, mode="replicate")
        shape = (len(x), 1, x.shape[2] // 2, x.shape[3] // 2)
        plane = (LEVEL_SCALE * level.to(x) - 1.0).view(-1, 1, 1, 1).expand(shape)
        return self.conv(torch.cat([F.pixel_unshuffle(IMAGE_SCALE * (x - 0.5), 2), plane], 1))


class TwoScaleCell(AbstractCell):
    """f(z, u) = u + conv(act(h + up(body(down(h))))), h = act(conv(z)), on a map z (B, features, H, W).

    activation: "elu", "softplus", "silu", "gelu" or "tanh". ``body``: ``depth`` convolutions of ``wide`` channels at
    half the resolution of z. Convolutions are 3x3. Starts as a contraction, and as nearly linear.
    """

    def __init__(self, features: int, *, wide: int = 96, depth: int = 2, activation: str = "elu") -> None:
        super().__init__()
        self.features = check_integer("features", features, 1)
        check_integer("wide", wide, 1)
        check_choice("activation", activation, SMOOTH_ACTIVATIONS)
        self.act = elementwise(activation)
        self.first, self.last = SmoothConv2d(features, features, 3), SmoothConv2d(features, features, 3)
        self.down = SmoothConv2d(4 * features, wide, 1)
        self.body = nn.ModuleList(SmoothConv2d(wide, wide, 3) for _ in range(check_integer("depth", depth, 1)))
        self.up = SmoothConv2d(wide, 4 * features, 1)
        with torch.no_grad():
            for layer in (self.last, self.up):
                layer.weight.mul_(0.3)

    def forward(self, z: Tensor, u: Tensor, masks: Tree | None = None) -> Tensor:
        """z, u: (B, features, H, W) with even sides -> the same shape."""
        fine = self.act(self.first(z))
        coarse = self.act(self.down(F.pixel_unshuffle(fine, 2)))
        for layer in self.body:
            coarse = self.act(layer(coarse))
        return u + self.last(self.act(fine + F.pixel_shuffle(self.up(coarse), 2)))

    def initial_state(self, u: Tensor) -> Tensor:
        """u itself, which is f without its body."""
        return u.detach().clone()


class ResidualHead(SampleBySample, nn.Module):
    """From the state (B, features, H/2, W/2) to what the network holds for noise, (B, channels, H, W)."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.conv = SmoothConv2d(features, 4 * channels, 3)
        with torch.no_grad():
            self.conv.weight.mul_(0.3)

    def forward(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(z), 2) / IMAGE_SCALE
