"""Latent pursuit: the layered pursuit down to the last two problems, which are solved jointly.

The second algorithm of Aberdam, Simon, Elad (2020, arXiv:2006.15555), whose exact form was not to be had: this is our
reading. :class:`LayerWise` finds the input v of the second layer first, and the code from v afterwards, so that v has
to be determined without knowing that a code makes it, and noise is fitted twice. Here the code x is the only unknown:

    min_x  1/2 sum_known s^2 (A_2 v + b_2 - aim)^2 + 1/2 sum_zero max(A_2 v + b_2 - aim, 0)^2,   v = phi_1(A_1 x + b_1)

On the support of v that is least squares in few numbers; the support follows the code (:func:`.newton.settle`). The
layered solution is the start, and two more beside it: where another end explains the target as well, the code is not
determined.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jiio.checks import check_integer
from jiio.outputs.seeds import generator as source_of

from .base import Inverted, check_pair, judged
from .layers import Layer, layers_of, undone
from .layerwise import APART, LayerWise, Peeled
from .newton import settle


@dataclass(frozen=True, eq=False)
class PairInverted(Inverted):
    """layers: what was peeled above the last two problems, from the third layer upwards. apart: (B,), relative distance
    of the farthest other code that explains the target as well. determined: (B,), of the last two problems together.
    """

    layers: tuple[Peeled, ...]
    apart: Tensor
    determined: Tensor


@dataclass(frozen=True)
class LatentPursuit(LayerWise):
    """Fields as in :class:`LayerWise`. rounds: most steps of the joint problem. asides: starts beside the layered one.

    A generator of one layer is inverted as :class:`LayerWise` does it.
    """

    rounds: int = 30
    asides: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("rounds", self.rounds, 1)
        check_integer("asides", self.asides, 0)

    @torch.no_grad()
    def find(self, generator: nn.Module, images: Tensor) -> Inverted:
        latent = check_pair(generator, images)
        layers = layers_of(copy.deepcopy(generator).double().requires_grad_(False), latent)
        if len(layers) < 2:
            return super().find(generator, images)
        total = sum(layer.work for layer in layers)
        target, told, passes = images.double(), [], 0.0
        for below, layer in reversed([*itertools.pairwise(layers[1:])]):
            target, peeled, count = self.peel(layer, target, below.activation)
            told.insert(0, peeled)
            passes += count * layer.work / total

        x, apart, determined, count = self.pair(layers[0], layers[1], target)
        passes += count / total
        sound = torch.stack([determined, *(peeled.determined for peeled in told)]).all(0)
        inverted = judged(generator, images, x.to(images), self.within, passes, passes, sound=sound)
        return PairInverted(**vars(inverted), layers=tuple(told), apart=apart, determined=determined)

    def pair(self, first: Layer, second: Layer, target: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """The codes of outputs (B, ...) of the second layer, how far apart the ends are, whether the codes are
        determined, and the multiplications of one way, there or back.
        """
        support = 3 * self.within if self.support is None else self.support
        aim, slope, known = undone(second.activation, target, support)
        hidden, _, peeled = self.peel(second, target, first.activation)
        layered, _, count = self.peel(first, hidden, nn.Identity())
        starts, many = self.beside(layered), self.asides + 1
        aim, slope, known = (t.flatten(1).repeat(many, 1) for t in (aim, slope, known))

        # Of every code as many copies as it has numbers come one after the other, for the derivatives.
        def residual(codes: Tensor) -> Tensor:
            each = (t.repeat_interleave(len(codes) // len(aim), 0) for t in (aim, slope, known))
            wanted, steep, equal = each
            error = second.affine(first(codes)).flatten(1) - wanted
            return torch.where(equal, steep * error, error.clamp_min(0.0))

        found = settle(residual, starts, self.rounds)
        batch, rows = len(target), torch.arange(len(target), device=target.device)
        error, ends = found.error.nan_to_num(torch.inf).view(many, batch), found.x.view(many, batch, -1)
        best = error.argmin(0)
        x = ends[best, rows]

        # Another end that explains the target within reach, at another place: the code is one of several.
        reach = (self.within * (slope * aim)[:batch].norm(dim=1)).square()
        rival = error <= torch.maximum(reach, (1.0 + APART) * error[best, rows])
        size = x.norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        apart = torch.where(rival, (ends - x).norm(dim=2) / size, torch.zeros_like(error)).amax(0)
        determined = found.determined.view(many, batch)[best, rows] & (apart <= 10 * max(APART, self.within))
        joint = many * found.passes * (first.work + second.work)
        return x, apart, determined, peeled * second.work + count * first.work + joint

    def beside(self, x: Tensor) -> Tensor:
        """Codes x (B, n), and as many more beside each as ``asides`` says, at the distance of its length."""
        aside = torch.randn(self.asides, 1, x.shape[1], generator=source_of(0, "beside"), dtype=torch.float64).to(x)
        aside = aside / aside.norm(dim=2, keepdim=True).clamp_min(1e-30)
        size = x.norm(dim=1, keepdim=True)
        size = torch.where(size > 0, size, torch.ones_like(size))
        return torch.cat([x[None], x + size * aside]).flatten(0, 1)
