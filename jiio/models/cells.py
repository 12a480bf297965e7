"""Cells: the map f(z, u) whose fixed point is the network; u is what the input says to it, see ``injections``.

A cell is an ``nn.Module`` with ``forward(z, u) -> z`` (same tree, shapes, dtype) and ``initial_state(u) -> z0``;
everything built here derives from :class:`AbstractCell`, which also draws dropout masks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm as apply_weight_norm

from ..checks import check_choice, check_integer, check_number
from ..layout import Tree
from .layers import (
    ACTIVATIONS,
    BLOCK_ACTIVATIONS,
    check_groups,
    convolution,
    elementwise,
    group_norm,
    zeros,
)


class AbstractCell(nn.Module, ABC):
    """Base of the cells. No state between calls: a map that changes during a solve has no fixed point."""

    dropout: float = 0.0

    @abstractmethod
    def forward(self, z: Tree, u: Tree, masks: Tree | None = None) -> Tree:
        """One application of f: a new tree with the shapes of z. ``masks``: from :meth:`draw_masks`, None without."""

    @abstractmethod
    def initial_state(self, u: Tree) -> Tree:
        """z0 = 0, with the batch, dtype and device of u."""

    def draw_masks(self, z: Tree, generator: torch.Generator) -> Tree | None:
        """Variational dropout masks for the state z, to be held fixed for a whole solve; None without dropout."""
        return None


class SpectralClamp(nn.Module):
    """Parametrisation W = V * min(1, bound / |V|_2): the spectral norm never passes ``bound``.

    The norm is exact (singular values), not a power iteration, whose running estimate would change W from call to call.
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, v: Tensor) -> Tensor:
        return v * (self.bound / torch.linalg.matrix_norm(v, 2)).clamp_max(1.0)


class DenseCell(AbstractCell):
    """f(z, u) = act(W z + u) on a vector state z (B, features).

    At initialisation f is a contraction with factor ``gain`` in the Euclidean norm. ``scaling`` says what holds later:
    "spectral" keeps the factor at or below ``gain`` for good, "weight" is weight norm (row lengths as parameters),
    "none" a free matrix; the last two can leave the contraction in training, which a Jacobian penalty discourages.
    """

    def __init__(self, features: int, *, activation: str = "tanh", scaling: str = "none", gain: float = 0.8) -> None:
        super().__init__()
        self.features = check_integer("features", features, 1)
        check_choice("scaling", scaling, ("none", "weight", "spectral"))
        check_choice("activation", activation, ACTIVATIONS)
        self.act, self._slope = ACTIVATIONS[activation]
        bound = check_number("gain", gain, 0.0, open_low=True) / self._slope
        self.weight = nn.Parameter(torch.empty(features, features))
        nn.init.normal_(self.weight)
        with torch.no_grad():
            self.weight.mul_(bound / torch.linalg.matrix_norm(self.weight, 2))
        if scaling == "spectral":
            parametrize.register_parametrization(self, "weight", SpectralClamp(bound))
        elif scaling == "weight":
            apply_weight_norm(self, "weight")

    def forward(self, z: Tensor, u: Tensor, masks: Tree | None = None) -> Tensor:
        """z, u: (B, features) -> (B, features)."""
        return self.act(torch.addmm(u, z, self.weight.t()))

    def initial_state(self, u: Tensor) -> Tensor:
        """(B, features) of zeros."""
        return zeros(u, self.features)

    @property
    def contraction(self) -> float:
        """A bound on |f(z, u) - f(z', u)| / |z - z'| for the present weights; above 1 nothing is promised."""
        with torch.no_grad():
            return self._slope * float(torch.linalg.matrix_norm(self.weight, 2))

    @property
    def lipschitz(self) -> float:
        """A bound on |z*(u) - z*(u')| / |u - u'|; infinite where f is not known to contract."""
        factor = self.contraction
        return self._slope / (1.0 - factor) if factor < 1.0 else math.inf


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
        nn.init.constant_(self.norm2.weight, drive if injected else 1.0 / drive)
        nn.init.constant_(self.norm3.weight, 1.0 if injected else 1.0 / drive)
        self.act = elementwise(activation)

    def forward(self, z: Tensor, u: Tensor | None, mask: Tensor | None) -> Tensor:
        y = self.conv2(self.act(self.norm1(self.conv1(z))))
        if mask is not None:
            y = y * mask
        if u is not None:
            y = y + u
        return self.norm3(self.act(self.norm2(y) + z))


def draw_mask(z: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """(B, C, 1, 1): whole channels kept with probability 1 - dropout, scaled so that the mean stays."""
    keep = torch.rand((*z.shape[:2], 1, 1), generator=generator, device=z.device, dtype=torch.float32) >= dropout
    return keep.to(z.dtype) / (1.0 - dropout)


class ConvCell(AbstractCell):
    """One residual block (see :class:`ResidualBlock`) on a feature map z (B, channels, H, W)."""

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
