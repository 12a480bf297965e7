"""An equilibrium decoder and the joint solve over its latent code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import check_choice, check_number
from jiio.layout import Tree
from jiio.models import EquilibriumModel, ModelConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.images.config import DataConfig
from jiio.tasks.maps.forward import AbstractMap, Disagreement

from .foresight import Foresight
from .starts import AbstractStart, Plain
from .trajectory import PLACES


@dataclass(frozen=True)
class DecoderConfig:
    """The equilibrium decoder, from a latent code to an image.

    Args:
        cell: the kind of cell and its sizes
        latent: numbers in a latent code
        squash: range of the pixels before the mean image is added, none, tanh or sigmoid
        prior: weight of the squared code in the inner objective
        jacobian: weight of the Jacobian penalty in the training loss, which keeps the cell contractive
        jacobian_at: where it is taken, at the solution, or at a random iterate of the joint solve (trajectory)
    """

    cell: Choice = Choice(
        "Multiscale",
        {
            "channels": [24, 32],
            "expansion": 3,
            "groups": 4,
            "fusion_groups": 4,
            "head_channels": [8, 16],
            "final_channels": 128,
        },
    )
    latent: int = 32
    squash: str = "none"
    prior: float = 0.1
    jacobian: float = 1.0
    jacobian_at: str = "solution"

    def __post_init__(self) -> None:
        check_number("model.prior", self.prior, 0.0)
        check_number("model.jacobian", self.jacobian, 0.0)
        check_choice("model.jacobian_at", self.jacobian_at, PLACES)

    def plan(self, data: DataConfig) -> ModelConfig:
        """What :func:`jiio.models.build` makes a decoder for these images from."""
        cell = self.cell.make("cell", "model.cell")
        return ModelConfig(cell, (self.latent,), "image", (data.channels, data.size, data.size), self.squash)


class _CodeObjective:
    """(prediction, x) -> twice the disagreement of the image, and the prior of the code."""

    def __init__(self, model: LatentRestorer, misfit: Disagreement) -> None:
        self.model, self.misfit = model, misfit

    def __call__(self, prediction: Tensor, x: Tensor) -> Tensor:
        return self.misfit(prediction + self.model.mean) + self.model.prior * x.square().sum(1)

    def rows(self, index: Tensor) -> _CodeObjective | None:
        misfit = self.misfit.rows(index)
        return None if misfit is None else _CodeObjective(self.model, misfit)


class LatentRestorer(nn.Module):
    """An equilibrium decoder around a mean image.

    decoder: x (B, latent) -> (B, C, H, W). mean: (C, H, W), of the training images. prior: weight of |x|^2. foresight:
    whether it keeps its sensitivity dz*/dx (:meth:`foresee`), from which solves then begin.
    """

    mean: Tensor

    def __init__(self, decoder: EquilibriumModel, mean: Tensor, *, prior: float, foresight: bool = False) -> None:
        super().__init__()
        self.decoder, self.prior = decoder, prior
        self.foresight = Foresight.of(decoder) if foresight else None
        self.register_buffer("mean", mean)

    def decode(self, z: Tree) -> Tensor:
        """The image (B, C, H, W) of a state."""
        return self.decoder.head(z) + self.mean

    def problem(self, y: Tensor, operator: AbstractMap) -> jiio.Problem:
        """The joint problem for measurements y (B, ...)."""

        return self.decoder.problem(_CodeObjective(self, Disagreement(operator, y, 2.0)))

    def start(self, y: Tensor) -> Tensor:
        """The code to start from: zero, the mean of the prior."""
        config = self.decoder.config
        return self.mean.new_zeros(y.shape[0], config.input[0])

    def foresee(self) -> int:
        """Measure how the equilibrium moves with the code, at the code zero; the calls that it took."""
        if self.foresight is None:
            self.foresight = Foresight.of(self.decoder)
        code = self.start(self.mean[None])
        return self.foresight.measure(self.decoder.problem(lambda prediction, x: x.sum(1)), code)

    @property
    def beginning(self) -> AbstractStart:
        """Where a solve begins that is told nothing else."""
        return Plain() if self.foresight is None else self.foresight.start()

    def observation(self, y: Tensor, operator: AbstractMap) -> Tensor:
        """(B, 2 pixels) what an amortised start sees: how far the measurement is off the mean, and where it is."""
        mean = self.mean.expand(len(y), *self.mean.shape)
        where = operator.pull(mean, operator.A(torch.ones_like(mean)))
        return torch.cat([operator.pull(mean, y - operator.A(mean)).flatten(1), where.flatten(1)], 1)

    def restore(
        self,
        y: Tensor,
        operator: AbstractMap,
        *,
        start: AbstractStart | None = None,
        **settings,
    ) -> tuple[Tensor, jiio.Solution]:
        """The restored images (B, C, H, W) and the solution, from a start (None: the model's own, :attr:`beginning`).

        settings: as in :func:`jiio.solve`.
        """
        problem = self.problem(y, operator)
        begin = (start or self.beginning).begin(problem, self.start(y), self.observation(y, operator))
        solution = begin.solve(problem, **settings)
        return self.decode(solution.z), solution
