"""The network that adapts: features, a cell that a task code modulates, and prototypes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.checks import check_number, fail
from jiio.models import DenseCell
from jiio.tasks.frame.config import whole
from jiio.tasks.frame.load import ConfigError

QUERY = jiio.SolveSettings(tolerance=jiio.Tolerance(1e-5, 1e-3), max_steps=60, on_failure="ignore")


@dataclass(frozen=True)
class LearnerConfig:
    """The network that adapts.

    Args:
        channels: widths of the convolutions of the stem, each with stride 2
        features: numbers in the equilibrium features of an image
        gain: bound on the contraction factor of the cell, below 1
        task: numbers in the task variable
        prior: weight of the squared task variable in the inner objective
    """

    channels: tuple[int, ...] = (32, 64, 64)
    features: int = 128
    gain: float = 0.7
    task: int = 64
    prior: float = 0.05

    def __post_init__(self) -> None:
        if not self.channels:
            fail("model.channels", "at least one width", "none", error=ConfigError)
        for width in self.channels:
            whole("model.channels", width, 4, 4096)
            if width % 4:
                fail("model.channels", "multiples of 4", width, error=ConfigError)
        whole("model.features", self.features, 2, 65_536)
        whole("model.task", self.task, 1, 65_536)
        check_number("model.gain", self.gain, 0.0, 0.99, open_low=True)
        check_number("model.prior", self.prior, 0.0, open_low=True)


class FilmCell:
    """(z, x) -> f(z, FiLM(x) of the stem's output) for the images of a batch of tasks; u (B, M, F) is held."""

    def __init__(self, learner: FewShotLearner, u: Tensor) -> None:
        self.module, self.u = learner, u

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        gamma, beta = self.module.film(x)[:, None].chunk(2, dim=2)  # (B, 1, F) each
        driven = (1 + gamma) * self.u + beta
        return self.module.cell(z.flatten(0, 1), driven.flatten(0, 1)).view_as(z)

    def rows(self, index: Tensor) -> FilmCell:
        """The tasks ``index`` (k,)."""
        return FilmCell(self.module, self.u.index_select(0, index))

    def initial_state(self, x: Tensor) -> Tensor:
        """(B, M, F) of zeros."""
        return torch.zeros_like(self.u)


class FewShotLearner(nn.Module):
    """Stem, cell, modulation by the task variable, and a scale of distances."""

    def __init__(self, config: LearnerConfig, *, channels: int, size: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for before, after in zip((channels, *config.channels), config.channels, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.SiLU()]
            size = math.ceil(size / 2)
        layers += [nn.Flatten(), nn.Linear(config.channels[-1] * size * size, config.features)]
        # GroupNorm and LayerNorm, not BatchNorm: a task is solved on its own, whatever is in the batch with it.
        self.stem = nn.Sequential(*layers, nn.LayerNorm(config.features, elementwise_affine=False))
        self.cell = DenseCell(config.features, scaling="spectral", gain=config.gain)
        self.film = nn.Linear(config.task, 2 * config.features, bias=False)
        nn.init.normal_(self.film.weight, std=config.task**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0 / config.features)))

    def images(self, images: Tensor) -> FilmCell:
        """The cell for images (B, M, C, H, W)."""
        return FilmCell(self, self.stem(images.flatten(0, 1)).unflatten(0, images.shape[:2]))

    def scores(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """(B, M, ways): minus the scaled squared distance of features (B, M, F) to prototypes (B, ways, F)."""
        return -self.log_scale.exp() * (z[:, :, None] - prototypes[:, None]).square().sum(3)

    def problem(self, support: FilmCell, ways: int) -> jiio.Problem:
        """The adaptation to support images, class by class."""
        shots = support.u.shape[1] // ways
        labels = torch.arange(ways, device=support.u.device).repeat_interleave(shots)
        own = F.one_hot(labels, ways)[None, :, :, None].to(support.u.dtype)  # (1, M, ways, 1)

        def objective(z: Tensor, x: Tensor) -> Tensor:
            prototypes = z.unflatten(1, (ways, shots)).mean(2)[:, None]  # (B, 1, ways, F)
            if shots > 1:  # of the own class: the mean of the others
                others = (shots * prototypes - z[:, :, None]) / (shots - 1)
                prototypes = prototypes + own * (others - prototypes)
            scores = -self.log_scale.exp() * (z[:, :, None] - prototypes).square().sum(3)
            loss = F.cross_entropy(scores.transpose(1, 2), labels.expand(len(z), -1), reduction="none").sum(1)
            return loss + self.config.prior * x.square().sum(1)

        return jiio.Problem(support, jiio.PerSample(objective))

    def start(self, batch: int) -> Tensor:
        """(B, task): no modulation."""
        return self.log_scale.new_zeros(batch, self.config.task)

    def classify(self, z: Tensor, x: Tensor, query: FilmCell, ways: int) -> Tensor:
        """(B, M, ways) scores of query images, given the support features z (B, ways * shots, F) and the task x."""
        features = jiio.equilibrium(query, x, **QUERY.arguments()).z
        return self.scores(features, z.unflatten(1, (ways, -1)).mean(2))
