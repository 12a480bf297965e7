"""The settings of a joint solve, as a configuration has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jiio
from jiio.checks import fail
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import ConfigError, whole


@dataclass(frozen=True)
class JointConfig:
    """The joint solve over state, multiplier and input.

    Args:
        solver: how the joint iteration is accelerated
        rule: how the input moves
        adjoint: which gradient the training uses
        atol: absolute tolerance of a block's residual
        rtol: relative tolerance of a block's residual
        max_steps: steps after which the solve ends without convergence
        metric_every: training steps after which the metric for the input is measured again; 0, solve without one
    """

    solver: Choice = Choice("Anderson", {"memory": 12})
    rule: Choice = Choice("GradientStep")
    adjoint: Choice = Choice("Implicit")
    atol: float = 1e-5
    rtol: float = 1e-3
    max_steps: int = 60
    metric_every: int = 0

    def __post_init__(self) -> None:
        whole("joint.max_steps", self.max_steps, 2, 100_000)
        whole("joint.metric_every", self.metric_every, 0, 100_000)
        self.arguments()
        if self.metric_every and not isinstance(self.rule.make("rule", "joint.rule"), jiio.GradientStep):
            remedy = "Leave joint.metric_every at 0, or the rule as it is."
            fail("joint.rule", "GradientStep where there is a metric", self.rule.name, remedy, ConfigError)

    def solve_settings(self) -> jiio.SolveSettings:
        """All but the rule, which plain equilibria have no use for."""
        return jiio.SolveSettings(
            self.solver.make("solver", "joint.solver"),
            self.adjoint.make("adjoint", "joint.adjoint"),
            jiio.Tolerance(atol=self.atol, rtol=self.rtol),
            self.max_steps,
        )

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :func:`jiio.solve`, but for ``on_failure``: who solves says what is heard of it."""
        settings = self.solve_settings().arguments() | {"rule": self.rule.make("rule", "joint.rule")}
        return {name: value for name, value in settings.items() if name != "on_failure"}
