"""A trained equilibrium decoder as a restorer of whole images of the size that it was trained at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import fail
from jiio.outputs.seeds import generator
from jiio.tasks.frame.choices import Choice
from jiio.tasks.maps.forward import AbstractMap
from jiio.tasks.solving.latent import LatentRestorer
from jiio.tasks.solving.settings import JointConfig

from .base import AbstractRestorer, Restoration


class DecoderRestorer(AbstractRestorer):
    """The joint solve over the code of an equilibrium decoder.

    corruption, joint: of the training. Where nothing is said of a measurement but noise, and the training was against
    one fixed map, that map is meant.
    """

    def __init__(self, decoder: LatentRestorer, corruption: Choice, joint: JointConfig) -> None:
        super().__init__()
        self.decoder, self.channels = decoder, decoder.mean.shape[0]
        self.corruption, self.joint = corruption.make("corruption", "corruption"), joint

    def restore(self, y: Tensor, operator: AbstractMap, **settings: Any) -> Restoration:
        """As :class:`AbstractRestorer` has it. Errors: ArgumentError for images of another size."""
        operator = self.meant(y, operator)
        shape, wanted = tuple(operator.start(y).shape[1:]), tuple(self.decoder.mean.shape)
        if shape != wanted:
            remedy = "Resize it, or train at its size by data.size."
            fail("y", f"an image of {wanted[1]} x {wanted[2]}, which the weights are for", f"{shape[1:]}", remedy)

        options: dict[str, Any] = self.joint.arguments() | {
            "adjoint": jiio.Detached(),
            "max_steps": max(200, self.joint.max_steps),
        }
        options |= {"on_failure": "ignore"} | settings
        image, solution = self.decoder.restore(y, operator, **options)
        return Restoration.of(image, solution)

    def meant(self, y: Tensor, operator: AbstractMap) -> AbstractMap:
        """The map of the training in the place of the identity, where it is one map; else the one that is given."""
        d = operator.diagonal
        if d is None or not bool((d == 1).all()):
            return operator
        return self.own_map(y) or operator

    def own_map(self, y: Tensor) -> AbstractMap | None:
        blank = torch.full((len(y), *self.decoder.mean.shape), 0.5, dtype=y.dtype, device=y.device)
        ours, other = (self.corruption.map(blank, generator=generator(seed)) for seed in (0, 1))
        probe = torch.rand(blank.shape, generator=generator(2)).to(blank)
        one = torch.equal(ours.A(probe), other.A(probe))
        return ours if one and ours.A(blank).shape == y.shape else None
