"""Finding the code of an image for a generator that is already there, and knowing whether that worked; one interface.

    AdamDescent   Adam on the code, from any number of starts; feed-forward generators and equilibria
    LayerWise     layer by layer from the output (:mod:`.layerwise`); feed-forward generators
    LatentPursuit layer by layer, the last two problems jointly (:mod:`.pursuit`); feed-forward generators
    GaussNewton   least squares in a short code (:mod:`.newton`); feed-forward generators
    JointFit      state, multiplier and code in one solve (:func:`jiio.tasks.generate.fit.fit.fit_images`); equilibria

A feed-forward generator is a module from codes (B, latent) to images, an equilibrium a
:class:`jiio.tasks.generate.generator.LatentGenerator`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import ArgumentTypeError, check_finite, check_instance, check_integer, check_number, fail
from jiio.outputs.seeds import generator as source_of

from ..fit.fit import fit_images
from ..generator import LatentGenerator

Affected = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # other images with every batch in training


@dataclass(frozen=True, eq=False)
class Inverted:
    """Codes for a batch of images y, and how far they can be trusted.

    x: (B, latent). image: (B, ...), what the generator G makes of them. objective: (B,), |G(x) - y|^2, plus the prior
    where the generator has one. residual: (B,), |G(x) - y| / |y|. succeeded: (B,), the residual is within reach and the
    method found nothing wrong. evaluations, gradients: passes of the batch through the generator and back; of one of
    its layers its share of the multiplications.
    """

    x: Tensor
    image: Tensor
    objective: Tensor
    residual: Tensor
    succeeded: Tensor
    evaluations: float
    gradients: float


@dataclass(frozen=True)
class AbstractInversion(ABC):
    """A way to codes. within: the largest residual of a success; with noisy images, its relative size."""

    within: float = field(default=1e-3, kw_only=True)

    def __post_init__(self) -> None:
        check_number("within", self.within, 0.0, open_low=True)

    @abstractmethod
    def find(self, generator: nn.Module, images: Tensor) -> Inverted:
        """For images (B, ...) of the generator's shape. The generator keeps its weights and gets no gradients.

        Errors: ArgumentError, ArgumentTypeError where the method cannot invert this generator, or the images are not of
        its kind.
        """


@dataclass(frozen=True)
class AdamDescent(AbstractInversion):
    """Adam on |G(x) - y|^2 + prior |x|^2 (Kingma, Ba 2015), its rate falling to zero along half a cosine.

    rate: in units of the code. starts: standard normal codes to start from; the best end is kept. start: a method whose
    codes replace the first of them.
    """

    rate: float = 0.1
    steps: int = 300
    starts: int = 1
    seed: int = 0
    start: AbstractInversion | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("rate", self.rate, 0.0, open_low=True)
        check_integer("steps", self.steps, 1)
        check_integer("starts", self.starts, 1)
        if self.start is not None:
            check_instance("start", self.start, AbstractInversion)

    def find(self, generator: nn.Module, images: Tensor) -> Inverted:
        latent, batch = check_pair(generator, images), len(images)
        x, evaluations, gradients = first_codes(self, generator, images, latent)
        x.requires_grad_()
        y = images.repeat(self.starts, *[1] * (images.dim() - 1))
        optimiser = torch.optim.Adam([x], self.rate)
        best, lowest = x.detach().clone(), x.new_full((len(x),), math.inf)

        # Every step judges where it is before it moves on; the last one only judges.
        for step in range(self.steps + 1):
            with torch.enable_grad():
                image, calls = imagine(generator, x)
                objective = (image - y).square().flatten(1).sum(1) + prior_of(generator) * x.square().sum(1)
            better = objective.detach() < lowest
            lowest = torch.where(better, objective.detach(), lowest)
            best = torch.where(better[:, None], x.detach(), best)
            if step < self.steps:
                optimiser.param_groups[0]["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
                x.grad = torch.autograd.grad(objective.sum(), x)[0]
                optimiser.step()
            evaluations += self.starts * calls.cell
            gradients += self.starts * (calls.vjp + calls.adjoint_vjp + (step < self.steps))

        chosen = lowest.view(-1, batch).argmin(0)  # (B,) which start came furthest
        x = best.view(-1, batch, latent)[chosen, torch.arange(batch, device=best.device)]
        return judged(generator, images, x, self.within, evaluations, gradients)


class FromStarts(Protocol):
    """What a descent from several starts says about them."""

    @property
    def starts(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def start(self) -> AbstractInversion | None: ...


def first_codes(how: FromStarts, generator: nn.Module, images: Tensor, latent: int) -> tuple[Tensor, float, float]:
    """The codes (starts * B, latent) to start from, and what finding them cost: evaluations and gradients."""
    x = torch.randn(how.starts, 1, latent, generator=source_of(how.seed, "starts"))
    x = x.to(images).repeat(1, len(images), 1)  # the same for every image, whatever company it comes in
    evaluations = gradients = 0.0
    if how.start is not None:
        begun = how.start.find(generator, images)
        x[0], evaluations, gradients = begun.x, begun.evaluations, begun.gradients
    return x.flatten(0, 1), evaluations, gradients


@dataclass(frozen=True)
class JointFit(AbstractInversion):
    """The joint solve, from zero and from codes like those of training images. restarts: number of the latter."""

    restarts: int = 2
    seed: int = 0
    max_steps: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("restarts", self.restarts, 0)
        check_integer("max_steps", self.max_steps, 2)

    def find(self, generator: nn.Module, images: Tensor) -> Inverted:
        remedy = "A feed-forward generator is inverted by AdamDescent or LayerWise."
        check_instance("generator", generator, LatentGenerator, remedy)
        check_pair(generator, images)
        assert isinstance(generator, LatentGenerator)
        fit = fit_images(generator, images, restarts=self.restarts, seed=self.seed, max_steps=self.max_steps)
        passes = float(fit.evaluations), float(fit.vjps)
        return judged(generator, images, fit.x, self.within, *passes, sound=fit.converged)


def imagine(generator: nn.Module, x: Tensor) -> tuple[Tensor, jiio.Evaluations]:
    """The images of codes (B, latent), not clipped, and what they cost."""
    if not isinstance(generator, LatentGenerator):
        return generator(x), jiio.Evaluations(cell=1)
    solution = generator.decoder.solve(x, tolerance=jiio.Tolerance(1e-6, 1e-5), on_failure="ignore")
    return generator.decode(solution.z), solution.evaluations


def prior_of(generator: nn.Module) -> float:
    """The weight of |x|^2 in the objective."""
    return generator.prior if isinstance(generator, LatentGenerator) else 0.0


@torch.no_grad()
def judged(
    generator: nn.Module,
    images: Tensor,
    x: Tensor,
    within: float,
    evaluations: float,
    gradients: float,
    *,
    sound: Tensor | None = None,
) -> Inverted:
    """What the codes are worth: their own images, made anew (and not counted). sound: (B,), no complaint so far."""
    image, _ = imagine(generator, x)

    # A code that is not finite is no success, whatever its image looks like.
    error = (image - images).square().flatten(1).sum(1)
    residual = (error / images.square().flatten(1).sum(1).clamp_min(1e-30)).sqrt()
    objective = error + prior_of(generator) * x.square().sum(1)
    succeeded = (residual <= within) & torch.isfinite(x).all(1)
    succeeded = succeeded if sound is None else succeeded & sound
    return Inverted(x.detach(), image, objective, residual, succeeded, evaluations, gradients)


def check_pair(generator: nn.Module, images: Tensor) -> int:
    """The length of the codes of a generator that makes images like these."""
    check_instance("generator", generator, nn.Module)
    for part in generator.modules():
        if part.training and isinstance(part, Affected):
            fail("generator", "a generator in eval mode", f"{type(part).__name__} in train mode", "Call eval() first.")
    if not isinstance(images, Tensor) or not images.is_floating_point():
        fail("images", "a tensor of images (B, ...)", images, error=ArgumentTypeError)

    # Only an image of the generator itself tells its shape.
    latent, like = latent_of(generator), next(generator.parameters())
    with torch.no_grad():
        shape = imagine(generator, like.new_zeros(1, latent))[0].shape[1:]
    if not len(images) or images.shape[1:] != shape or (images.dtype, images.device) != (like.dtype, like.device):
        sort = f"{str(like.dtype).removeprefix('torch.')} on {like.device}"
        fail("images", f"a batch of images of the generator's shape {tuple(shape)}, {sort}", images)
    check_finite("images", images)
    return latent


def latent_of(generator: nn.Module) -> int:
    """The length of the codes (B, latent) that a generator takes."""
    if isinstance(generator, LatentGenerator):
        return generator.decoder.config.input[0]
    first = next((part for part in generator.modules() if not list(part.children())), generator)
    if isinstance(first, nn.Linear):
        return first.in_features
    if isinstance(first, nn.Unflatten):
        return math.prod(first.unflattened_size)
    remedy = "Put nn.Unflatten(1, (latent, 1, 1)) before a convolution."
    fail("generator", "a first layer nn.Linear or nn.Unflatten", type(first).__name__, remedy)
