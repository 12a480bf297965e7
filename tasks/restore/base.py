"""What every restorer offers: from a measurement and its map to an image, with an account of the solve."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

import jiio
from jiio.tasks.maps.forward import AbstractMap


@dataclass(frozen=True, eq=False)
class Restoration:
    """A restored batch.

    image: (B, C, H, W), not clipped. converged: (B,), whether the solve met its tolerance. residual: (B,), its largest
    residual over the blocks. evaluations, vjps: calls of the cell for the whole batch. solution: of the joint or
    equilibrium solve, with its trace where one was asked for.
    """

    image: Tensor
    converged: Tensor
    residual: Tensor
    evaluations: int
    vjps: int
    solution: jiio.Solution

    @property
    def status(self) -> Tensor:
        """How each solve ended, a :class:`jiio.Status` (B,)."""
        return self.solution.status

    @classmethod
    def of(cls, image: Tensor, solution: jiio.Solution) -> Restoration:
        """The account that a solution gives."""
        counts = solution.evaluations
        worst = solution.residual.nan_to_num(float("inf")).amax(1)
        return cls(image, solution.converged, worst, counts.cell, counts.vjp, solution)


class AbstractRestorer(nn.Module, ABC):
    """A way to restore images.

    ``channels``: what the images must have, 1 or 3.
    """

    channels: int

    @abstractmethod
    def restore(self, y: Tensor, operator: AbstractMap, **settings: Any) -> Restoration:
        """The images behind measurements ``y = operator.A(images) + operator.sigma * noise``.

        settings: of :func:`jiio.solve`, such as ``trace=True`` or ``max_steps=30``, for this call alone.
        """

    def own_map(self, y: Tensor) -> AbstractMap | None:
        """The map that is meant where nothing is said of measurements y but that they are some: that of the training,
        where it was against one; here none.
        """
        return None
