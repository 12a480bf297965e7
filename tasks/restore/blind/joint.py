"""Kernel and image as two unknowns of one joint solve:

    min over x and k    1/2 |h * (k * x - y)|^2  +  weight E(x, level)  +  1/2 sum_f V(f) |K(f)|^2,

with k on the simplex (no value below zero, their sum is one), the image through the learned prior E, whose state and
multiplier are solved along with both, and h a filter that gives coarse and fine detail about the same say. Without the
last term the least value is at no blur. The term is what is left of integrating the image out, as in
:mod:`jiio.tasks.maps.spectrum`: the image is known up to a variance V(f) = 1 / (|K|^2 / sigma^2 + 1 / S), largest where
the kernel has taken most, and a kernel that brings those frequencies back pays for all that could be there. V is that
of the kernel at hand and renewed after each round (expectation and maximisation: Dempster, Laird, Rubin 1977).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from jiio.models.images.prior import ImagePrior
from jiio.tasks.maps.spectrum import LOWEST, Scene

LEVELS = (0.1, 0.04, 0.04)  # of the prior, one for each round: coarse edges first
BALANCE = 0.1  # cycles per pixel, below which the filter h flattens the power of scenes
SIGMA = 0.01  # of the noise, that the prior is weighed with at least
RATE, STEPS = 0.5, 40
TOLERANCE = jiio.Tolerance(atol=1e-6, rtol=1e-5)  # a kernel has few numbers among very many, and each counts
DUST = 0.02  # of the largest value, below which a value of the kernel is none


class _Cell:
    """(z, x) -> z of the prior's energy of the image among the unknowns."""

    def __init__(self, prior: ImagePrior, level: float) -> None:
        self.module, self.level = prior, level

    def _injected(self, x: dict[str, Tensor]) -> Tensor:
        return self.module.inject(x["image"], x["image"].new_full((len(x["image"]),), self.level))

    def __call__(self, z: Tensor, x: dict[str, Tensor]) -> Tensor:
        return self.module.cell(z, self._injected(x))

    def initial_state(self, x: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return self._injected(x)


@dataclass(frozen=True, eq=False)
class JointBlur:
    """The problem of one window.

    prior: of images with as many channels as the measurement. y: (1, C, h, w), where kernels lie inside an image that
    is larger by ``side`` - 1 both ways. sigma: of the noise. scene: what the spectrum says of sharp images.
    """

    prior: ImagePrior
    y: Tensor
    side: int
    sigma: float
    scene: Scene

    @property
    def size(self) -> tuple[int, int]:
        """Of the image."""
        return self.y.shape[2] + self.side - 1, self.y.shape[3] + self.side - 1

    @property
    def frequencies(self) -> tuple[Tensor, Tensor]:
        """Of the rows and columns of half of the plane, cycles per pixel."""
        height, width = self.size
        place = self.y.device
        parts = torch.fft.fftfreq(height, device=place), torch.fft.rfftfreq(width, device=place)
        rows, columns = torch.meshgrid(*parts, indexing="ij")
        return rows.to(self.y), columns.to(self.y)

    @property
    def filter(self) -> Tensor:
        """h, by its gain."""
        rows, columns = self.frequencies
        square = rows.square() + columns.square()
        return ((square + 1e-4) / (square + BALANCE**2)).sqrt()

    def transform(self, kernel: Tensor) -> Tensor:
        """Of kernels (1, side^2), on the grid of the image."""
        height, width = self.size
        square = kernel.view(1, self.side, self.side)
        return torch.fft.rfft2(F.pad(square, (0, width - self.side, 0, height - self.side)))

    def unexplained(self, image: Tensor, kernel: Tensor) -> Tensor:
        """h * (k * x - y), (1, C, H, W): the mean is taken out first, which no kernel changes."""
        mean, reach = self.y.mean(), self.side - 1
        whole = torch.fft.irfft2(torch.fft.rfft2(image - mean) * self.transform(kernel)[:, None], s=self.size)
        left = F.pad(whole[..., reach:, reach:] - (self.y - mean), (0, reach, 0, reach))
        return torch.fft.irfft2(torch.fft.rfft2(left) * self.filter, s=self.size)

    def variance(self, kernel: Tensor) -> Tensor:
        """V, weighed by h and by how often a frequency of half of the plane stands for two."""
        rows, columns = self.frequencies
        power = (
            self.scene.power(rows.double().cpu().flatten(), columns.double().cpu().flatten())
            .view(rows.shape)
            .to(self.y)
        )
        power = torch.where(torch.hypot(rows, columns) < LOWEST, 0.0, power).clamp_min(1e-12)
        twice = torch.full_like(rows, 2.0)
        twice[:, 0] = 1.0
        if self.size[1] % 2 == 0:
            twice[:, -1] = 1.0
        known = self.transform(kernel)[0].abs().square() / max(self.sigma, 1e-3) ** 2
        return self.y.shape[1] * twice * self.filter.square() / (known + 1 / power)

    def unit(self, image: Tensor, kernel: Tensor) -> float:
        """What a kernel is measured in, so that its curvature is about that of the image."""
        detail = (torch.fft.rfft2(image - self.y.mean()) * self.filter).abs().square().sum(1)
        height, width = self.size
        return float(detail.max() + self.variance(kernel).max() * height * width) ** -0.5

    def problem(self, level: float, variance: Tensor, unit: float) -> tuple[jiio.Problem, jiio.GradientStep]:
        """For :func:`jiio.solve` over ``{"image": (1, C, H, W), "kernel": (1, side^2) / unit}``, and how to step."""
        weight = (max(self.sigma, SIGMA) / level) ** 2

        def objective(z: Tensor, x: dict[str, Tensor]) -> Tensor:
            kernel = unit * x["kernel"]
            left = self.unexplained(x["image"], kernel).square().flatten(1).sum(1)
            room = (variance * self.transform(kernel).abs().square()).flatten(1).sum(1)
            return 0.5 * (left + weight * self.prior.head(z).square().flatten(1).sum(1) + room)

        prox = jiio.PerBlock(kernel=jiio.Simplex(1 / unit))
        return jiio.Problem(_Cell(self.prior, level), objective, prox), jiio.GradientStep(RATE, curvature=1 + weight)

    def solve(self, image: Tensor, kernel: Tensor) -> tuple[Tensor, jiio.Solution]:
        """The kernel (side, side), centred, and the last solve. image: (1, C, H, W), kernel: (side, side), starts."""
        kernel = kernel.to(self.y).reshape(1, -1)
        unit = self.unit(image, kernel)
        state = multiplier = None
        settings = {"solver": jiio.Anderson(memory=8), "tolerance": TOLERANCE, "max_steps": STEPS}
        for level in LEVELS:
            problem, rule = self.problem(level, self.variance(kernel), unit)
            start = {"image": image, "kernel": kernel / unit}
            options = {"multiplier": multiplier, "rule": rule, "adjoint": jiio.Detached(), "on_failure": "ignore"}
            done = jiio.solve(problem, start, state, **options, **settings)
            image, kernel, state, multiplier = done.x["image"], unit * done.x["kernel"], done.z, done.multiplier
        return tidy(kernel.view(self.side, self.side).double()), done


def tidy(kernel: Tensor) -> Tensor:
    """(k, k) without dust, summing to one, its centre of gravity in the middle (to a pixel): where the picture of a
    scene ends is for nobody to know, so image and kernel may move against each other.
    """
    kernel = torch.where(kernel < DUST * kernel.max(), 0.0, kernel)
    kernel = kernel / kernel.sum()
    places = torch.arange(len(kernel), dtype=kernel.dtype, device=kernel.device) - len(kernel) // 2
    moves = [-round(float((kernel.sum(1 - axis) * places).sum())) for axis in (0, 1)]
    return kernel.roll(moves, (0, 1))


def widened(kernel: Tensor, side: int) -> Tensor:
    """(k, k) in the middle of (side, side), cut where it is larger."""
    gap = (side - len(kernel)) // 2
    fitted = F.pad(kernel, (gap, gap, gap, gap))
    return fitted / fitted.sum()
