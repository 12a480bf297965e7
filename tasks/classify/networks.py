"""Which network a classification trains: an equilibrium model of any cell, or a plain convolutional one beside it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from jiio.models import ModelConfig, build
from jiio.tasks.frame.choices import lists_choices
from jiio.tasks.solving.networks import ReferenceConfig, SolvedConfig, reference

from .data import ClassifyDataConfig


@lists_choices
@dataclass(frozen=True)
class NetworkConfig(SolvedConfig):
    """The classifier.

    Args:
        cell: what it is made of, one of {network} (Reference is a plain convolutional network), and its sizes
        solver: how the equilibrium is solved
        adjoint: how it is differentiated
        atol: absolute tolerance of the residual, of the equilibrium and of its adjoint system
        rtol: relative tolerance of the residual, of the equilibrium and of its adjoint system
        max_steps: steps after which a solve ends without convergence
    """

    def plan(self, data: ClassifyDataConfig) -> ModelConfig | ReferenceConfig:
        """What the network for these images is made from; raises where the two do not fit."""
        cell = self.cell.make("network", "model.cell")
        if isinstance(cell, ReferenceConfig):
            return cell
        return ModelConfig(cell, data.shape, "classifier", (data.classes,))

    def build(self, data: ClassifyDataConfig) -> nn.Module:
        """A freshly initialised network, x (B, C, H, W) -> scores (B, classes)."""
        plan = self.plan(data)
        if isinstance(plan, ReferenceConfig):
            return reference(plan, data.channels, data.classes)
        return build(plan, **self.arguments())
