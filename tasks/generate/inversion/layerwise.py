"""Layer-wise inversion of feed-forward generators by layered basis pursuit.

After Aberdam, Simon, Elad, "When and how can deep generative models be inverted?" (2020, arXiv:2006.15555).

A generator is layers v_i = phi_i(A_i v_(i-1) + b_i), v_0 the code. From the image backwards, the input v of a layer is
found from its output t by a convex problem,

    min_v  1/2 sum_known s^2 (A v + b - phi^-1(t))^2 + 1/2 sum_zero max(A v + b - t, 0)^2 + lambda sum v

over the range of the activation below, lambda only where that is a ReLU. A ReLU's positive outputs are equalities, its
zeros one-sided: all that is known of them is that their input was not positive. (The paper has hard constraints there;
without noise both have the same solutions.) s is the slope of phi, so that errors count as they do in t.

Where it ended, the problem is solved again from two places, to both sides of the solution. A convex problem ends in the
same place unless its solution is not unique: where the ends differ, this layer does not determine its input, and the
inversion counts as failed. Layers that expand enough determine it, and so may others if their input is sparse.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jiio.checks import check_integer, check_number
from jiio.outputs.seeds import generator as source_of

from .base import AbstractInversion, Inverted, check_pair, judged
from .layers import Layer, layers_of, spectrum, undone, wide

APART = 1e-3  # relative distance from which two ends are two places; convergence leaves some 1e-6
# Lambda falls, and each problem begins where the last one ended: little of its bias stays.
FADING = (1.0, 0.1, 0.01, 1e-3, 1e-4)
ROUGH = 1e-4  # rtol on the way
RANGES = {nn.ReLU: (0.0, math.inf), nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0)}  # of the activations; others: all


@dataclass(frozen=True, eq=False)
class Peeled:
    """What inverting one layer came to, (B,) each.

    residual: |phi(A v + b) - t| / |t|. apart: relative distance of the solution from the farther of the two other ends.
    steps: of the first solve. settled: whether it met the tolerance.
    """

    residual: Tensor
    apart: Tensor
    steps: Tensor
    settled: Tensor

    @property
    def determined(self) -> Tensor:
        """(B,), whether this is the one input of the layer that explains its output."""
        return self.settled & (self.apart <= APART)


@dataclass(frozen=True, eq=False)
class LayerInverted(Inverted):
    """layers: from the first layer of the generator to its last."""

    layers: tuple[Peeled, ...]


@dataclass(frozen=True)
class LayerWise(AbstractInversion):
    """Computes in double precision, whatever that of the generator.

    support: a ReLU's outputs below so many times their RMS count as zeros (default: three times ``within``). sparsity:
    lambda, relative to the smallest one that makes everything zero, at the start; it fades to 1e-4 of that; 0 for none.
    max_steps, rtol: of each convex problem, the latter the relative change of its input in a step.
    """

    support: float | None = None
    sparsity: float = 0.01
    max_steps: int = 2000
    rtol: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.support is not None:
            check_number("support", self.support, 0.0)
        check_number("sparsity", self.sparsity, 0.0, 1.0)
        check_integer("max_steps", self.max_steps, 1)
        check_number("rtol", self.rtol, 0.0, open_low=True)

    @torch.no_grad()
    def find(self, generator: nn.Module, images: Tensor) -> LayerInverted:
        latent = check_pair(generator, images)
        layers = layers_of(copy.deepcopy(generator).double().requires_grad_(False), latent)
        total = sum(layer.work for layer in layers)
        target, told, passes = images.double(), [], 0.0
        for below, layer in reversed([*zip([None, *layers], layers, strict=False)]):
            found, peeled, count = self.peel(layer, target, nn.Identity() if below is None else below.activation)
            told.insert(0, peeled)
            target, passes = found, passes + count * layer.work / total
        sound = torch.stack([peeled.determined for peeled in told]).all(0)
        inverted = judged(generator, images, target.to(images), self.within, passes, passes, sound=sound)
        return LayerInverted(**vars(inverted), layers=tuple(told))

    def peel(self, layer: Layer, target: Tensor, below: nn.Module) -> tuple[Tensor, Peeled, int]:
        """The input (B, ...) of a layer from its output, and how often the layer was passed, there and back."""
        support = 3 * self.within if self.support is None else self.support
        aim, slope, known = undone(layer.activation, target, support)
        pursuit = Pursuit(layer, aim, slope, known, below, *spectrum(layer, target))
        found = self.end(pursuit, target.new_zeros(len(target), *layer.shape))

        # Once more from two places aside: where the three ends differ, the layer does not determine its input.
        aside = torch.randn(layer.shape, generator=source_of(0, "aside"), dtype=torch.float64).to(found.v)
        size = found.v.flatten(1).norm(dim=1)
        size = torch.where(size > 0, size, torch.ones_like(size))
        aside = aside * wide(size / aside.norm(), found.v)
        again = self.end(pursuit.twice(), torch.cat([found.v + aside, found.v - aside]))
        apart = torch.stack([(end - found.v).flatten(1).norm(dim=1) / size for end in again.v.chunk(2)]).amax(0)

        error = (layer(found.v) - target).flatten(1).norm(dim=1)
        residual = error / target.flatten(1).norm(dim=1).clamp_min(1e-30)
        passes = pursuit.passes + found.passes + 2 * again.passes
        return found.v, Peeled(residual, apart, found.steps, found.settled), passes

    def end(self, pursuit: Pursuit, v: Tensor) -> End:
        """Solve from v, along fading lambdas where the input is a ReLU's output."""
        sparse = self.sparsity > 0 and isinstance(pursuit.below, nn.ReLU)
        steps, passes = torch.zeros(len(v), dtype=torch.int64, device=v.device), 0
        for share in FADING if sparse else (0.0,):
            rtol = self.rtol if share in (0.0, FADING[-1]) else max(self.rtol, ROUGH)
            found = pursuit.solve(v, self.sparsity * share, self.max_steps, rtol)
            v, steps, passes = found.v, steps + found.steps, passes + found.passes
        return End(v, steps, found.settled, passes)


@dataclass(frozen=True, eq=False)
class End:
    """Where a pursuit ended. v: (B, ...). steps: (B,). settled: (B,). passes: of the batch."""

    v: Tensor
    steps: Tensor
    settled: Tensor
    passes: int


@dataclass(frozen=True, eq=False)
class Pursuit:
    """The convex problem of one layer, see the head of this file.

    aim, slope, known: (B, ...), phi^-1(t), s, and where the output is an equality. power: |A|^2. passes: what knowing
    it has cost.
    """

    layer: Layer
    aim: Tensor
    slope: Tensor
    known: Tensor
    below: nn.Module
    power: Tensor
    passes: int = 0

    def twice(self) -> Pursuit:
        """For two starts of every sample."""
        aim, slope, known = (torch.cat([t, t]) for t in (self.aim, self.slope, self.known))
        return Pursuit(self.layer, aim, slope, known, self.below, self.power)

    def gradient(self, v: Tensor) -> Tensor:
        """Of the two sums of squares."""
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            error = self.layer.affine(v) - self.aim
            error = torch.where(self.known, self.slope * error, error.clamp_min(0.0))
            return torch.autograd.grad(0.5 * error.square().sum(), v)[0]

    def solve(self, v: Tensor, sparsity: float, max_steps: int, rtol: float) -> End:
        """Accelerated proximal gradient (Beck, Teboulle 2009) from v (B, ...).

        Begun anew for a sample whose momentum points uphill (O'Donoghue, Candes 2015).
        """
        low, high = RANGES.get(type(self.below), (-math.inf, math.inf))
        pull = -self.gradient(torch.zeros_like(v)) if sparsity > 0 else torch.zeros_like(v)
        price = sparsity * wide(pull.flatten(1).amax(1).clamp_min(0.0), v)

        # v is the point, ahead where its momentum leads; samples that are done stay.
        v = ahead = v.clamp(low, high)
        momentum, steps = v.new_ones(len(v)), torch.zeros(len(v), dtype=torch.int64, device=v.device)
        settled = torch.zeros(len(v), dtype=torch.bool, device=v.device)
        passes = int(sparsity > 0)
        while passes < max_steps and not bool(settled.all()):
            moved = (ahead - (self.gradient(ahead) + price) / self.power).clamp(low, high)
            moved = torch.where(wide(settled, v), v, moved)
            steps, passes = steps + ~settled, passes + 1

            change = (moved - ahead).flatten(1)
            uphill = (change * (moved - v).flatten(1)).sum(1) < 0
            settled = settled | (change.norm(dim=1) <= rtol * moved.flatten(1).norm(dim=1))
            following = 0.5 * (1 + (1 + 4 * momentum.square()).sqrt())
            push = torch.where(uphill | settled, torch.zeros_like(momentum), (momentum - 1) / following)
            momentum = torch.where(uphill, torch.ones_like(momentum), following)
            v, ahead = moved, moved + wide(push, v) * (moved - v)
        return End(v, steps, settled, passes)
