"""The units of a joint solve, per sample: the curvature of the objective in z and the squared gain of the cell in x.

Inside the packed vector mu is divided by ``sigma`` and x multiplied by ``sqrt(kappa)``, so that all blocks are in units
of z. That makes the iteration independent of batch size, of the scale of the objective and of the units of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks import ArgumentTypeError, fail
from ..persample import placed
from .packed import PackedProblem

REACH = 0.1  # length of a secant over the length of what it probes


@dataclass(frozen=True, eq=False)
class Scales:
    """sigma: curvature of the objective in z. kappa: squared gain from x to z. Each (B, 1), above zero."""

    sigma: Tensor
    kappa: Tensor

    @classmethod
    def ones(cls, like: Tensor) -> Scales:
        """No scaling, for packed ``like`` (B, n)."""
        one = torch.ones_like(like[:, :1])
        return cls(one, one)

    @classmethod
    def given(cls, pair: tuple[Tensor, Tensor], like: Tensor) -> Scales:
        """From sigma and kappa, each () or (B, 1), constants for packed ``like`` (B, n); NaN: unknown."""
        return cls(*(part.detach().to(like).reshape(-1, 1).expand(len(like), 1) for part in pair))

    def rows(self, index: Tensor) -> Scales:
        """Those of the samples ``index`` (k,)."""
        return Scales(self.sigma.index_select(0, index), self.kappa.index_select(0, index))

    def with_rows(self, places: Tensor, part: Scales) -> Scales:
        """These, with those of ``part`` for the samples ``places`` (k,)."""
        return Scales(placed(self.sigma, places, part.sigma), placed(self.kappa, places, part.kappa))

    @property
    def unknown(self) -> Tensor:
        """(B, 1), the samples whose scales are still to be measured."""
        return self.sigma.isnan() | self.kappa.isnan()

    def completed(self, found: Scales) -> Scales:
        """These, with those of ``found`` where they are unknown."""
        pairs = zip(self.pair, found.pair, strict=True)
        return Scales(*(torch.where(self.unknown, new, old) for old, new in pairs))

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """As ``Solution.scaling`` has them."""
        return self.sigma, self.kappa

    @cached_property
    def root(self) -> Tensor:
        """sqrt(kappa) (B, 1), by which x is multiplied."""
        return self.kappa.sqrt()

    def pack(self, z: Tensor, mu: Tensor, x: Tensor, memory: tuple[Tensor, ...] = ()) -> Tensor:
        """Packed z, mu, x in natural units, and the memory of the rule -> v (B, D)."""
        return torch.cat([z, mu / self.sigma, x * self.root, *memory], dim=1)

    def unpack(self, v: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """v (B, D) -> packed z, mu, x in natural units, and the memory; ``sizes``: widths of the blocks."""
        z, mu, x, *memory = v.split(sizes, dim=1)
        return z, mu * self.sigma, x / self.root, tuple(memory)


def check_scaling(scaling: Any, like: Tensor) -> None:
    """A pair of positive tensors, each () or (B, 1), for the batch of ``like``; or None."""
    if scaling is None:
        return
    if not isinstance(scaling, tuple) or len(scaling) != 2 or not all(isinstance(part, Tensor) for part in scaling):
        fail("scaling", "a pair of tensors as in Solution.scaling", scaling, error=ArgumentTypeError)
    for part in scaling:
        if part.shape not in ((), (1,), (like.shape[0], 1)):
            fail("scaling", f"tensors () or ({like.shape[0]}, 1), a number for each sample", part)
        if not bool((torch.isfinite(part) & (part > 0) | part.isnan()).all()):
            fail("scaling", "finite numbers above zero, or NaN where they are to be measured", part)


class Measured(NamedTuple):
    """The scales at a start, and what was paid for on the way: f(z, x) (B, n) and l_z there (B, n), both finite."""

    scales: Scales
    image: Tensor
    slope: Tensor


@torch.no_grad()
def measured(problem: PackedProblem, z: Tensor, mu: Tensor, x: Tensor, *, cold: bool) -> Measured:
    """Two evaluations and two VJPs at packed (z, mu, x). ``cold``: mu says nothing yet, and l_z stands in for it."""
    # First evaluation: with mu = 0 it gives f and the gradients of l.
    image = torch.cat(problem.pull(z, torch.zeros_like(mu), x).image, dim=1)
    if not bool(torch.isfinite(image).all()):
        image = torch.where(torch.isfinite(image), image, z)
    lz, lx = problem.slopes(image, x)

    # The second, at f, prices u through the cell: its gain is |J_x^T u| / |u|.
    u = lz if cold else mu
    through = torch.cat(problem.pull(image, u, x).x, dim=1) - lx
    gain, size = _norm(through), _norm(u)
    sigma = _curvature(problem, image, x, lz)
    slope = _or_else((gain / size.clamp_min(_tiny(x))).square(), torch.ones_like(gain), size > 0)

    # A regulariser r(x) adds its own curvature, in the same units.
    step = gain / (sigma * slope).clamp_min(_tiny(x))
    own = _own_curvature(problem, image, x, lx, through / gain.clamp_min(_tiny(x)), gain, step)
    return Measured(
        Scales(sigma, slope + own / sigma), image, torch.where(torch.isfinite(lz), lz, torch.zeros_like(lz))
    )


class Local:
    """What the objective alone says at packed (z, x), without a call of the cell; each is asked for once."""

    def __init__(self, problem: PackedProblem, z: Tensor, x: Tensor) -> None:
        self.problem, self.z, self.x = problem, z.detach(), x.detach()

    @cached_property
    def slopes(self) -> tuple[Tensor, Tensor]:
        """l_z (B, n) and l_x (B, k)."""
        return self.problem.slopes(self.z, self.x)

    @cached_property
    def curvature(self) -> Tensor:
        """(B, 1) curvature of l in z, along its gradient."""
        with torch.no_grad():
            return _curvature(self.problem, self.z, self.x, self.slopes[0])

    @torch.no_grad()
    def own_curvature(self, gradient: Tensor) -> Tensor:
        """(B, 1) curvature of l in x itself, along the gradient (B, k)."""
        length, size = _norm(gradient), _norm(self.x).clamp_min(1e-3)
        way = gradient / length.clamp_min(_tiny(self.x))
        return _own_curvature(self.problem, self.z, self.x, self.slopes[1], way, length, size)


def _norm(part: Tensor) -> Tensor:
    """(B, n) -> (B, 1), also where the squares would be too small or too large for their type."""
    largest = part.abs().amax(1, keepdim=True)
    largest = torch.where((largest > 0) & torch.isfinite(largest), largest, torch.ones_like(largest))
    return largest * (part / largest).norm(dim=1, keepdim=True)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


def _or_else(found: Tensor, other: Tensor, sane: Tensor | bool = True) -> Tensor:
    """``found`` where it is finite and above zero (and ``sane``), else ``other``."""
    return torch.where(torch.isfinite(found) & (found > 0) & sane, found, other)


def _curvature(problem: PackedProblem, image: Tensor, x: Tensor, lz: Tensor) -> Tensor:
    """(B, 1) curvature of l in z along its gradient ``lz``, by a secant a tenth of the state's length long."""
    # A state near zero says nothing about its own scale; activations are of order one.
    length = _norm(image).clamp_min(1e-2 * image.shape[1] ** 0.5)
    reach, steep = REACH * length, _norm(lz)
    probe = image - reach * lz / steep.clamp_min(_tiny(x))

    bend = _norm(problem.slopes(probe, x)[0] - lz)
    moved = torch.maximum(_norm(probe - image), torch.finfo(x.dtype).eps * reach)
    sigma = torch.maximum(bend / moved, 1e-2 * steep / length)
    return _or_else(sigma, torch.ones_like(sigma))


def _own_curvature(
    problem: PackedProblem, image: Tensor, x: Tensor, lx: Tensor, way: Tensor, gain: Tensor, step: Tensor
) -> Tensor:
    """(B, 1) curvature of l in x itself along the unit ``way`` (B, k), by a secant a tenth of the coming ``step``."""
    direction = torch.where(gain > 0, way, torch.ones_like(x) / x.shape[1] ** 0.5)
    stride = torch.where(step > 0, REACH * step, torch.full_like(step, 1e-3))
    own = _norm(problem.slopes(image, x - stride * direction)[1] - lx) / stride
    return torch.where(torch.isfinite(own), own, torch.zeros_like(own))
