"""The dense cell, f(z, u) = act(W z + u) on a vector, and its configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm as apply_weight_norm

from ...checks import check_choice, check_integer, check_number
from ...layout import Tree
from ..layers import ACTIVATIONS, zeros
from .base import AbstractCell, AbstractCellConfig


@dataclass(frozen=True)
class DenseConfig(AbstractCellConfig):
    """A vector state, f = act(W z + u); the fields are the arguments of :class:`DenseCell`."""

    kind = "dense"
    features: int = 64
    activation: str = "tanh"
    scaling: str = "none"
    gain: float = 0.8

    def __post_init__(self) -> None:
        check_integer("features", self.features, 1)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("scaling", self.scaling, ("none", "weight", "spectral"))
        check_number("gain", self.gain, 0.0, open_low=True)

    @property
    def widths(self) -> int:
        return self.features

    def cell(self, injected: int = 1) -> DenseCell:
        return DenseCell(self.features, activation=self.activation, scaling=self.scaling, gain=self.gain)


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

    features: numbers in the state. activation: "relu", "tanh", "elu", "softplus", "silu" or "gelu". scaling: "none",
    "weight" or "spectral". gain: above 0; below 1 for a contraction.
    """

    def __init__(self, features: int, *, activation: str = "tanh", scaling: str = "none", gain: float = 0.8) -> None:
        super().__init__()
        self.features = check_integer("features", features, 1)
        check_choice("scaling", scaling, ("none", "weight", "spectral"))
        check_choice("activation", activation, ACTIVATIONS)
        self.act, self._slope = ACTIVATIONS[activation]

        # |W|_2 times the slope of act is the factor of the contraction.
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
