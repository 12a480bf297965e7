"""An input-convex potential, and the projection of a field along which it falls.

Manek and Kolter, "Learning stable deep dynamics models", NeurIPS 2019.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import check_integer, check_number
from ..layers import check_sizes


class ConvexPotential(nn.Module):
    """v(r) = s(q(r) - q(0)) + floor |r|^2: convex, v(0) = 0, v(r) >= floor |r|^2 (Manek and Kolter 2019, Eq. 12, 13).

    q is an input-convex network (Amos, Xu and Kolter 2017): a_1 = s(W_1 r + b_1), a_k = s(W_k r + b_k + softplus(U_k)
    a_{k-1} / width), q = w r + softplus(u) a / width. s is the smoothed ReLU: 0 below 0, s^2 / 2d up to d, s - d / 2
    beyond. size: numbers per sample in r. widths: of the hidden layers. floor: above 0. smoothing: d, above 0.
    """

    def __init__(
        self, size: int, *, widths: tuple[int, ...] = (40, 40), floor: float = 0.01, smoothing: float = 1.0
    ) -> None:
        super().__init__()
        self.size = check_integer("size", size, 1)
        widths = check_sizes("widths", widths)
        self.floor = check_number("floor", floor, 0.0, open_low=True)
        self.smoothing = check_number("smoothing", smoothing, 0.0, open_low=True)
        self.inner = nn.ModuleList(nn.Linear(size, width) for width in (*widths, 1))
        # Free numbers; softplus makes them the positive weights that convexity needs.
        self.outer = nn.ParameterList(
            nn.Parameter(0.1 * torch.randn(b, a)) for a, b in zip(widths, (*widths[1:], 1), strict=True)
        )

    def forward(self, r: Tensor) -> Tensor:
        """r: (B, size) -> v (B,)."""
        return self.with_slope(r)[0]

    def with_slope(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """v (B,) and its gradient (B, size) at r (B, size), by hand: they exist without grad mode, and autograd can go
        on.
        """
        layers: list[Any] = list(self.inner)
        weights = [F.softplus(u) / u.shape[1] for u in self.outer]
        sums = [layers[0](r)]
        for layer, weight in zip(layers[1:], weights, strict=True):
            sums.append(layer(r) + F.linear(self._ramp(sums[-1]), weight))
        above = sums[-1] - self._at_origin(weights)  # (B, 1)
        back = self._step(above)
        slope = back * layers[-1].weight
        for k in reversed(range(len(weights))):
            back = (back @ weights[k]) * self._step(sums[k])
            slope = slope + back @ layers[k].weight
        return self._ramp(above)[:, 0] + self.floor * r.square().sum(1), slope + 2.0 * self.floor * r

    def _at_origin(self, weights: list[Tensor]) -> Tensor:
        """q(0), a scalar as (1,)."""
        layers: list[Any] = list(self.inner)
        total = layers[0].bias
        for layer, weight in zip(layers[1:], weights, strict=True):
            total = layer.bias + F.linear(self._ramp(total), weight)
        return total

    def _ramp(self, y: Tensor) -> Tensor:
        """s, the smoothed ReLU."""
        return self._step(y) * (y - 0.5 * self.smoothing * self._step(y))

    def _step(self, y: Tensor) -> Tensor:
        """s'."""
        return (y / self.smoothing).clamp(0.0, 1.0)


def project_field(field: Tensor, value: Tensor, gradient: Tensor, *, alpha: float, least: float = 1e-12) -> Tensor:
    """The nearest field g to ``field`` with <gradient, g> <= -alpha value (Manek and Kolter 2019, Eq. 10).

    field, gradient: (B, n). value: (B,). alpha: the rate at which the value is to fall, per unit of time. least: a
    gradient shorter than this is no direction any more, and the correction fades; at the minimum, where field and
    gradient vanish together, nothing is corrected.
    """
    length = torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp_min(least)
    normal = gradient / length
    return field - normal * F.relu((normal * field).sum(1, keepdim=True) + alpha * value[:, None] / length)
