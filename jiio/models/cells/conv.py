"""A convolutional cell, one residual block on a map of features, and its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...checks import check_choice, check_integer, check_number
from ...layout import Tree
from ...outputs.shares import drawn
from ..layers import BLOCK_ACTIVATIONS, check_groups, convolution, elementwise, group_norm, zeros
from .base import AbstractCell, AbstractCellConfig


def check_block(config: Any) -> None:
    """Raise unless the fields that configurations of residual blocks share are usable."""
    check_integer("expansion", config.expansion, 1)
    check_choice("activation", config.activation, BLOCK_ACTIVATIONS)
    check_number("dropout", config.dropout, 0.0, 0.95)
    check_number("drive", config.drive, 0.0, open_low=True)


@dataclass(frozen=True)
class ConvConfig(AbstractCellConfig):
    """A :class:`ConvCell`: one feature map. Fields as in :class:`MultiscaleConfig`."""

    kind = "conv"
    channels: int = 24
    expansion: int = 2
    groups: int = 4
    activation: str = "relu"
    dropout: float = 0.0
    weight_norm: bool = True
    halvings: int = 0
    planes: int = 1
    head_channels: tuple[int, ...] = (8,)
    final_channels: int = 64
    drive: float = 3.0

    def __post_init__(self) -> None:
        check_integer("channels", self.channels, 1)
        check_groups("groups", self.channels, self.groups)
        check_block(self)
        self.check()

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.channels,)

    def cell(self, injected: int = 1) -> ConvCell:
        settings = {name: getattr(self, name) for name in BLOCK}
        return ConvCell(self.channels, dropout=self.dropout, **settings)


BLOCK = ("expansion", "groups", "activation", "weight_norm", "drive")  # what a configuration says to its blocks


class ResidualBlock(nn.Module):
    """The residual block of MDEQ (Bai, Koltun and Kolter 2020) at one resolution; keeps the shape (B, C, H, W).

        y = act(GN1(conv3x3(z)));  y = GN2(mask * conv3x3(y) + u) + z;  f = GN3(act(y))

    ``drive`` above 1 makes the map forget z at the start of training. Group norm undoes every scale, so what counts is
    each term of a sum against the others: an ``injected`` block starts with conv2 at 1/drive**2 of u and GN2 at drive
    times z; a block without u would only normalise echoes of z, so its GN2 and its whole output (GN3) start at 1/drive
    of what arrives from other branches.
    """

    def __init__(
        self,
        channels: int,
        *,
        expansion: int,
        groups: int,
        activation: str,
        weight_norm: bool,
        drive: float,
        injected: bool = True,
    ) -> None:
        super().__init__()
        hidden = channels * expansion
        self.conv1 = convolution(channels, hidden, 3, weight_norm=weight_norm)
        self.conv2 = convolution(hidden, channels, 3, weight_norm=weight_norm, gain=drive**-2)
        self.norm1, self.norm2, self.norm3 = (group_norm(c, groups) for c in (hidden, channels, channels))
        self.act = elementwise(activation)

        # Only what hears of the input is loud at the start.
        nn.init.constant_(self.norm2.weight, drive if injected else 1.0 / drive)
        nn.init.constant_(self.norm3.weight, 1.0 if injected else 1.0 / drive)

    def forward(self, z: Tensor, u: Tensor | None, mask: Tensor | None) -> Tensor:
        y = self.conv2(self.act(self.norm1(self.conv1(z))))
        if mask is not None:
            y = y * mask
        if u is not None:
            y = y + u
        return self.norm3(self.act(self.norm2(y) + z))


def draw_mask(z: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """(B, C, 1, 1): whole channels kept with probability 1 - dropout, scaled so that the mean stays."""

    def draw(n: int) -> Tensor:
        return torch.rand((n, z.shape[1], 1, 1), generator=generator, device=z.device, dtype=torch.float32)

    keep = drawn(draw, len(z)) >= dropout
    return keep.to(z.dtype) / (1.0 - dropout)


class ConvCell(AbstractCell):
    """One residual block (see ``ResidualBlock``) on a feature map z (B, channels, H, W).

    channels: width of the state. expansion, groups, activation, dropout, weight_norm, drive: as in
    :class:`MultiscaleConfig`.
    """

    def __init__(
        self,
        channels: int,
        *,
        expansion: int = 2,
        groups: int = 4,
        activation: str = "relu",
        dropout: float = 0.0,
        weight_norm: bool = True,
        drive: float = 3.0,
    ) -> None:
        super().__init__()
        self.channels = check_integer("channels", channels, 1)
        self.dropout = check_number("dropout", dropout, 0.0, 0.95)
        check_integer("expansion", expansion, 1)
        check_groups("groups", channels, groups)
        check_choice("activation", activation, BLOCK_ACTIVATIONS)

        # The block is injected: there is no other branch from which it could hear of u.
        self.block = ResidualBlock(
            channels, expansion=expansion, groups=groups, activation=activation, weight_norm=weight_norm, drive=drive
        )

    def forward(self, z: Tensor, u: Tensor, masks: Tree | None = None) -> Tensor:
        """z, u: (B, channels, H, W) -> the same shape. masks: (B, channels, 1, 1) or None."""
        return self.block(z, u, masks)

    def initial_state(self, u: Tensor) -> Tensor:
        """(B, channels, H, W) of zeros."""
        return zeros(u, self.channels, *u.shape[2:])

    def draw_masks(self, z: Tensor, generator: torch.Generator) -> Tensor | None:
        """(B, channels, 1, 1)."""
        return draw_mask(z, self.dropout, generator) if self.dropout else None
