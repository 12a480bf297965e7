"""Anybody's map as one of ours: an object with ``A`` such as a physics of deepinv, or a bare function of images.

Nothing is asked of it but that it gives a measurement for a batch of images. What it *is* is found by trying it out
(:mod:`.probing`): a multiplication becomes :class:`Diagonal` or one of its own kinds, a filter becomes
:class:`Circulant`, any other linear map is a :class:`Physics` with its own adjoint, or that of autograd, and whatever
is not linear is :class:`Curved`. The same map gives the same restoration, then, whoever wrote it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_number, fail

from .base import Denoise, Inpaint, LinearMap
from .foreign import Foreign, Form, transposed
from .forward import AbstractMap, WithNoise
from .least import gauss_newton
from .noise import AbstractNoise, Gaussian, as_noise, stated_by
from .probing import adjoint_gap, as_diagonal, as_filter, bend, check_steady, filtered
from .several import chained, composed

LINEAR = 1e-3  # how far from linear rounding may make a map


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
    """A linear map and its adjoint as two functions, which may be written in anything, NumPy included: derivatives of
    the one go through the other and back.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    sigma: float = 0.0

    def A(self, x: Tensor) -> Tensor:
        return _Applied.apply(x, self.forward, self.adjoint)  # type: ignore[return-value]

    def A_adjoint(self, y: Tensor) -> Tensor:
        return _Applied.apply(y, self.adjoint, self.forward)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Diagonal(LinearMap):
    """Multiplication by d, pixel by pixel. d: any shape that broadcasts against images."""

    d: Tensor
    sigma: float = 0.0

    @property
    def diagonal(self) -> Tensor:
        return self.d

    def A(self, x: Tensor) -> Tensor:
        return self.d.to(x) * x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.d.to(y) * y

    def start(self, y: Tensor) -> Tensor:
        """Divided by d, and the places where it is 0 filled from those around them."""
        d = self.d.to(y)
        seen = (d != 0).to(y).expand_as(y)
        return Inpaint(seen).start(y / torch.where(d != 0, d, torch.ones_like(d)))

    def norm_bound(self, image: Tensor, *, rounds: int = 0) -> float:
        return float(self.d.abs().max())


@dataclass(frozen=True, eq=False)
class Circulant(LinearMap):
    """A filter of each channel with a border that is the opposite side. spectrum: (1 or B, C, H, W // 2 + 1)."""

    spectrum: Tensor
    sigma: float = 0.0

    def A(self, x: Tensor) -> Tensor:
        return filtered(x, self.spectrum.to(x.device))

    def A_adjoint(self, y: Tensor) -> Tensor:
        return filtered(y, self.spectrum.to(y.device).conj())

    @torch.no_grad()
    def nearest(self, x: Tensor, y: Tensor, step: Tensor) -> Tensor:
        power = self.spectrum.to(y.device).abs().square()
        return filtered(x + step * self.A_adjoint(y), 1.0 / (1.0 + step.double() * power))

    def norm_bound(self, image: Tensor, *, rounds: int = 0) -> float:
        return float(self.spectrum.abs().max())


@dataclass(frozen=True, eq=False)
class Curved(AbstractMap):
    """A map that is not linear, differentiable by autograd. shape: (C, H, W) of its images. inside: whether it is
    defined on images from 0 to 1 alone.
    """

    function: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    sigma: float = 0.0
    inside: bool = False

    @property
    def domain(self) -> jiio.AbstractProx:
        return jiio.Box(1e-4, 1.0) if self.inside else jiio.Identity()

    def A(self, x: Tensor) -> Tensor:
        return self.function(x)

    def start(self, y: Tensor) -> Tensor:
        """A few steps of Gauss and Newton from middle grey."""
        grey = torch.full((len(y), *self.shape), 0.5, dtype=y.dtype, device=y.device)
        with torch.no_grad():
            found = gauss_newton(self.function, self.at, y, grey)
        return found.clamp(1e-4, 1.0) if self.inside else found

    def at(self, image: Tensor) -> Physics:
        """The derivative of the map at an image: a linear map, by two reverse passes."""
        with torch.enable_grad():
            x = image.detach().requires_grad_()
            y = self.function(x)
            w = torch.zeros_like(y, requires_grad=True)
            (back,) = torch.autograd.grad(y, x, w, create_graph=True)
        along = lambda u: torch.autograd.grad(back, w, u, retain_graph=True)[0]  # noqa: E731
        against = lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0]  # noqa: E731
        return Physics(along, against, self.sigma)

    def norm_bound(self, image: Tensor, *, rounds: int = 30) -> float:
        """That of its derivative at middle grey: elsewhere one dark pixel under a root would speak for all."""
        return self.at(torch.full_like(image, 0.5)).norm_bound(image, rounds=rounds)


def packed(y: Any) -> Tensor:
    """A measurement as maps of :func:`as_map` have it: complex values as pairs of channels, a stack as one vector."""
    return Form.of(y).pack(y)


def as_map(
    physics: Any,
    y: Any,
    *,
    sigma: float | Tensor | None = None,
    noise: Any = None,
    shape: tuple[int, int, int] | None = None,
    tolerance: float = 1e-2,
) -> AbstractMap:
    """The map behind a measurement, by what it is.

    Args:
        physics: a function of images (B, C, H, W); an object with ``A`` and perhaps ``A_adjoint``, such as a physics of
            deepinv; a map of jiio; or a list of these, in the order in which they happened to the image.
        y: a measurement, batch first; complex values and stacks of tensors are packed by :func:`packed`.
        sigma: standard deviation of Gaussian noise, of the batch or (B,) of every sample.
        noise: instead of ``sigma``, any noise that :func:`jiio.tasks.maps.noise.as_noise` knows (default: what
            ``physics.noise_model``, ``noise`` or ``sigma`` says).
        shape: (C, H, W) of the images, where neither the adjoint nor the measurement says it.
        tolerance: how far the two methods may be from adjoint to each other, relative to the size of ``A``.

    Errors: ArgumentError where there is no map, it is zero, its adjoint is not one, a map that says it is linear is
    not, or the noise is none that is known here.
    """
    check_number("tolerance", tolerance, 0.0)
    if sigma is not None and noise is not None:
        fail("noise", "sigma or noise", "both", "A model of the noise has its own levels.")
    if shape is not None and (len(shape) != 3 or any(not isinstance(n, int) or n < 1 for n in shape)):
        fail("shape", "(C, H, W), three numbers of at least 1", shape)
    v = packed(y)
    if not len(v):
        fail("y", "a batch with a measurement in it", v)
    if isinstance(physics, (list, tuple)):
        physics = sequence(physics)
    ours = isinstance(physics, AbstractMap)
    stated = noise if noise is not None else sigma
    if stated is None:
        stated = physics.noise if ours else stated_by(physics)
    if isinstance(stated, Tensor):
        stated = Gaussian(float(stated) if stated.numel() == 1 else stated)

    found = as_noise(stated, v)
    trusted = ours and type(physics).__module__.startswith("jiio.tasks.maps.")
    with torch.no_grad():
        operator = physics if trusted else recognised(physics, y, shape, tolerance)
    return with_noise(operator, found, v)


def sequence(maps: Any) -> Any:
    """Maps that happened one after the other, as one map, or as one function where some are not ours."""
    whole = chained(maps)
    ours = all(isinstance(m, LinearMap) and type(m).__module__.startswith("jiio.tasks.maps.") for m in maps)
    return composed(*maps) if ours else whole


def adopted(drawn: Any, images: Tensor, *, noise: Any = None) -> AbstractMap:
    """A map that a corruption drew for images (B, C, H, W), or what :func:`as_map` makes of it. noise: where it says
    none itself.
    """
    if isinstance(drawn, AbstractMap) and type(drawn).__module__.startswith("jiio.tasks.maps."):
        return drawn
    with torch.no_grad():
        measure: Any = getattr(drawn, "A", drawn)
        y = measure(images)
    own = drawn.noise if isinstance(drawn, AbstractMap) else stated_by(drawn)
    return as_map(drawn, y, noise=noise if own is None else own, shape=tuple(images.shape[1:]))  # type: ignore[arg-type]


def with_noise(operator: AbstractMap, noise: AbstractNoise, y: Tensor) -> AbstractMap:
    """The map under this noise: Gaussian noise of one level is a number that every map has."""
    if isinstance(noise, Gaussian) and not isinstance(noise.sigma, Tensor):
        bare = operator.operator if isinstance(operator, WithNoise) else operator
        return bare if bare.sigma == noise.sigma else dataclasses.replace(bare, sigma=noise.sigma)  # type: ignore[type-var]
    return WithNoise(operator, noise, noise.level(y))


def recognised(physics: Any, y: Any, shape: tuple[int, int, int] | None, tolerance: float) -> AbstractMap:
    """A foreign map as one of ours, without its noise."""
    foreign = Foreign(physics, y)
    says_linear = claims(physics)
    if not says_linear:
        foreign.back = None
    image = foreign.images(shape, getattr(physics, "img_size", None))
    check_steady(foreign.forward, image)

    bent = bend(foreign.forward, image)
    if not bent <= LINEAR:
        if says_linear:
            came = f"one with |A(u + v) - A(u) - A(v)| = {bent:.2g} |A(u + v)|"
            remedy = "Pass the function A alone: it is restored as one that is not linear."
            fail("physics.A", "a linear map, as the adjoint beside it says", came, remedy)
        inside = not bool(foreign.forward(image - 0.5).isfinite().all())
        transposed(foreign.forward, image)(torch.zeros_like(foreign.like))  # autograd must see through it
        return Curved(foreign.forward, tuple(image.shape[1:]), inside=inside)
    return linear(foreign, image, tolerance)


def claims(physics: Any) -> bool:
    """Whether a physics says that it is linear: by an adjoint, unless its class in deepinv says otherwise."""
    names = [cls.__name__ for cls in type(physics).__mro__]
    if isinstance(physics, LinearMap) or "LinearPhysics" in names:
        return True
    return callable(getattr(physics, "A_adjoint", None)) and "Physics" not in names


def linear(foreign: Foreign, image: Tensor, tolerance: float) -> LinearMap:
    """The linear map of a foreign function, after the dot test."""
    adjoint = foreign.adjoint if foreign.back is not None else transposed(foreign.forward, image)
    gap = adjoint_gap(foreign.forward, adjoint, image, foreign.like)
    if not gap <= tolerance:
        remedy = "Correct it (deepinv's Tomography: adjoint_via_backprop=True), pass A alone, or raise tolerance."
        fail("physics.A_adjoint", f"the adjoint of A to {tolerance:g}", f"one that is off by {gap:.2g}", remedy)

    d = as_diagonal(foreign.forward, image)
    if d is not None:
        if not bool(d.any()):
            fail("physics.A", "a map that measures something of an image", "one that is zero for every image")
        if bool((d == 1).all()):
            return Denoise(0.0)
        return Inpaint(d) if bool(((d == 0) | (d == 1)).all()) else Diagonal(d)
    spectrum = as_filter(foreign.forward, image)
    return Physics(foreign.forward, adjoint) if spectrum is None else Circulant(spectrum)


def as_linear_map(physics: Any, y: Any, *, sigma: float | None = None, tolerance: float = 1e-2) -> LinearMap:
    """As :func:`as_map`, for who needs a linear map under Gaussian noise of one level.

    Errors: ArgumentError where it is another.
    """
    found = as_map(physics, y, sigma=sigma, tolerance=tolerance)
    if isinstance(found, LinearMap):
        return found
    came = f"{type(found.noise).__name__} noise" if isinstance(found, WithNoise) else "one that is not linear"
    return fail("physics.A", "a linear map under Gaussian noise of one level", came, "Use as_map.")
