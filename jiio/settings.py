"""SolveSettings: the settings of one solve in one record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .adjoints import AbstractAdjoint, Implicit
from .checks import ArgumentTypeError, check_choice, check_instance, check_integer, fail
from .solution import Tolerance
from .solvers import AbstractSolver, Anderson

ON_FAILURE = ("warn", "raise", "ignore")


@dataclass(frozen=True)
class SolveSettings:
    """What :func:`jiio.equilibrium` and :func:`jiio.solve` have in common, to be kept and handed on as one thing.

    solver: the method. adjoint: how gradients flow through the solve; for :func:`jiio.solve` choose one that is made
    for it, for example :class:`jiio.KKT`. tolerance: when a sample has converged. max_steps: evaluations of the cell,
    at least 2. on_failure: "warn", "raise" or "ignore" where a sample did not converge. The defaults are those of
    :func:`jiio.equilibrium`. Raises ArgumentError / ArgumentTypeError for unusable values.
    """

    solver: AbstractSolver = field(default_factory=Anderson)
    adjoint: AbstractAdjoint = field(default_factory=Implicit)
    tolerance: Tolerance = Tolerance()
    max_steps: int = 100
    on_failure: str = "warn"

    def __post_init__(self) -> None:
        check_settings(**self.arguments(), owner="SolveSettings.")

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments: ``jiio.equilibrium(cell, x, **settings.arguments())``."""
        return {name: getattr(self, name) for name in OPTIONS}

    def merged(self, **overrides: Any) -> SolveSettings:
        """The same settings with some replaced. overrides: settings by name; None leaves one as it is. An unknown name
        is an ArgumentTypeError.
        """
        unknown = sorted(set(overrides) - set(OPTIONS))
        if unknown:
            names = "the options " + ", ".join(OPTIONS)
            fail("SolveSettings", names, ", ".join(unknown), error=ArgumentTypeError)
        given = {name: value for name, value in overrides.items() if value is not None}
        return dataclasses.replace(self, **given)


OPTIONS = tuple(entry.name for entry in dataclasses.fields(SolveSettings))


def check_settings(
    solver: Any, adjoint: Any, tolerance: Any, max_steps: Any, on_failure: Any, *, owner: str = ""
) -> None:
    """Raise where one of the five is unusable; ``owner`` stands before the name in the message."""
    check_instance(f"{owner}solver", solver, AbstractSolver)
    check_instance(f"{owner}adjoint", adjoint, AbstractAdjoint)
    check_instance(f"{owner}tolerance", tolerance, Tolerance)
    check_integer(f"{owner}max_steps", max_steps, 2)
    check_choice(f"{owner}on_failure", on_failure, ON_FAILURE)
