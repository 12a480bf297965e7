"""Restorers whose unknown is the image itself, of any size: by a learned energy, or directly.

:class:`ImageRestorer` minimises, for a measurement y = A x + sigma n,

    1/2 |A x - y|^2 + weight (sigma / level)^2 E(x, level)

over the image x, with the state and multiplier of the energy's equilibrium solved along with it. The energy is that of
:class:`jiio.models.ImagePrior`; about ``-level^2 log p`` of images with noise of that level on them, which explains the
factor. One prior serves every linear map. Where the objective has several valleys (large holes, strong blur) the solve
goes through falling levels, each starting from the state, multiplier and image of the one before.

:class:`DirectRestorer` is a plain equilibrium network from the noisy image to the clean one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import jiio
from jiio.checks import check_number, fail
from jiio.models.images.prior import ImagePrior
from jiio.tasks.maps.base import Denoise, Inpaint, LinearMap

from .base import AbstractRestorer, Restoration

TOLERANCE = jiio.Tolerance(atol=1e-4, rtol=1e-3)


@dataclass(frozen=True)
class Strength:
    """How a prior is used: the noise levels it is asked at, one solve after the other, and its weight at the last.

    Args:
        levels: on the image range [0, 1], falling
        weight: against the fidelity; 1 takes the energy for a log-probability
        sigma: the noise level that the fidelity assumes where the measurement has less, for a map of norm 1
    """

    levels: tuple[float, ...] = (0.1, 0.04)
    weight: float = 1.0
    sigma: float = 0.01

    def __post_init__(self) -> None:
        for level in self.levels:
            check_number("levels", level, 0.0, 1.0, open_low=True)
        check_number("weight", self.weight, 0.0)
        check_number("sigma", self.sigma, 0.0, open_low=True)


# Tuned on three pictures of Train400: blurs, halved resolution and noise on them share one setting; single missing
# pixels ask for a prior at lower noise, because their neighbours are exact.
USUAL = Strength()
HOLES = Strength(levels=(0.1, 0.05, 0.025, 0.015))


class ImageRestorer(AbstractRestorer):
    """Joint solve over image, state and multiplier; for plain noise one gradient step, as trained.

    strength: how the prior is used (default: what was tuned for the kind of map).
    """

    def __init__(self, prior: ImagePrior, *, strength: Strength | None = None) -> None:
        super().__init__()
        self.prior, self.strength, self.channels = prior, strength, prior.config.channels

    def problem(self, y: Tensor, operator: LinearMap, *, level: float, strength: Strength) -> jiio.Problem:
        """The joint problem at one level."""
        sigma = operator.sigma
        if sigma < strength.sigma:
            sigma = max(sigma, strength.sigma * operator.norm_bound(operator.start(y)))

        def fidelity(x: Tensor) -> Tensor:
            return 0.5 * (operator.A(x) - y).square().flatten(1).sum(1)

        return self.prior.problem(fidelity, level=level, weight=strength.weight * (sigma / level) ** 2)

    def restore(self, y: Tensor, operator: LinearMap, **settings: Any) -> Restoration:
        if isinstance(operator, Denoise) and self.strength is None:
            return self.denoise(y, operator.sigma, **settings)
        strength = self.strength or (HOLES if isinstance(operator, Inpaint) else USUAL)
        options = {"tolerance": TOLERANCE, "max_steps": 60, "on_failure": "ignore", "adjoint": jiio.Detached()}
        options |= {"solver": jiio.Anderson(memory=5)} | settings

        # A solve at one level leaves the start of the next: image, state and multiplier.
        x, z, mu = operator.start(y), None, None
        cell = vjp = 0
        for level in strength.levels:
            problem = self.problem(y, operator, level=level, strength=strength)
            solution = jiio.solve(problem, x, z, multiplier=mu, **options)
            x, z, mu = solution.x, solution.z, solution.multiplier
            cell, vjp = cell + solution.evaluations.cell, vjp + solution.evaluations.vjp

        done = Restoration.of(solution.x, solution)
        return dataclasses.replace(done, evaluations=cell, vjps=vjp)

    def denoise(self, y: Tensor, sigma: float, **settings: Any) -> Restoration:
        """One gradient step of the energy, which is what the prior was trained to do with noise."""
        options = {"tolerance": TOLERANCE, "max_steps": 40, "on_failure": "ignore"}
        image, solution = self.prior.gradient_step(y, sigma, **(options | settings))
        return dataclasses.replace(Restoration.of(image, solution), vjps=solution.evaluations.adjoint_vjp)


class DirectRestorer(AbstractRestorer):
    """One equilibrium from the noisy image to the clean one: x = y - R(z*), z* = f(z*, y, sigma). Denoising only."""

    def __init__(self, network: ImagePrior) -> None:
        super().__init__()
        self.network, self.channels = network, network.config.channels

    def restore(self, y: Tensor, operator: LinearMap, **settings: Any) -> Restoration:
        if not isinstance(operator, Denoise):
            came = f"the map {type(operator).__name__}"
            fail("operator", "plain noise, which is what the direct restorer was trained on", came, "Use a prior.")
        options = {"tolerance": TOLERANCE, "max_steps": 40, "on_failure": "ignore", "adjoint": jiio.Detached()}
        solution = self.network.at(operator.sigma).solve(y, **(options | settings))
        image = y - self.network.head(solution.z)[..., : y.shape[2], : y.shape[3]]
        return Restoration.of(image, solution)
