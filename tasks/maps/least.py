"""Images of least squares, to start from: conjugate gradients that stop before they fit the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .noise import wide


class Linear(Protocol):
    """What is needed of a linear map."""

    @property
    def sigma(self) -> float: ...

    def A(self, x: Tensor) -> Tensor: ...

    def A_adjoint(self, y: Tensor) -> Tensor: ...


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(B,), sample by sample."""
    return (a * b).flatten(1).sum(1)


def least_squares(operator: Linear, y: Tensor, *, rounds: int = 10) -> Tensor:
    """An image with ``A x`` near y, by conjugate gradients on the normal equations (CGLS) from zero.

    Stopping early regularises: no more than ``rounds`` steps, and for each sample none after its residual has come down
    to the noise, ``|A x - y| <= sigma sqrt(m)`` for m measured values (Hanke, "Conjugate gradient type methods for
    ill-posed problems", 1995).
    """
    rest, x = y, torch.zeros_like(operator.A_adjoint(y))
    gradient = operator.A_adjoint(rest)
    direction, size = gradient, dot(gradient, gradient)
    goal = operator.sigma**2 * y[0].numel()
    tiny = torch.finfo(y.dtype).tiny

    for _ in range(rounds):
        image = operator.A(direction)
        step = size / dot(image, image).clamp_min(tiny)
        step = torch.where(dot(rest, rest) > goal, step, torch.zeros_like(step))  # (B,), 0 for those that are done
        x, rest = x + wide(step, x) * direction, rest - wide(step, rest) * image
        gradient = operator.A_adjoint(rest)
        new = dot(gradient, gradient)
        direction, size = gradient + wide(new / size.clamp_min(tiny), x) * direction, new
    return x


def explained(operator: Linear, y: Tensor, *, rounds: int = 10) -> Tensor:
    """The image of one grey that explains y best, moved by :func:`least_squares`: what is not measured stays grey."""
    ones = torch.ones_like(operator.A_adjoint(y))
    seen = operator.A(ones)
    power = dot(seen, seen)

    # A map that hardly sees a grey image says nothing about how bright it is.
    sees = power > 1e-6 * dot(operator.A_adjoint(seen), ones).abs().clamp_min(1e-30)
    grey = torch.where(sees & (power > 0), dot(seen, y) / power.clamp_min(1e-30), torch.zeros_like(power))
    flat = wide(grey, ones) * ones
    return flat + least_squares(operator, y - operator.A(flat), rounds=rounds)


def nearest(
    operator: Linear,
    x: Tensor,
    y: Tensor,
    step: Tensor | float,
    *,
    about: Callable[[Tensor], Tensor] = lambda r: r,
    rounds: int = 12,
    tolerance: float = 1e-2,
) -> Tensor:
    """argmin over u of 1/2 |u - x|^2 + step/2 |A u - y|^2, the images near x that explain y better.

    By conjugate gradients on (I + step A* A) u = x + step A* y from x, until every sample's residual has fallen by
    ``tolerance``. step: a number or (B, 1, 1, 1). about: roughly the inverse of I + step A* A, positive definite.
    """
    rest = step * operator.A_adjoint(y - operator.A(x))
    shaped = about(rest)
    way, power = shaped, dot(rest, shaped)
    goal = dot(rest, rest) * tolerance**2
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(rounds):
        if bool((dot(rest, rest) <= goal).all()):
            break
        image = way + step * operator.A_adjoint(operator.A(way))
        length = wide(power / dot(way, image).clamp_min(tiny), x)
        x, rest = x + length * way, rest - length * image
        shaped = about(rest)
        new = dot(rest, shaped)
        way, power = shaped + wide(new / power.clamp_min(tiny), x) * way, new
    return x


def gauss_newton(
    function: Callable[[Tensor], Tensor],
    linearised: Callable[[Tensor], Linear],
    y: Tensor,
    x: Tensor,
    *,
    rounds: int = 6,
) -> Tensor:
    """An image with ``function(x)`` near y, from x: least squares on the linearised map, each sample's step halved
    until its residual falls, and none where it never does.
    """
    error = lambda image: dot(*(2 * (function(image) - y,))).nan_to_num(float("inf"))  # noqa: E731
    value = error(x)
    for _ in range(rounds):
        change = least_squares(linearised(x), y - function(x), rounds=5)
        share = torch.ones_like(value)
        for _ in range(6):
            found = error(x + wide(share, x) * change)
            share = torch.where(found < value, share, 0.5 * share)

        # What has not come down by now stays where it is.
        found = error(x + wide(share, x) * change)
        better = found < value
        x = torch.where(wide(better, x), x + wide(share, x) * change, x)
        value = torch.where(better, found, value)
    return x
