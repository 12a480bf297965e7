"""Fixed-point solvers: they see only (v, F(v), state)."""

from .anderson import Anderson
from .base import AbstractSolver
from .broyden import Broyden
from .krylov import minres
from .picard import Picard

__all__ = ["AbstractSolver", "Anderson", "Broyden", "Picard", "minres"]
