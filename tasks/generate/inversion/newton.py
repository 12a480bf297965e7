"""Least squares in the code: steps of Gauss and Newton, which end at once where a generator is linear.

A generator of ReLUs is, around its answer: once the pattern of active units is right, one step is exact. Derivatives by
a code of n numbers cost n passes, so this is for short codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor, nn

from jiio.checks import check_instance, check_integer, fail

from ..generator import LatentGenerator
from .base import AbstractInversion, Inverted, check_pair, first_codes, judged

HALVINGS = 6  # of a step, until it helps
NO_GAIN = 1e-9  # relative; a search that gains no more has ended
FLAT = 1e-6  # singular values of the derivatives below so many of the largest: directions that change nothing
Residual = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Settled:
    """Where a search ended. x: (B, n). error: (B,), the squares of the residual. determined: (B,), its derivatives
    leave no direction of the code free. passes: of the batch.
    """

    x: Tensor
    error: Tensor
    determined: Tensor
    passes: int


def derivatives(residual: Residual, x: Tensor) -> tuple[Tensor, Tensor]:
    """residual (B, m) of codes x (B, n), and its derivatives (B, m, n), by forward-mode AD: n passes."""
    batch, n = x.shape
    ways = torch.eye(n).to(x).repeat(batch, 1)
    # The first of all dual tensors loads decompositions of torch that torch itself calls outdated.
    with forward_mode.dual_level(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.*")
        primal, tangent = forward_mode.unpack_dual(
            residual(forward_mode.make_dual(x.detach().repeat_interleave(n, 0), ways))
        )
    if tangent is None:  # nothing depends on the code
        tangent = torch.zeros_like(primal)
    return primal.unflatten(0, (batch, n))[:, 0], tangent.unflatten(0, (batch, n)).transpose(1, 2)


@torch.no_grad()
def settle(residual: Residual, x: Tensor, steps: int) -> Settled:
    """Minimise |residual|^2 from codes x (B, n), each sample with its own length of step."""
    error, passes = residual(x).square().sum(1), 1
    for _ in range(steps):
        value, slope = derivatives(residual, x)
        step = -_least(slope, value)
        passes += x.shape[1]

        # The longest of these steps that gains most; a sample that gains nothing stays.
        best, lowest, length = x, error, 1.0
        for _ in range(HALVINGS):
            tried = x + length * step
            now = residual(tried).square().sum(1)
            better = now < lowest
            best, lowest = torch.where(better[:, None], tried, best), torch.where(better, now, lowest)
            length, passes = 0.5 * length, passes + 1
        gained = lowest < error * (1.0 - NO_GAIN)
        x, error = best, lowest
        if not bool(gained.any()):
            break

    sizes = torch.linalg.svdvals(derivatives(residual, x)[1])
    full = sizes.shape[1] == x.shape[1]
    determined = (sizes[:, -1] > FLAT * sizes[:, 0]) & full
    return Settled(x, error, determined, passes + x.shape[1])


def _least(slope: Tensor, value: Tensor) -> Tensor:
    """(B, n) the shortest least-squares solutions of slope (B, m, n) s = value (B, m)."""
    return (torch.linalg.pinv(slope, rtol=FLAT) @ value[..., None])[..., 0]


@dataclass(frozen=True)
class GaussNewton(AbstractInversion):
    """Damped steps of Gauss and Newton on |G(x) - y|^2, for feed-forward generators with short codes.

    steps: most of them. starts, seed, start: as in :class:`AdamDescent`.
    """

    steps: int = 30
    starts: int = 1
    seed: int = 0
    start: AbstractInversion | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("steps", self.steps, 1)
        check_integer("starts", self.starts, 1)
        if self.start is not None:
            check_instance("start", self.start, AbstractInversion)

    @torch.no_grad()
    def find(self, generator: nn.Module, images: Tensor) -> Inverted:
        latent, batch = check_pair(generator, images), len(images)
        if isinstance(generator, LatentGenerator):
            fail("generator", "a feed-forward generator", "an equilibrium", "JointFit and AdamDescent invert it.")
        x, evaluations, gradients = first_codes(self, generator, images, latent)
        y = images.flatten(1).repeat(self.starts, 1)

        # Derivatives need as many copies of an image as its code has numbers.
        def residual(codes: Tensor) -> Tensor:
            return generator(codes).flatten(1) - y.repeat_interleave(len(codes) // len(y), 0)

        found = settle(residual, x, self.steps)
        chosen = found.error.nan_to_num(torch.inf).view(-1, batch).argmin(0)
        rows = torch.arange(batch, device=x.device)
        x, sure = (t.view(-1, batch, *t.shape[1:])[chosen, rows] for t in (found.x, found.determined))
        passes = evaluations + self.starts * found.passes
        return judged(generator, images, x, self.within, passes, gradients, sound=sure)
