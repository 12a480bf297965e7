"""Noise instead of an adversary: what nobody chose, as large as the threat allows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import check_integer
from jiio.outputs import seeds
from jiio.outputs.digest import fingerprint

from ..base import AbstractAttack
from ..runs import Best
from ..target import Target
from ..threat import ThreatModel

FAR = 100.0  # radii; from there every direction ends on the surface of the ball


@dataclass(frozen=True)
class NoiseAttack(AbstractAttack):
    """Gaussian noise of the size of the balls, clipped to the box; of several draws the worst for each sample.

    draws: how many. In L2 the noise is uniform on the sphere, so that it has the standard deviation radius / sqrt(n) in
    each of n numbers; in Linf it is plus or minus the radius, in L1 a few spikes. It belongs to the sample, whatever
    batch it comes in. Under :class:`MultiViewThreat` all views get their noise at once, inside
    :class:`SingleViewAttack` the worst view alone.
    """

    gradient_free = True

    draws: int = 1

    def __post_init__(self) -> None:
        check_integer("NoiseAttack.draws", self.draws, 1)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        best, pixels = Best.empty(x), x.detach().cpu()
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        for number in range(self.draws):
            noise = torch.stack([_drawn(seed, number, one) for one in pixels]).to(x)
            moved = threat.retract(x + FAR * threat.steps(x, 1.0) * noise, x)
            best.offer(moved, model.predict(moved).logits, y)
        return best.x


def _drawn(seed: int, number: int, sample: Tensor) -> Tensor:
    """Standard normal numbers of the shape of a sample."""
    draws = seeds.generator(seed, "noise", number, fingerprint(sample))
    return torch.randn(sample.shape, generator=draws, device="cpu")
