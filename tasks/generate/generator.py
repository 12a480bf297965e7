"""A generator of images: an equilibrium decoder of latent codes, with what is known of its codes.

Beside the weights it keeps running moments of codes and errors of training images, so that a checkpoint alone can draw
samples, start a fit anew, and say whether an image is like those it was trained on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import jiio
from jiio.layout import Tree
from jiio.models import ConvConfig, EquilibriumModel, ModelConfig, MultiscaleConfig
from jiio.outputs.shares import later
from jiio.tasks.maps.base import Denoise
from jiio.tasks.solving.latent import LatentRestorer

from .codes import GaussianMixture

MEMORY = 0.02  # weight of the newest batch in the running moments


class LatentGenerator(LatentRestorer):
    """decoder, mean, prior: as in :class:`LatentRestorer`. encoder: images -> (B, 2 latent), or None.

    code_mean, code_square: mean and second moment of the codes. errors: mean and second moment of the objective of an
    image, and the mean squared error of a pixel. seen: number of batches behind them.
    """

    code_mean: Tensor
    code_square: Tensor
    errors: Tensor
    seen: Tensor

    def __init__(
        self,
        decoder: EquilibriumModel,
        mean: Tensor,
        *,
        prior: float,
        encoder: nn.Module | None = None,
        foresight: bool = False,
    ) -> None:
        super().__init__(decoder, mean, prior=prior, foresight=foresight)
        self.encoder = encoder
        latent = decoder.config.input[0]
        self.register_buffer("code_mean", mean.new_zeros(latent))
        self.register_buffer("code_square", torch.eye(latent).to(mean))
        self.register_buffer("errors", mean.new_tensor([1.0, 1.0, 1.0]))
        self.register_buffer("seen", mean.new_zeros(()))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the codes, (B, latent) each."""
        assert self.encoder is not None
        mean, log_spread = self.encoder(images - self.mean).chunk(2, dim=1)
        return mean, log_spread.clamp(-6.0, 2.0)

    @torch.no_grad()
    def generate(self, x: Tensor, **settings) -> Tensor:
        """The images (B, C, H, W) of codes (B, latent), clipped to [0, 1]. settings: of :func:`jiio.equilibrium`."""
        settings = {"tolerance": jiio.Tolerance(1e-5, 1e-3), "on_failure": "ignore"} | settings
        return self.decode(self.decoder.solve(x, adjoint=jiio.Detached(), **settings).z).clamp(0.0, 1.0)

    @torch.no_grad()
    def observe(self, images: Tensor, inferred: Inferred) -> None:
        """Move the running moments towards those of a training batch."""
        good = torch.isfinite(inferred.x).all(1) & torch.isfinite(inferred.loss)
        x = inferred.x[good]
        error = (self.decode(inferred.z)[good] - images[good]).square().flatten(1)
        objective = error.sum(1) + self.prior * x.square().sum(1)
        told = torch.stack([objective.sum(), objective.square().sum(), error.mean(1).sum()])
        count = good.sum().to(x).view(1)
        later(torch.cat([count, told, x.sum(0), (x.T @ x).flatten()]), self.moved)

    def moved(self, sums: Tensor) -> None:
        """Move them towards the moments of a batch, from its sums: samples, errors, codes, products of codes."""
        count, told, mean, square = sums.split([1, 3, len(self.code_mean), self.code_square.numel()])
        if float(count) == 0:
            return
        self.seen += 1
        weight = (1.0 / self.seen).clamp_min(MEMORY)
        self.code_mean.lerp_(mean / count, weight)
        self.code_square.lerp_((square / count).view_as(self.code_square), weight)
        self.errors.lerp_(told / count, weight)

    @property
    def codes(self) -> GaussianMixture:
        """One Gaussian with the moments of the codes of training images."""
        covariance = self.code_square - torch.outer(self.code_mean, self.code_mean)
        return GaussianMixture.of_moments(self.code_mean, covariance)

    def objective_score(self, objective: Tensor) -> Tensor:
        """(B,) how many standard deviations above that of training images."""
        mean, square = self.errors[0], self.errors[1]
        return (objective - mean) / (square - mean.square()).clamp_min(1e-12).sqrt()


EXACT = Denoise(0.0)  # the measurement is the image itself


@dataclass(frozen=True, eq=False)
class Inferred:
    """Codes for a batch of images.

    x: (B, latent), detached. z: state. loss: (B,), with the gradient to the weights where grad mode is on. calls:
    evaluations plus VJPs of the batch. converged: (B,).
    """

    x: Tensor
    z: Tree
    loss: Tensor
    calls: int
    converged: Tensor


def encoder_plan(plan: ModelConfig) -> ModelConfig:
    """An encoder of the same kind of cell as a decoder, from images to mean and log spread of the codes."""
    cell = plan.cell
    if isinstance(cell, (ConvConfig, MultiscaleConfig)) and cell.dropout:
        cell = dataclasses.replace(cell, dropout=0.0)
    return ModelConfig(cell, plan.output, "classifier", (2 * plan.input[0],))
