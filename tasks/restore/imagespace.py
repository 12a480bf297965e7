"""Restorers whose unknown is the image itself, of any size: by a learned energy, or directly.

:class:`ImageRestorer` minimises, for a measurement y = A(x) + sigma n,

    1/2 |A(x) - y|^2 + weight (sigma / level)^2 E(x, level)

over the image x, with the state and multiplier of the energy's equilibrium solved along with it; other noise than
Gaussian puts its own disagreement in the place of the first term. The energy is that of
:class:`jiio.models.ImagePrior`; about ``-level^2 log p`` of images with noise of that level on them, which explains the
factor. One prior serves every map, and all that is asked of a map is what it says of itself
(:class:`jiio.tasks.maps.forward.AbstractMap`), in units in which its norm is 1. Where the objective has several valleys
(large holes, strong blur) the solve goes through falling levels, each starting from the state, multiplier and image of
the one before.

:class:`DirectRestorer` is a plain equilibrium network from the noisy image to the clean one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import jiio
from jiio.checks import check_choice, check_number, fail
from jiio.models.images.prior import ImagePrior
from jiio.persample import SampleBySample
from jiio.tasks.frame.precision import PRECISIONS
from jiio.tasks.maps.base import LinearMap
from jiio.tasks.maps.forward import AbstractMap, Disagreement
from jiio.tasks.maps.noise import Gaussian

from .base import AbstractRestorer, Restoration
from .channels import channelwise
from .explaining import Explains
from .quick import computing

TOLERANCE = jiio.Tolerance(atol=1e-4, rtol=1e-3)
SPLIT_TOLERANCE = jiio.Tolerance(atol=5e-4, rtol=5e-3)  # where the disagreement is a prox, or there is none
FAST = jiio.Tolerance(atol=2e-3, rtol=2e-2)  # for who would rather have half of the time than the last 0.2 dB
NOISE_TOLERANCE = jiio.Tolerance(atol=5e-3, rtol=5e-2)  # of a gradient step: 0.003 dB behind the one above
RATE = 0.5  # of a gradient step on the energy, in units of its curvature


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
MOST, LEAST, LIGHT = 0.22, 0.002, 0.5  # for maps that know their level: it at most, the noise at least, the weight


class _Nothing(SampleBySample):
    """No fidelity: the prox has all of it."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))


class ImageRestorer(AbstractRestorer):
    """Joint solve over image, state and multiplier; for plain noise one gradient step, as trained.

    strength: how the prior is used (default: what was tuned for the kind of map). precision: auto, float32 or bfloat16,
    see :mod:`.quick`.
    """

    def __init__(self, prior: ImagePrior, *, strength: Strength | None = None, precision: str = "auto") -> None:
        super().__init__()
        self.prior, self.strength, self.channels = prior, strength, prior.config.channels
        self.precision = check_choice("precision", precision, PRECISIONS)

    def problem(
        self, y: Tensor, operator: AbstractMap, *, level: float, strength: Strength, norm: float = 1.0
    ) -> jiio.Problem:
        """The joint problem at one level. norm: of the map, by which everything measured is divided."""
        sigma = max(operator.sigma / norm, strength.sigma)

        prior = channelwise(self.prior, images=operator.start(y).shape[1])
        weight = strength.weight * (sigma / level) ** 2
        fidelity = Disagreement(operator, y, norm**-2)
        return prior.problem(fidelity, level=level, weight=weight, prox=operator.domain)

    def split(
        self, y: Tensor, operator: LinearMap, *, level: float, strength: Strength, norm: float
    ) -> tuple[jiio.Problem, dict[str, Any]]:
        """The same with the disagreement as a prox, and the settings: the curvature of the energy is known, and such
        steps come much nearer to the solution than their length says.
        """
        shape = operator.start(y).shape[1:]
        weight = strength.weight * (max(operator.sigma / norm, strength.sigma) / level) ** 2
        prox = Explains(operator, y, shape, norm**-2)
        prior = channelwise(self.prior, images=shape[0])
        problem = prior.problem(_Nothing(), level=level, weight=weight, prox=prox)
        rule = jiio.GradientStep(RATE, curvature=weight)
        return problem, {"rule": rule, "tolerance": SPLIT_TOLERANCE, "max_steps": 60}

    def restore(self, y: Tensor, operator: AbstractMap, **settings: Any) -> Restoration:
        factor = one_factor(operator)
        if factor is not None and self.strength is None and isinstance(operator.noise, Gaussian):
            return self.denoise(y / factor, operator.noise, abs(factor), **settings)
        strength = self.strength or usual(operator)
        options = {"tolerance": TOLERANCE, "on_failure": "ignore", "adjoint": jiio.Detached()}
        options |= {"solver": jiio.Anderson(memory=5), "max_steps": 100 if operator.quadratic else 150}
        splits = "metric" not in settings

        # A solve at one level leaves the start of the next: image, state and multiplier.
        x, z, mu = operator.start(y), None, None
        norm = operator.norm_bound(x) or 1.0
        cell = vjp = 0
        for level in strength.levels:
            how = {"level": level, "strength": strength, "norm": norm}
            if splits and isinstance(operator, LinearMap):
                problem, more = self.split(y, operator, **how)
            else:
                problem, more = self.problem(y, operator, **how), {}
            settled = options | more | settings
            with computing(self.prior, self.precision, settled["tolerance"]):
                solution = jiio.solve(problem, x, z, multiplier=mu, **settled)
            x, z, mu = solution.x, solution.z, solution.multiplier
            cell, vjp = cell + solution.evaluations.cell, vjp + solution.evaluations.vjp

        done = Restoration.of(solution.x, solution)
        return dataclasses.replace(done, evaluations=cell, vjps=vjp)

    def denoise(self, y: Tensor, noise: Gaussian, factor: float = 1.0, **settings: Any) -> Restoration:
        """One gradient step of the energy, which is what the prior was trained to do with noise. factor: by which y was
        divided.
        """
        options = {"tolerance": NOISE_TOLERANCE, "max_steps": 40, "on_failure": "ignore"} | settings
        if options["tolerance"] == FAST:
            options["tolerance"] = NOISE_TOLERANCE  # which is looser yet
        prior = channelwise(self.prior, images=y.shape[1])
        with computing(self.prior, self.precision, options["tolerance"]):
            image, solution = prior.gradient_step(y, noise.sigma / factor, **options)
        done = Restoration.of(image, solution)
        return dataclasses.replace(
            done,
            converged=done.converged.view(len(y), -1).all(1),  # of all channels, where each is a solve of its own
            residual=done.residual.view(len(y), -1).amax(1),
            vjps=solution.evaluations.adjoint_vjp,
        )


def one_factor(operator: AbstractMap) -> float | None:
    """c where the map is x -> c x, else None."""
    d = operator.diagonal
    if d is None or not bool((d == d.flatten()[0]).all()):
        return None
    return float(d.flatten()[0]) or None


def usual(operator: AbstractMap) -> Strength:
    """What was tuned for the kind of map."""
    if operator.level is not None:
        return Strength(levels=(min(operator.level, MOST),), weight=LIGHT, sigma=LEAST)
    return HOLES if has_holes(operator) else USUAL


def has_holes(operator: AbstractMap) -> bool:
    """Whether single pixels are missing, and the others measured each by itself."""
    d = operator.diagonal
    return d is not None and bool((d == 0).any())


class DirectRestorer(AbstractRestorer):
    """One equilibrium from the noisy image to the clean one: x = y - R(z*), z* = f(z*, y, sigma). Denoising only."""

    def __init__(self, network: ImagePrior) -> None:
        super().__init__()
        self.network, self.channels = network, network.config.channels

    def restore(self, y: Tensor, operator: AbstractMap, **settings: Any) -> Restoration:
        if one_factor(operator) != 1.0 or not isinstance(operator.noise, Gaussian):
            came = f"the map {type(operator).__name__}"
            fail("operator", "plain noise, which is what the direct restorer was trained on", came, "Use a prior.")
        options = {"tolerance": TOLERANCE, "max_steps": 40, "on_failure": "ignore", "adjoint": jiio.Detached()}
        solution = self.network.at(operator.noise.sigma).solve(y, **(options | settings))
        image = y - self.network.head(solution.z)[..., : y.shape[2], : y.shape[3]]
        return Restoration.of(image, solution)
