"""jiio: joint inference and input optimisation in deep equilibrium networks."""

from .adjoints import KKT, AbstractAdjoint, Detached, Envelope, Implicit, Phantom, Unrolled
from .checks import (
    ArgumentError,
    ArgumentTypeError,
    CellError,
    CheckpointError,
    ConvergenceError,
    ConvergenceWarning,
    GradientError,
    JiioError,
    SecondDerivativeError,
)
from .constraints import Box, L1Ball, L2Ball, LinfBall, QuadraticPrior, SoftThreshold
from .diagnostics import AdjointError, adjoint_error, dependence_on_z0, jacobian_penalty, spectral_radius
from .intersection import Intersection
from .models import EquilibriumModel
from .problem import Problem
from .prox import AbstractProx, Active, Identity
from .rules import AbstractRule, AdamStep, GradientStep, MomentumStep, NormalizedStep, SignStep
from .solution import Evaluations, Solution, Status, Tolerance, Trace
from .solve import equilibrium, solve
from .solvers import AbstractSolver, Anderson, Broyden, Picard, minres

__version__ = "0.1.0"

__all__ = [
    "KKT",
    "AbstractAdjoint",
    "AbstractProx",
    "AbstractRule",
    "AbstractSolver",
    "Active",
    "AdamStep",
    "AdjointError",
    "Anderson",
    "ArgumentError",
    "ArgumentTypeError",
    "Box",
    "Broyden",
    "CellError",
    "CheckpointError",
    "ConvergenceError",
    "ConvergenceWarning",
    "Detached",
    "Envelope",
    "EquilibriumModel",
    "Evaluations",
    "GradientError",
    "GradientStep",
    "Identity",
    "Implicit",
    "Intersection",
    "JiioError",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "MomentumStep",
    "NormalizedStep",
    "Phantom",
    "Picard",
    "Problem",
    "QuadraticPrior",
    "SecondDerivativeError",
    "SignStep",
    "SoftThreshold",
    "Solution",
    "Status",
    "Tolerance",
    "Trace",
    "Unrolled",
    "adjoint_error",
    "dependence_on_z0",
    "equilibrium",
    "jacobian_penalty",
    "minres",
    "solve",
    "spectral_radius",
]
