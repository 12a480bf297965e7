"""Any object with ``A`` and ``A_adjoint``, such as a physics of deepinv, as one of our linear maps.

Nothing is asked of the object but these two methods on batches of images. They may be written in anything, NumPy
included: derivatives of ``A`` go through ``A_adjoint`` and back, so that the object need not be differentiable itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio.checks import check_number, describe, fail

from .base import LinearMap, check_images

PROBES = 4  # random pairs of the dot test


class _Applied(torch.autograd.Function):
    """A linear function whose derivative is its adjoint, to any order."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.function, ctx.adjoint = function, adjoint
        return function(x).detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Applied.apply(gradients[0], ctx.adjoint, ctx.function), None, None


@dataclass(frozen=True, eq=False)
class Physics(LinearMap):
    """A physics and the level of its noise; made by :func:`as_linear_map`, which checks both."""

    physics: Any
    sigma: float

    def A(self, x: Tensor) -> Tensor:
        return _Applied.apply(check_images("x", x), self.physics.A, self.physics.A_adjoint)  # type: ignore[return-value]

    def A_adjoint(self, y: Tensor) -> Tensor:
        return _Applied.apply(y, self.physics.A_adjoint, self.physics.A)  # type: ignore[return-value]

    def start(self, y: Tensor) -> Tensor:
        """A few steps of least squares, stopped before they fit the noise."""
        with torch.no_grad():
            return least_squares(self, y)


def as_linear_map(physics: Any, y: Tensor, *, sigma: float | None = None, tolerance: float = 1e-2) -> Physics:
    """The map of a physics, checked on the shape of a measurement.

    Args:
        physics: an object with ``A`` (images (B, C, H, W) to measurements) and ``A_adjoint`` (back), for example a
            ``deepinv.physics.LinearPhysics``.
        y: a measurement, batch first.
        sigma: standard deviation of its noise; by default what ``physics.noise_model`` says.
        tolerance: how far the two methods may be from adjoint to each other, relative to the size of ``A`` (both in the
            Frobenius norm, estimated from random pairs).

    Errors: ArgumentError where a method is missing, the map is not linear, the adjoint is not one, or the noise is not
    Gaussian.
    """
    for name in ("A", "A_adjoint"):
        if not callable(getattr(physics, name, None)):
            fail("physics", "an object with the methods A and A_adjoint", f"{type(physics).__name__} without {name}")
    if not isinstance(y, Tensor) or y.ndim < 2 or not y.is_floating_point():
        fail("y", "a measurement, a floating tensor with the batch first", y)
    check_number("tolerance", tolerance, 0.0)
    linear = Physics(physics, noise_level(physics) if sigma is None else check_number("sigma", sigma, 0.0))
    with torch.no_grad():
        _check_linear(linear, y[:1], tolerance)
    return linear


def noise_level(physics: Any) -> float:
    """The standard deviation that a physics states; 0 where it has no noise model, or one that leaves values alone.

    Errors: ArgumentError where its noise has no single standard deviation.
    """
    model = getattr(physics, "noise_model", None)
    if model is None or type(model).__name__ == "ZeroNoise":
        return 0.0
    sigma = getattr(model, "sigma", None)
    if isinstance(sigma, Tensor) and sigma.numel() == 1:
        sigma = float(sigma)
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or hasattr(model, "gain"):
        came = f"{type(model).__name__} with sigma {'absent' if sigma is None else describe(sigma)}"
        fail("physics.noise_model", "Gaussian noise of one level", came, "Pass sigma=, the nearest level.")
    return check_number("physics.noise_model.sigma", sigma, 0.0)


def _check_linear(linear: Physics, y: Tensor, tolerance: float) -> None:
    """One random dot test for all that can be wrong: shapes, linearity, adjoint."""
    random = torch.Generator().manual_seed(0)
    image = linear.A_adjoint(y)
    if image.ndim != 4:
        fail("physics.A_adjoint", "images (B, C, H, W)", image)

    us, vs = (torch.randn(PROBES, *t.shape, generator=random).to(t) for t in (image, y))
    forward, backward = [linear.A(u) for u in us], [linear.A_adjoint(v) for v in vs]
    if forward[0].shape != y.shape or not forward[0].is_floating_point():
        fail("physics.A", f"measurements of the shape of y, {tuple(y.shape)}", forward[0])

    # Linear: A(u + 2v) - A(u) - 2 A(v) = 0.
    sum_of_both = linear.A(us[0] + 2.0 * us[1]) - forward[0] - 2.0 * forward[1]
    bent = float(sum_of_both.norm() / forward[0].norm().clamp_min(1e-30))
    if not bent <= max(tolerance, 1e-3):
        came = f"one with |A(u + 2v) - A(u) - 2 A(v)| = {bent:.2g} |A(u)|"
        fail("physics.A", "a linear map", came, "Nonlinear measurements are not supported.")

    # Adjoint: <A u, v> = <u, A* v>, over the random pairs.
    left = torch.stack([(a * v).sum() for a, v in zip(forward, vs, strict=True)])
    right = torch.stack([(u * b).sum() for u, b in zip(us, backward, strict=True)])
    gap = float((left - right).norm() / left.norm().clamp_min(1e-30))
    if not gap <= tolerance:
        remedy = "Correct it (deepinv's Tomography: adjoint_via_backprop=True), or accept it by a larger tolerance."
        fail("physics.A_adjoint", f"the adjoint of A to {tolerance:g}", f"one that is off by {gap:.2g}", remedy)


def least_squares(operator: LinearMap, y: Tensor, *, rounds: int = 10) -> Tensor:
    """An image with ``A x`` near y, by conjugate gradients on the normal equations (CGLS) from zero.

    Stopping early regularises: no more than ``rounds`` steps, and for each sample none after its residual has come down
    to the noise, ``|A x - y| <= sigma sqrt(m)`` for m measured values (Hanke, "Conjugate gradient type methods for
    ill-posed problems", 1995).
    """
    dot = lambda a, b: (a * b).flatten(1).sum(1)  # noqa: E731  (B,)
    wide = lambda a, like: a.view(-1, *[1] * (like.ndim - 1))  # noqa: E731
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
