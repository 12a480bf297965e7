"""What chance does to a measurement, as the likelihood that a restoration maximises and as a draw of it.

A noise knows two things of a prediction ``A(x)`` and a measurement ``y``: how large it typically is (its *level*, a
standard deviation in the units of y), and how badly the two agree. The disagreement is minus the log-likelihood *times
the squared level*, so that it is 1/2 |A(x) - y|^2 for Gaussian noise of any level, none included, and every other noise
stands beside a prior with the same weight.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio.checks import JiioError, check_callable, check_number, fail
from jiio.outputs.shares import apart, drawn

DARK = 0.5  # photons below which the likelihood of Poisson goes on as a parabola


class AbstractNoise(ABC):
    """The noise of a measurement."""

    @abstractmethod
    def level(self, y: Tensor) -> float:
        """Its typical standard deviation on the measurement y (B, ...)."""

    @abstractmethod
    def disagreement(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Minus the log-likelihood of y (B, ...), up to a constant, times the squared level: (B,)."""

    def draw(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The measurement ``clean`` (B, ...) with this noise on it, by a CPU generator."""
        fail("noise", "a noise that can be drawn", f"{type(self).__name__}, which is a likelihood alone")


@dataclass(frozen=True, eq=False)
class Gaussian(AbstractNoise):
    """Normal noise.

    sigma: standard deviation, a number or (B,) for each sample its own.
    """

    sigma: float | Tensor = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, Tensor):
            check_number("sigma", self.sigma, 0.0)
        elif self.sigma.ndim != 1 or not bool((self.sigma.isfinite() & (self.sigma > 0)).all()):
            fail("sigma", "a number, or (B,) numbers above 0, one for each sample", self.sigma)

    def level(self, y: Tensor) -> float:
        if not isinstance(self.sigma, Tensor):
            return self.sigma
        if len(self.sigma) != len(y):
            fail("sigma", f"one level, or one for each of the {len(y)} samples", self.sigma)
        return float(self.sigma.double().square().mean().sqrt())

    def disagreement(self, prediction: Tensor, y: Tensor) -> Tensor:
        error = 0.5 * (prediction - y).square().flatten(1).sum(1)
        return error if not isinstance(self.sigma, Tensor) else error * (self.level(y) / self.sigma.to(y)).square()

    def draw(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        if not isinstance(self.sigma, Tensor) and self.sigma == 0.0:
            return clean
        sigma = wide(self.sigma.to(clean), clean) if isinstance(self.sigma, Tensor) else self.sigma
        noise = drawn(lambda n: torch.randn(n, *clean.shape[1:], generator=generator), len(clean))
        return clean + sigma * noise.to(clean)


@dataclass(frozen=True)
class Poisson(AbstractNoise):
    """Photons that are counted, and noise of the electronics: ``y = gain k + sigma n``, k of Poisson of A(x) / gain.

    The sum of the two is taken for a shifted Poisson variable, exact in mean and variance, and exact without ``sigma``
    (Snyder, Hammoud and White, "Image recovery from data acquired with a charge-coupled-device camera", JOSA A 10,
    1993). Its log-likelihood goes on as a parabola below half a photon, where no prediction should be, and which keeps
    it defined and convex everywhere.

    Args:
        gain: what one photon adds to the measurement: 1/60 where white is 60 photons
        sigma: standard deviation of the normal noise beside it
    """

    gain: float
    sigma: float = 0.0

    def __post_init__(self) -> None:
        check_number("gain", self.gain, 0.0, open_low=True)
        check_number("sigma", self.sigma, 0.0)

    def level(self, y: Tensor) -> float:
        variance = self.gain * float(y.clamp_min(0.0).mean()) + self.sigma**2
        return max(variance, DARK * self.gain**2) ** 0.5

    def disagreement(self, prediction: Tensor, y: Tensor) -> Tensor:
        shift = (self.sigma / self.gain) ** 2
        mean, count = prediction / self.gain + shift, (y / self.gain + shift).clamp_min(0.0)

        # Above DARK the likelihood; below, the parabola of the same value and slope, and of at least that curvature
        # with which a count of less than DARK is the minimum: no mean is driven below what was counted.
        safe = mean.clamp_min(DARK)
        below = mean - safe
        curvature = count.clamp_min(DARK) / DARK**2
        each = safe - count * safe.log() + (1.0 - count / DARK) * below + 0.5 * curvature * below.square()
        return self.level(y) ** 2 * each.flatten(1).sum(1)

    def draw(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        counts = torch.poisson(clean.detach().cpu().clamp_min(0.0) / self.gain, generator=apart(generator))
        return Gaussian(self.sigma).draw((self.gain * counts).to(clean), generator)


@dataclass(frozen=True)
class Likelihood(AbstractNoise):
    """A likelihood of one's own.

    Args:
        function: (prediction, y) -> (B,), minus the log-likelihood of every sample, differentiable in the prediction
        sigma: typical standard deviation of the noise; measured from the curvature of the function where it is None
        sample: (clean, generator) -> a measurement, for trainings
    """

    function: Callable[[Tensor, Tensor], Tensor]
    sigma: float | None = None
    sample: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        check_callable("noise", self.function, "(prediction, y) -> tensor of shape (B,)")
        if self.sigma is not None:
            check_number("sigma", self.sigma, 0.0, open_low=True)

    def checked(self, prediction: Tensor, y: Tensor) -> Tensor:
        """What the function says, (B,)."""
        try:
            value = self.function(prediction, y)
        except JiioError:
            raise
        except Exception as error:  # somebody else's function may raise anything
            came = f"one that raised {type(error).__name__}: {' '.join(str(error).split())[:160]}"
            fail("noise", "a function (prediction, y) -> (B,)", came)
        if not isinstance(value, Tensor) or value.shape != (len(y),) or not value.is_floating_point():
            fail("noise", f"minus a log-likelihood per sample, ({len(y)},)", value, "Sum over each sample.")
        return value

    @torch.enable_grad()
    def level(self, y: Tensor) -> float:
        """As given; else 1 / sqrt(curvature) at the prediction y itself, a twentieth of its spread to either side."""
        if self.sigma is not None:
            return self.sigma
        way = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
        step = 0.05 * float((y - y.mean()).square().mean().sqrt()) or 0.05
        slopes = [self._slope(y + sign * step * way, y) for sign in (1.0, -1.0)]

        bend = float(((slopes[0] - slopes[1]) * way).sum() / (2.0 * step * way.square().sum()))
        if not 0.0 < bend < float("inf"):
            came = f"one of curvature {bend:.2g} at y itself"
            fail("noise", "a likelihood that is largest near y", came, "Pass Likelihood(function, sigma=...).")
        return bend**-0.5

    def _slope(self, prediction: Tensor, y: Tensor) -> Tensor:
        leaf = prediction.detach().requires_grad_()
        value = self.checked(leaf, y).sum()
        if not value.requires_grad:
            fail("noise", "a likelihood that autograd can differentiate", "one that cuts the graph")
        return torch.autograd.grad(value, leaf)[0]

    def disagreement(self, prediction: Tensor, y: Tensor) -> Tensor:
        return self.level(y) ** 2 * self.checked(prediction, y)

    def draw(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return super().draw(clean, generator) if self.sample is None else self.sample(clean, generator)


def wide(a: Tensor, like: Tensor) -> Tensor:
    """() or (B,) as a tensor that broadcasts against ``like`` (B, ...)."""
    return a if a.ndim == 0 else a.view(-1, *[1] * (like.ndim - 1))


def as_noise(noise: Any, y: Tensor) -> AbstractNoise:
    """A noise, a noise model of deepinv, a number (the standard deviation), or a likelihood of one's own.

    Errors: ArgumentError where it is none of them, or a noise that is not one of those here.
    """
    name = type(noise).__name__
    if isinstance(noise, AbstractNoise):
        found = noise
    elif noise is None or name == "ZeroNoise":
        found = Gaussian(0.0)
    elif isinstance(noise, (int, float)) and not isinstance(noise, bool):
        found = Gaussian(float(noise))
    elif name in ("GaussianNoise", "PoissonNoise", "PoissonGaussianNoise"):
        found = _of_deepinv(noise, name)
    elif callable(noise) and not hasattr(noise, "update_parameters"):
        found = Likelihood(noise)  # type: ignore[arg-type]
    else:
        came = f"{name} {noise!r}" if isinstance(noise, str) else name
        remedy = "Pass sigma=, the nearest level, or noise=, minus your own log-likelihood (prediction, y) -> (B,)."
        fail("noise", "Gaussian or Poisson noise, or both", came, remedy)
    level = found.level(y)
    return dataclasses.replace(found, sigma=level) if isinstance(found, Likelihood) else found


def _of_deepinv(model: Any, name: str) -> AbstractNoise:
    """Their three models that are ours too; levels are tensors of one value there, or of one for each sample."""
    sigma, gain = (_value(f"{name}.{key}", getattr(model, key, None)) for key in ("sigma", "gain"))
    if gain is None:
        return Gaussian(_needed(name, "sigma", sigma))
    if isinstance(gain, Tensor) or isinstance(sigma, Tensor):
        fail("noise", "one gain and one sigma for the whole batch", f"{name} with several", "Restore one by one.")
    if getattr(model, "normalize", True) in (False, None) and hasattr(model, "normalize"):
        remedy = "Multiply y by the gain and pass noise=Poisson(gain)."
        fail("noise", "photons in the units of the image (normalize=True)", "bare counts", remedy)
    return Poisson(gain, sigma or 0.0)


def _needed(name: str, key: str, value: Any) -> Any:
    return value if value is not None else fail("noise", f"{name} with its {key}", "none", "Pass sigma=.")


def _value(argument: str, value: Any) -> float | Tensor | None:
    """One number, as a float; several as a tensor (B,)."""
    if value is None:
        return None
    if isinstance(value, Tensor) and value.numel() == 1:
        value = float(value)
    return value if isinstance(value, Tensor) else check_number(argument, value, 0.0)


def stated_by(physics: Any) -> Any:
    """What an object that is no map of ours says of its noise: ``noise_model`` in deepinv's words, ``noise`` or
    ``sigma`` in ours; None where it says nothing.
    """
    model, noise, sigma = (getattr(physics, name, None) for name in ("noise_model", "noise", "sigma"))
    if model is not None:
        return model
    if isinstance(noise, AbstractNoise):
        return noise
    return sigma if isinstance(sigma, float | int | Tensor) else None
