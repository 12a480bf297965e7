"""A start that a model foresees: its sensitivity dz*/dx, kept with its weights, gives problems a start and a metric.

It is measured while the model trains, again after so many steps, and saved with it; what was measured is a buffer, so
that a training that is resumed steps on with the very same one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import fail
from jiio.layout import Spec, Tree
from jiio.models import EquilibriumModel
from jiio.sensitivity import LARGEST_INPUT
from jiio.tasks.frame.load import ConfigError

from .starts import AbstractStart, Plain, Start


@dataclass(frozen=True, eq=False)
class Foreseen(AbstractStart):
    """At the optimum of the linearised problem, where the sensitivity says that it can be trusted; else at x0."""

    sensitivity: jiio.Sensitivity

    def begin(self, problem: jiio.Problem, x0: Tree, observation: Tensor) -> Start:
        near = self.sensitivity.linearised(problem, x0)
        return Start(near.x, near.z, metric=near.metric, calls=near.calls)


class Foresight(nn.Module):
    """The sensitivity of a decoder with codes of ``latent`` numbers and states of ``state``, as buffers.

    Never measured, it says nothing, and solves begin plainly.
    """

    matrix: Tensor
    z: Tensor
    x: Tensor
    factor: Tensor

    def __init__(self, latent: int, state: int) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.zeros(latent, state))
        self.register_buffer("z", torch.zeros(1, state))
        self.register_buffer("x", torch.zeros(1, latent))
        self.register_buffer("factor", torch.tensor(float("inf")))

    @classmethod
    @torch.no_grad()
    def of(cls, decoder: EquilibriumModel) -> Foresight:
        """Of the right size, where the decoder is."""
        like = next(decoder.parameters())
        code = torch.zeros(1, decoder.config.input[0]).to(like)
        state = Spec.of(decoder.cell.initial_state(decoder.inject(code))).size  # type: ignore[operator]
        return cls(code.shape[1], state).to(like)

    @torch.no_grad()
    def measure(self, problem: jiio.Problem, x: Tensor) -> int:
        """Measure it for the cell of a problem at one code x (1, latent); the calls that it took."""
        found = jiio.Sensitivity.of(problem, x)
        for buffer, new in ((self.matrix, found.matrix), (self.z, found.z), (self.x, found.x)):
            buffer.copy_(new)
        self.factor.fill_(found.factor)
        spent = found.evaluations
        return spent.cell + spent.vjp + spent.adjoint_hvp

    def start(self) -> AbstractStart:
        """Where solves begin."""
        factor = float(self.factor)
        if factor == float("inf"):
            return Plain()
        return Foreseen(jiio.Sensitivity(self.matrix, self.z, self.x, factor, jiio.Evaluations()))


def due(every: int, step: int) -> bool:
    """Whether it is measured before this training step. every: steps between two measurements, 0 for never."""
    return every > 0 and step % every == 0


def check_foreseen(argument: str, every: int, latent: int) -> None:
    """Raise where a metric is asked for and the code is too long for one."""
    if every and latent > LARGEST_INPUT:
        came = f"{every}, with model.latent {latent}"
        fail(argument, f"0 where codes have more than {LARGEST_INPUT} numbers", came, error=ConfigError)
