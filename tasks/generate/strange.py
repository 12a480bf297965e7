"""How strange images are, one by one and as a group, by what their fits leave: codes and residuals.

A single number of a fit misleads. What is small and mostly dark has a smaller objective than the images of the training
(Nalisnick et al. 2019), so it looks *more* familiar than they do. Here a fit leaves several numbers, its *traits*, and
what is measured is how far they are, in any direction, from the traits of familiar images:

    a point     two-sided typicality of the objective; how unlikely the residual's and the code's traits are, each under
                a density of its own (as Morningstar et al. 2021 do with the statistics of other models)
    a group     two-sample statistics of its traits against the familiar ones: typicality of the mean objective
                (Nalisnick, Matsukawa, Teh, Lakshminarayanan 2019), Kolmogorov and Smirnov's, the energy distance
                (Szekely, Rizzo 2013), the maximum mean discrepancy (Gretton et al. 2012)

A group is called strange as a whole: a few strange images among many familiar ones hardly move it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import check_finite, check_instance, check_integer, fail
from jiio.outputs.seeds import generator

from .codes import GaussianMixture
from .fit.fit import Fit, fit_images
from .generator import LatentGenerator

BANDS = 6  # rings of spatial frequency in which the residual's power is told
OURS = 2 + BANDS  # traits that belong to the residual; the rest are the code
FLOOR = 1e-6  # mean square of a residual below which an image counts as explained
BROKEN = 1e3  # what stands for a trait of a fit that broke down: as strange as can be
CHUNK = 100  # images fitted at a time


def traits(images: Tensor, fit: Fit) -> Tensor:
    """(B, 8 + n) of images (B, C, H, W) and their fit: the logs of its objective, of the share of the image that it
    leaves unexplained, and of the residual's power in six bands of frequency; then the code (n).
    """
    residual = fit.image - images
    power = (images - images.mean((1, 2, 3), keepdim=True)).square().mean((1, 2, 3))
    share = (residual.square().mean((1, 2, 3)) + FLOOR).log() - (power + FLOOR).log()
    objective = fit.objective.clamp_min(FLOOR).log()
    bands = (spectrum(residual) + FLOOR).log()
    found = torch.cat([objective[:, None], share[:, None], bands, fit.x], 1)
    return found.nan_to_num(nan=BROKEN, posinf=BROKEN, neginf=-BROKEN)


def spectrum(images: Tensor) -> Tensor:
    """(B, 6) the mean power of images (B, C, H, W) in rings of spatial frequency, from the mean to the finest stripes.

    Of white noise with variance v it is v in every ring; in a ring that small images do not have, it is zero.
    """
    power = torch.fft.fft2(images, norm="ortho").abs().square().mean(1).flatten(1)
    rows, columns = (torch.fft.fftfreq(side, device=images.device) for side in images.shape[-2:])
    radius = (rows[:, None].square() + columns.square()).sqrt()
    ring = (2 * BANDS * radius).long().clamp_max(BANDS - 1).flatten()
    sums = power.new_zeros(len(images), BANDS).index_add_(1, ring, power)
    return sums / torch.bincount(ring, minlength=BANDS).clamp_min(1)


def traits_of(model: LatentGenerator, images: Tensor, *, restarts: int = 0) -> Tensor:
    """(B, 8 + n) :func:`traits` of images (B, C, H, W) in [0, 1], fitted here. restarts: of :func:`fit_images`.

    Errors: ArgumentError or ArgumentTypeError where model or images are none.
    """
    check_instance("model", model, LatentGenerator)
    shape = model.mean.shape
    if not isinstance(images, Tensor) or images.dim() != 4 or images.shape[1:] != shape or not len(images):
        fail("images", f"images (B, {', '.join(map(str, shape))}), as the generator makes them", images)
    check_finite("images", images)
    return torch.cat([traits(part, fit_images(model, part, restarts=restarts)) for part in images.split(CHUNK)])


@dataclass(frozen=True, eq=False)
class _Block:
    """Some traits of the familiar images: where they are (an index into all), their density, and its usual surprise."""

    place: slice
    density: GaussianMixture
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, known: Tensor, place: slice, components: int, seed: int) -> _Block:
        part = known[:, place].double()
        density = GaussianMixture.fit(part, components, generator=generator(seed, "familiar"))
        told = -density.log_density(part)
        return cls(place, density, told.mean(), told.std().clamp_min(1e-6))

    def surprise(self, units: Tensor) -> Tensor:
        """(B,) in deviations of that of the familiar images above its mean."""
        return (-self.density.log_density(units[:, self.place].double()) - self.mean) / self.spread


@dataclass(frozen=True, eq=False)
class Familiar:
    """What the fits of familiar images are like. known: (N, t) their traits, in units of ``mean`` and ``scale`` (t,).
    residual, code: the densities of the two kinds of traits. width: of the kernel of the discrepancy, the median
    distance of two images.

    Scores take raw traits, (B, t) of points or (G, m, t) of groups of m, and are larger for stranger ones.
    """

    known: Tensor
    mean: Tensor
    scale: Tensor
    residual: _Block
    code: _Block
    width: Tensor

    @classmethod
    def of(cls, traits: Tensor, *, components: int = 1, seed: int = 0) -> Familiar:
        """From traits (N, t) of familiar images. components: of the mixture of Gaussians that the codes are held for.

        Errors: ArgumentError where there are too few of them, or they are not finite.
        """
        check_integer("components", components, 1)
        check_integer("seed", seed, 0)
        least, remedy = max(4, 2 * components), "traits_of() makes them."
        if not isinstance(traits, Tensor) or traits.dim() != 2 or traits.shape[1] <= OURS or len(traits) < least:
            fail("traits", f"traits (N, t) of at least {least} familiar images, t above {OURS}", traits, remedy)
        check_finite("traits", traits)

        # Residual and code weigh the same in a distance, however many numbers a code has.
        mean, scale, rest = traits.mean(0), traits.std(0).clamp_min(1e-6), traits.shape[1] - OURS
        widths = torch.tensor([OURS] * OURS + [rest] * rest, device=traits.device)
        scale = scale * widths.to(scale).sqrt()
        known = (traits - mean) / scale
        blocks = _Block.of(known, slice(OURS), 1, seed), _Block.of(known, slice(OURS, None), components, seed)
        return cls(known, mean, scale, *blocks, torch.pdist(known[:1000]).median())

    def _units(self, traits: Tensor, dimensions: int) -> Tensor:
        if not isinstance(traits, Tensor) or traits.dim() != dimensions or traits.shape[-1] != len(self.mean):
            shape = "(B, t)" if dimensions == 2 else "(G, m, t)"
            fail("traits", f"traits {shape} with t = {len(self.mean)}, as of the familiar images", traits)
        return (check_finite("traits", traits) - self.mean) / self.scale

    # -- points

    def typicality(self, traits: Tensor) -> Tensor:
        """(B,) how far the log objective is from the mean of the familiar ones, on either side, in their deviations."""
        return OURS**0.5 * self._units(traits, 2)[:, 0].abs()

    def residual_surprise(self, traits: Tensor) -> Tensor:
        """(B,) minus the log density of the residual's traits. In deviations of that of familiar images."""
        return self.residual.surprise(self._units(traits, 2))

    def code_surprise(self, traits: Tensor) -> Tensor:
        """(B,) minus the log density of the code. In deviations of that of familiar images."""
        return self.code.surprise(self._units(traits, 2))

    # -- groups

    def group_typicality(self, traits: Tensor) -> Tensor:
        """(G,) how far the mean log objective of a group is from that of the familiar ones, on either side."""
        return OURS**0.5 * self._units(traits, 3)[:, :, 0].mean(1).abs()

    def kolmogorov(self, traits: Tensor) -> Tensor:
        """(G,) Kolmogorov and Smirnov's distance of the log objectives of a group from the familiar ones."""
        from scipy.stats import ks_2samp

        known, found = self.known[:, 0].cpu().numpy(), self._units(traits, 3)[:, :, 0].cpu().numpy()
        return traits.new_tensor([ks_2samp(group, known, method="asymp")[0] for group in found])

    def energy(self, traits: Tensor) -> Tensor:
        """(G,) the energy distance of a group's traits from the familiar ones, 2 E|x - y| - E|x - x'| - E|y - y'|."""
        return self._apart(traits, torch.neg)

    def discrepancy(self, traits: Tensor) -> Tensor:
        """(G,) the squared maximum mean discrepancy, unbiased, with a Gaussian kernel; it can be below zero."""
        return self._apart(traits, lambda d: torch.exp(-d.square() / (2 * self.width.square())))

    def _apart(self, traits: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
        """(G,) E k(x, x') + E k(y, y') - 2 E k(x, y) over pairs of different images, x of a group, y familiar."""
        group = self._units(traits, 3)
        count, size = group.shape[:2]
        if size < 2:
            fail("traits", "groups of at least two images", traits)
        within = kernel(torch.cdist(group, group))  # (G, m, m)
        own = (within.sum((1, 2)) - within.diagonal(dim1=1, dim2=2).sum(1)) / (size * (size - 1))
        across = kernel(torch.cdist(group.flatten(0, 1), self.known)).view(count, -1).mean(1)
        return own + kernel(torch.pdist(self.known)).mean() - 2 * across
