"""The monotone equilibrium cell and its configuration.

Winston and Kolter, "Monotone operator equilibrium networks", NeurIPS 2020.

The equilibrium z = act(W z + u) with W = (1 - m) I - A^T A + B - B^T has exactly one solution for every A, B and u:
S = I - W is strongly monotone, <S z, z> >= m |z|^2. The plain iteration of that equation need not converge, so the cell
is the forward-backward step

    f(z, u) = act(z - alpha (S z - u)),     alpha = m / L^2,     L >= |S|_2,

whose fixed point for act = relu is the same, whatever alpha (relu is the proximal map of a cone at every step size).
It contracts:

    |z - alpha S z|^2 <= (1 - 2 alpha m + alpha^2 L^2) |z|^2 = (1 - m^2 / L^2) |z|^2.

L is a bound, not an estimate: |S|_2 <= (tr (S^T S)^8)^(1/16), at most n^(1/16) times too large (1.3 for n = 64), smooth
in the weights, and computed by three matrix products. For an increasing, 1-Lipschitz act other than relu (softplus,
tanh) the same bounds hold, and the unique fixed point solves z = act((1 - alpha) z + alpha (W z + u)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...checks import check_choice, check_integer, check_number
from ...layout import Tree
from ..layers import elementwise, zeros
from .base import AbstractCell, AbstractCellConfig

MONOTONE_ACTIVATIONS = ("relu", "softplus", "tanh")  # increasing and 1-Lipschitz


@dataclass(frozen=True)
class MonotoneConfig(AbstractCellConfig):
    """A vector state with one equilibrium by construction; the fields are the arguments of :class:`MonotoneCell`."""

    kind = "monotone"
    features: int = 64
    m: float = 1.0
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_integer("features", self.features, 1)
        check_number("m", self.m, 0.0, open_low=True)
        check_choice("activation", self.activation, MONOTONE_ACTIVATIONS)

    @property
    def widths(self) -> int:
        return self.features

    def cell(self, injected: int = 1) -> MonotoneCell:
        return MonotoneCell(self.features, m=self.m, activation=self.activation)


def operator(factors: Tensor, m: float) -> Tensor:
    """S = I - W = m I + A^T A - B + B^T, (n, n); factors: (2, n, n) holds A and B."""
    a, b = factors
    eye = torch.eye(a.shape[0], dtype=a.dtype, device=a.device)
    return m * eye + a.t() @ a - b + b.t()


def norm_bound(s: Tensor) -> Tensor:
    """A scalar at or above |s|_2: the Schatten norm of order 16. Scaled first, as 16th powers overflow."""
    scale = torch.linalg.vector_norm(s).detach()
    gram = (s / scale).t() @ (s / scale)
    gram = gram @ gram
    gram = gram @ gram
    # The factor covers the rounding of three products.
    return scale * gram.square().sum().pow(1.0 / 16.0) * (1.0 + 1e-5)


class ForwardBackward(nn.Module):
    """Parametrisation (2, n, n) -> (n + 1, n): the transposed matrix I - alpha S, and below it a row filled with alpha.

    Both in one tensor, so that the engine, which holds parametrised weights fixed during a solve, computes them once.
    """

    def __init__(self, m: float) -> None:
        super().__init__()
        self.m = m

    def forward(self, factors: Tensor) -> Tensor:
        # In half precision 16th powers vanish.
        s = operator(factors.to(torch.promote_types(factors.dtype, torch.float32)), self.m)
        alpha = self.m / norm_bound(s).square()
        eye = torch.eye(s.shape[0], dtype=s.dtype, device=s.device)
        return torch.cat((eye - alpha * s.t(), alpha.expand(1, s.shape[0]))).to(factors.dtype)


class MonotoneCell(AbstractCell):
    """f on a vector state z (B, features), see the module.

    features: numbers in the state. m: the monotonicity, above 0; 1 / m bounds the slope of z*(u). activation: "relu",
    "softplus" or "tanh".
    """

    def __init__(self, features: int, *, m: float = 1.0, activation: str = "relu") -> None:
        super().__init__()
        self.features = check_integer("features", features, 1)
        self.m = check_number("m", m, 0.0, open_low=True)
        self.act = elementwise(check_choice("activation", activation, MONOTONE_ACTIVATIONS))
        # |A|_2^2 is about 1/4 and |B - B^T|_2 about 0.7 at the start.
        self.step = nn.Parameter(torch.randn(2, features, features) * (0.25 / math.sqrt(features)))
        parametrize.register_parametrization(self, "step", ForwardBackward(m), unsafe=True)

    def forward(self, z: Tensor, u: Tensor, masks: Tree | None = None) -> Tensor:
        """z, u: (B, features) -> (B, features)."""
        step = self.step
        return self.act(torch.addmm(step[-1] * u, z, step[:-1]))

    def initial_state(self, u: Tensor) -> Tensor:
        """(B, features) of zeros."""
        return zeros(u, self.features)

    @property
    def operator(self) -> Tensor:
        """S = I - W, (features, features), for the present weights."""
        return operator(self.parametrizations.step.original, self.m)  # type: ignore[union-attr]

    @property
    def contraction(self) -> float:
        """A bound below 1 on |f(z, u) - f(z', u)| / |z - z'|: sqrt(1 - m^2 / L^2)."""
        with torch.no_grad():
            ratio = self.m / float(norm_bound(self.operator))
        return math.sqrt(max(1.0 - ratio * ratio, 0.0))

    @property
    def lipschitz(self) -> float:
        """A bound on |z*(u) - z*(u')| / |u - u'|: 1 / m, whatever the weights (Pabbaraju, Winston and Kolter 2021)."""
        return 1.0 / self.m
