"""The multiscale cell of MDEQ, its configuration and the sizes of known models.

Bai, Koltun and Kolter, "Multiscale deep equilibrium models", NeurIPS 2020.

The state is a tuple of feature maps, branch i at 1/2**i of the resolution of branch 0. One application of f:

    residual block, each branch:   see :class:`jiio.models.cells.conv.ResidualBlock`
    fusion:                        t_i = sum_j T_ji(y_j);   f_i = GN(conv1x1(act(t_i)))
        T_ji downward (j < i):     i - j times conv3x3 with stride 2 + GN, act in between
        T_ji upward (j > i):       conv1x1 + GN + nearest up-sampling
        T_ii:                      identity
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import CellError, check_choice, check_integer, fail
from ..layers import (
    check_groups,
    check_image,
    check_sizes,
    convolution,
    elementwise,
    group_norm,
    zeros,
)
from .base import AbstractCell, AbstractCellConfig
from .conv import BLOCK, ResidualBlock, check_block, draw_mask

MAX_BRANCHES = 8  # the sides of branch 0 are then multiples of 128


@dataclass(frozen=True)
class MultiscaleConfig(AbstractCellConfig):
    """The sizes of a multiscale model.

    channels: width of each branch, finest first. expansion: the hidden width of a block is this times the width.
    groups, fusion_groups: group norm in the blocks and after the fusion. activation: "relu", "softplus", "silu" or
    "gelu". dropout: variational, of whole channels. weight_norm: of the convolutions of the cell.
    halvings: resolution of branch 0 is that of the image over 2**halvings. planes: maps that a latent code writes into
    branch 0 (decoders). head_channels, final_channels: the bottlenecks of a classifier head (width out: 4 times
    head_channels) and its last layer. drive: how much the injected term counts against the old state at the start, see
    ``ResidualBlock``.
    """

    kind = "multiscale"
    channels: tuple[int, ...] = (24, 24)
    expansion: int = 5
    groups: int = 8
    fusion_groups: int = 4
    activation: str = "relu"
    dropout: float = 0.0
    weight_norm: bool = True
    halvings: int = 0
    planes: int = 1
    head_channels: tuple[int, ...] = (8, 16)
    final_channels: int = 200
    drive: float = 3.0

    def __post_init__(self) -> None:
        if len(check_sizes("channels", self.channels)) > MAX_BRANCHES:
            fail("channels", f"at most {MAX_BRANCHES} branches", f"{len(self.channels)}")
        for width in self.channels:
            check_groups("groups", width, self.groups)
            check_groups("fusion_groups", width, self.fusion_groups)
        check_block(self)
        self.check()

    @classmethod
    def preset(cls, name: str, **changes: Any) -> MultiscaleConfig:
        """A configuration by name (one of ``PRESETS``). changes: fields that are others."""
        return replace(PRESETS[check_choice("preset", name, PRESETS)], **changes)

    @property
    def widths(self) -> tuple[int, ...]:
        return self.channels

    def cell(self, injected: int = 1) -> MultiscaleCell:
        return MultiscaleCell(self, injected=injected)


class Fusion(nn.Module):
    """Every branch sees every other: the sum over T_ji, then act, conv1x1 and GN without affine weights."""

    def __init__(self, config: MultiscaleConfig, injected: int) -> None:
        super().__init__()
        self.act = elementwise(config.activation)
        widths = config.channels

        # T_ji by the name "j_i", for every i in turn; one from a branch without injection is quiet, see ResidualBlock.
        self.paths = nn.ModuleDict()
        for i, j in itertools.permutations(range(len(widths)), 2):
            path = self._path(j, i, config)
            if j >= injected:
                _soften(path, config.drive)
            self.paths[f"{j}_{i}"] = path

        # Without affine weights: every branch of the state has the scale one, whatever is learnt.
        self.mix = nn.ModuleList(convolution(c, c, 1, weight_norm=config.weight_norm) for c in widths)
        self.norms = nn.ModuleList(group_norm(c, config.fusion_groups, affine=False) for c in widths)

    def _path(self, source: int, target: int, config: MultiscaleConfig) -> nn.Sequential:
        """T_ji from the branch ``source``, j, to the branch ``target``, i."""
        width, wanted = config.channels[source], config.channels[target]
        if source < target:
            return self._down(width, wanted, target - source, config)
        return nn.Sequential(
            convolution(width, wanted, 1, weight_norm=config.weight_norm), group_norm(wanted, config.fusion_groups)
        )

    @staticmethod
    def _down(source: int, target: int, steps: int, config: MultiscaleConfig) -> nn.Sequential:
        layers: list[nn.Module] = []
        for step in range(steps):
            last = step == steps - 1
            width = target if last else source
            layers.append(convolution(source, width, 3, stride=2, weight_norm=config.weight_norm))
            layers.append(group_norm(width, config.fusion_groups))
            if not last:
                layers.append(Elementwise(config.activation))
        return nn.Sequential(*layers)

    def forward(self, y: list[Tensor]) -> tuple[Tensor, ...]:
        fused = []
        for i, (mix, norm) in enumerate(zip(self.mix, self.norms, strict=True)):
            total = y[i]
            for j, source in enumerate(y):
                if j == i:
                    continue
                arrived = self.paths[f"{j}_{i}"](source)
                if j > i:
                    arrived = F.interpolate(arrived, scale_factor=float(2 ** (j - i)), mode="nearest")
                total = total + arrived
            fused.append(norm(mix(self.act(total))))
        return tuple(fused)


def _soften(path: nn.Sequential, drive: float) -> None:
    for layer in path:
        if isinstance(layer, nn.GroupNorm):
            nn.init.constant_(layer.weight, 1.0 / drive)


class Elementwise(nn.Module):
    """An activation as a module, out of place."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.act = elementwise(name)

    def forward(self, y: Tensor) -> Tensor:
        return self.act(y)


class MultiscaleCell(AbstractCell):
    """f on a tuple of feature maps z_i (B, channels_i, H / 2**i, W / 2**i).

    config: its sizes. u: a tensor (B, channels_0, H, W), injected into branch 0 alone as in the paper (``injected`` =
    1), or a tuple with one map for each branch (``injected`` = number of branches).
    """

    def __init__(self, config: MultiscaleConfig, *, injected: int = 1) -> None:
        super().__init__()
        self.config = config
        self.dropout = config.dropout
        self.injected = check_integer("injected", injected, 1)
        if injected not in (1, len(config.channels)):
            fail("injected", f"1 or all {len(config.channels)} branches", injected)
        settings = {name: getattr(config, name) for name in BLOCK}
        self.blocks = nn.ModuleList(
            ResidualBlock(width, injected=i < self.injected, **settings) for i, width in enumerate(config.channels)
        )
        self.fusion = Fusion(config, self.injected)

    def forward(
        self, z: tuple[Tensor, ...], u: Tensor | tuple[Tensor, ...], masks: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, ...]:
        """z, u: see the class; masks: a tuple of (B, channels_i, 1, 1) or None. Returns a tuple like z."""
        n = len(self.blocks)
        said = (u, *[None] * (n - 1)) if isinstance(u, Tensor) else u
        held = (None,) * n if masks is None else masks
        y = [block(*parts) for block, *parts in zip(self.blocks, z, said, held, strict=True)]
        return self.fusion(y)

    def initial_state(self, u: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A tuple of zeros. The sides of branch 0 must be multiples of 2**(branches - 1)."""
        widths = self.config.channels
        said = (u,) if isinstance(u, Tensor) else u
        if len(said) != self.injected:
            fail("u", f"{self.injected} injected feature map(s)", f"{len(said)}", error=CellError)
        finest = check_image("u", said[0], widths[0], 2 ** (len(widths) - 1))
        height, width = finest.shape[2:]
        return tuple(zeros(finest, c, height // 2**i, width // 2**i) for i, c in enumerate(widths))

    def draw_masks(self, z: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...] | None:
        """A tuple of (B, channels_i, 1, 1)."""
        return tuple(draw_mask(z_i, self.dropout, generator) for z_i in z) if self.dropout else None


PRESETS: dict[str, MultiscaleConfig] = {
    # Whole models below 100k parameters, for a CPU.
    "tiny": MultiscaleConfig((16, 24), 2, 4, 4, head_channels=(6, 8), final_channels=64),
    # The sizes of the CIFAR models in the paper's code.
    "cifar-tiny": MultiscaleConfig((24, 24), head_channels=(8, 16), final_channels=200),
    "cifar-large": MultiscaleConfig(
        (32, 64, 128, 256), dropout=0.3, head_channels=(14, 28, 56, 112), final_channels=1680
    ),
    # JIIO's generative model for 64x64 faces: latent 128, tanh output.
    "decoder-64": MultiscaleConfig((32, 64, 128, 256), head_channels=(14, 28, 56, 112), final_channels=1680),
    # Small grey or colour images, 24x24 or 32x32.
    "decoder-small": MultiscaleConfig((24, 32), 3, 4, 4, planes=1, head_channels=(8, 16), final_channels=128),
}
