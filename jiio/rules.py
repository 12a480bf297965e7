"""How one step moves the input, given the gradient of the Lagrangian.

A rule sees the packed input (B, n) and the packed gradient divided by the measured curvature of the problem, so that
a rate of 1 is one Newton-like step whatever the batch size and the scale of the objective. Pass ``curvature=1.0`` for
raw gradient units (the paper's settings). The memory of a rule is one more block of the vector that the solver
accelerates: a tuple of packed tensors.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .checks import check_number, fail

Rate = float | Callable[[int], float]
Memory = tuple[Tensor, ...]


@dataclass(frozen=True)
class AbstractRule(ABC):
    """Base of every rule.

    rate: a number above zero, or a schedule: a function of the step (0, 1, ...) that gives one. curvature: None
    to measure it at the start of a solve, or a number or a tensor (B,) to divide the gradient by.
    """

    rate: Rate = 0.5
    curvature: float | Tensor | None = field(default=None, kw_only=True)

    diagonal = False  # rescales coordinate by coordinate: fixed points survive only under a separable prox
    exact_step = True  # moves by rate * gradient, so that a non-smooth prior sees the right threshold

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not callable(self.rate):
            check_number(f"{name}.rate", self.rate, 0.0, open_low=True)
        if isinstance(self.curvature, Tensor):
            if not bool((self.curvature > 0).all() & torch.isfinite(self.curvature).all()):
                fail(f"{name}.curvature", "finite numbers above 0", f"a smallest of {float(self.curvature.min()):g}")
        elif self.curvature is not None:
            check_number(f"{name}.curvature", self.curvature, 0.0, open_low=True)

    def at(self, step: int) -> float:
        """The rate at this step."""
        if not callable(self.rate):
            return self.rate
        rate = self.rate(step)
        rate = rate.item() if isinstance(rate, Tensor) and rate.numel() == 1 else rate
        return check_number(f"{type(self).__name__}.rate({step})", rate, 0.0, open_low=True)

    def check(self, batch: int) -> None:
        """Raise where the curvature is for another batch size."""
        if isinstance(self.curvature, Tensor) and self.curvature.numel() not in (1, batch):
            fail(f"{type(self).__name__}.curvature", f"a number or {batch} of them, one per sample", self.curvature)

    def rows(self, index: Tensor, batch: int) -> AbstractRule | None:
        """The rule for the samples ``index`` (k,) of ``batch``; None where a field may be of each sample."""
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.name not in ("rate", "curvature") and not isinstance(value, (bool, int, float, str)):
                return None
        if not isinstance(self.curvature, Tensor) or self.curvature.numel() == 1:
            return self
        here = index.to(self.curvature.device)
        return dataclasses.replace(self, curvature=self.curvature.reshape(-1).index_select(0, here))

    def init(self, x: Tensor) -> Memory:
        """Memory at the start for packed x (B, n)."""
        return ()

    @abstractmethod
    def update(self, x: Tensor, gradient: Tensor, memory: Memory, rate: Tensor | float) -> tuple[Tensor, Memory]:
        """The moved input, before the prox, and the new memory. x, gradient: (B, n), packed; the gradient is divided by
        the curvature. memory: from :meth:`init` or the step before. rate: a number or (B, 1).
        """


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(1, keepdim=True).sqrt()


@dataclass(frozen=True)
class GradientStep(AbstractRule):
    """x - rate * gradient."""

    def update(self, x: Tensor, gradient: Tensor, memory: Memory, rate: Tensor | float) -> tuple[Tensor, Memory]:
        return x - rate * gradient, ()


@dataclass(frozen=True)
class MomentumStep(AbstractRule):
    """Polyak's heavy ball: m <- momentum * m + gradient; x - rate * m. The momentum is accelerated with the rest.

    momentum: at least 0 and below 1; at 0 it steps as :class:`GradientStep`.
    """

    momentum: float = 0.5

    exact_step = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= check_number("MomentumStep.momentum", self.momentum) < 1:
            fail("MomentumStep.momentum", "a number of at least 0 and below 1", self.momentum)

    def init(self, x: Tensor) -> Memory:
        return (torch.zeros_like(x),)

    def update(self, x: Tensor, gradient: Tensor, memory: Memory, rate: Tensor | float) -> tuple[Tensor, Memory]:
        moved = self.momentum * memory[0] + gradient
        return x - rate * moved, (moved,)


@dataclass(frozen=True)
class NormalizedStep(AbstractRule):
    """x - rate * gradient / |gradient|_2, rate in units of x (the attack step of PGD in L2).

    A fixed rate has a fixed point only where a constraint holds the input (a ball's boundary); an interior optimum is
    reached only because a stalled sample takes ever shorter steps.
    """

    rate: Rate = 0.1

    exact_step = False

    def update(self, x: Tensor, gradient: Tensor, memory: Memory, rate: Tensor | float) -> tuple[Tensor, Memory]:
        length = gradient.norm(dim=1, keepdim=True)
        return x - rate * gradient / length.clamp_min(torch.finfo(x.dtype).tiny ** 0.5), ()


@dataclass(frozen=True)
class SignStep(AbstractRule):
    """x - rate * sign(gradient), rate in units of x (FGSM and PGD in Linf).

    A fixed rate has a fixed point only at a vertex of a box or Linf ball; elsewhere an optimum is reached only because
    a stalled sample takes ever shorter steps.
    """

    rate: Rate = 0.01

    diagonal = True
    exact_step = False

    def update(self, x: Tensor, gradient: Tensor, memory: Memory, rate: Tensor | float) -> tuple[Tensor, Memory]:
        return x - rate * gradient.sign(), ()


@dataclass(frozen=True)
class AdamStep(AbstractRule):
    """Adam (Kingma and Ba 2015) with bias correction; rate in units of x.

    beta1, beta2: what is kept per step of the mean of the gradients and of their squares, at least 0 and below 1. eps:
    added to the root of the squares, in units of the gradient.

    The powers of beta that correct the bias are memory too (they decay to the fixed point 0), so that the map
    does not depend on a step counter and can be accelerated.
    """

    rate: Rate = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    diagonal = True
    exact_step = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            if not 0 <= check_number(f"AdamStep.{name}", getattr(self, name)) < 1:
                fail(f"AdamStep.{name}", "a number of at least 0 and below 1", getattr(self, name))
        check_number("AdamStep.eps", self.eps, 0.0, open_low=True)

    def init(self, x: Tensor) -> Memory:
        ones = torch.ones_like(x[:, :1])
        return torch.zeros_like(x), torch.zeros_like(x), ones, ones.clone()

    def update(self, x: Tensor, gradient: Tensor, memory: Memory, rate: Tensor | float) -> tuple[Tensor, Memory]:
        mean, square, power1, power2 = memory
        mean = self.beta1 * mean + (1 - self.beta1) * gradient
        square = self.beta2 * square.clamp_min(0.0) + (1 - self.beta2) * gradient.square()
        power1 = self.beta1 * power1.clamp(0.0, 1.0)  # acceleration may have mixed it out of its range
        power2 = self.beta2 * power2.clamp(0.0, 1.0)
        size = (square / (1 - power2)).sqrt() + self.eps
        return x - rate * (mean / (1 - power1)) / size, (mean, square, power1, power2)
