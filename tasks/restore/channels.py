"""A prior of grey images for images of any number of channels: each channel is a grey image of its own.

That is what there is for complex values (a real and an imaginary channel), for spectra and for colours without a colour
prior. Channels stay one sample: a map that mixes them explains them together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import fail
from jiio.models.images.prior import ImagePrior, Posterior
from jiio.persample import rows_of


def channelwise(prior: ImagePrior, *, images: int) -> ImagePrior | Channelwise:
    """The prior for images of so many channels.

    Errors: ArgumentError where it is not for them, and not a grey one either.
    """
    own = prior.config.channels
    if images == own:
        return prior
    if own != 1:
        remedy = "Use a grey prior, which takes each channel by itself; complex images are pairs of channels."
        fail("y", f"images of {own} channels, which the weights are for", f"{images}", remedy)
    return Channelwise(prior, images)


@dataclasses.dataclass(frozen=True)
class Channelwise:
    """The two uses of an :class:`jiio.models.ImagePrior`, of grey images, on images of ``channels`` channels."""

    prior: ImagePrior
    channels: int

    def gradient_step(self, x: Tensor, level: float | Tensor, **options: Any) -> tuple[Tensor, jiio.Solution]:
        """As that of the prior; the solution is that of all channels, one after the other."""
        if isinstance(level, Tensor) and level.ndim == 1:
            level = level.repeat_interleave(self.channels)
        image, solution = self.prior.gradient_step(x.flatten(0, 1)[:, None], level, **options)
        return image.view_as(x), solution

    def problem(
        self, fidelity: Callable[[Tensor], Tensor], *, level: float, weight: float, prox: jiio.AbstractProx
    ) -> jiio.Problem:
        """As that of the prior. The state of an image is that of its channels, (B, channels, ...)."""
        model = self.prior.at(level)
        inner = model.problem(lambda residual, x: residual.flatten(1).sum(1)).cell
        objective = _Residuals(model.head, Posterior(fidelity, weight))
        return jiio.Problem(_PerChannel(inner, model, self.channels), objective, prox)


class _Residuals:
    """The posterior of images whose residuals are those of their channels."""

    def __init__(self, head: torch.nn.Module, posterior: Posterior) -> None:
        self.head, self.posterior = head, posterior

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        return self.posterior(self.head(z.flatten(0, 1)).view(len(x), -1), x)

    def rows(self, index: Tensor) -> _Residuals | None:
        """The images ``index`` (k,)."""
        posterior = self.posterior.rows(index)
        return None if posterior is None else _Residuals(self.head, posterior)


class _PerChannel:
    """The cell of grey images on (B, C, ...) states and images."""

    def __init__(self, cell: Any, module: torch.nn.Module, channels: int) -> None:
        self.cell, self.module, self.channels = cell, module, channels

    def rows(self, index: Tensor) -> _PerChannel | None:
        """The images ``index`` (k,): all channels of each."""
        places = index[:, None] * self.channels + torch.arange(self.channels, device=index.device)
        cell = rows_of(self.cell, places.flatten())
        return None if cell is None else _PerChannel(cell, self.module, self.channels)

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        return self.cell(z.flatten(0, 1), x.flatten(0, 1)[:, None]).view_as(z)

    def initial_state(self, x: Tensor) -> Tensor:
        return self.cell.initial_state(x.flatten(0, 1)[:, None]).unflatten(0, x.shape[:2])
