"""The public names, read by type checkers and editors, and by ``__init__`` to load each when it is first used."""

import typing

from . import models as models
from .adjoints.base import (
    AbstractAdjoint as AbstractAdjoint,
)
from .adjoints.base import (
    Detached as Detached,
)
from .adjoints.implicit import (
    Envelope as Envelope,
)
from .adjoints.implicit import (
    Implicit as Implicit,
)
from .adjoints.kkt import (
    KKT as KKT,
)
from .adjoints.levenberg import (
    Levenberg as Levenberg,
)
from .adjoints.shine import (
    SHINE as SHINE,
)
from .adjoints.truncated import (
    Phantom as Phantom,
)
from .adjoints.truncated import (
    Unrolled as Unrolled,
)
from .blocks import (
    PerBlock as PerBlock,
)
from .checks import (
    ArgumentError as ArgumentError,
)
from .checks import (
    ArgumentTypeError as ArgumentTypeError,
)
from .checks import (
    CellError as CellError,
)
from .checks import (
    CheckpointError as CheckpointError,
)
from .checks import (
    ConvergenceError as ConvergenceError,
)
from .checks import (
    ConvergenceWarning as ConvergenceWarning,
)
from .checks import (
    GradientError as GradientError,
)
from .checks import (
    JiioError as JiioError,
)
from .checks import (
    PrecisionWarning as PrecisionWarning,
)
from .checks import (
    SecondDerivativeError as SecondDerivativeError,
)
from .checks import (
    UnsupportedError as UnsupportedError,
)
from .constraints import (
    Box as Box,
)
from .constraints import (
    L1Ball as L1Ball,
)
from .constraints import (
    L2Ball as L2Ball,
)
from .constraints import (
    LinfBall as LinfBall,
)
from .constraints import (
    QuadraticPrior as QuadraticPrior,
)
from .constraints import (
    Simplex as Simplex,
)
from .constraints import (
    SoftThreshold as SoftThreshold,
)
from .diagnostics import (
    AdjointError as AdjointError,
)
from .diagnostics import (
    adjoint_error as adjoint_error,
)
from .diagnostics import (
    dependence_on_z0 as dependence_on_z0,
)
from .diagnostics import (
    jacobian_penalty as jacobian_penalty,
)
from .diagnostics import (
    spectral_radius as spectral_radius,
)
from .intersection import (
    Intersection as Intersection,
)
from .metric import (
    Metric as Metric,
)
from .models import (
    EquilibriumModel as EquilibriumModel,
)
from .persample import (
    PerSample as PerSample,
)
from .problem import (
    Problem as Problem,
)
from .prox import (
    AbstractProx as AbstractProx,
)
from .prox import (
    Active as Active,
)
from .prox import (
    Identity as Identity,
)
from .recording.base import (
    AbstractRecorder as AbstractRecorder,
)
from .recording.base import (
    UnrecordableError as UnrecordableError,
)
from .recording.cuda import (
    CudaRecorder as CudaRecorder,
)
from .recording.launch import (
    forget_records as forget_records,
)
from .recording.traced import (
    TracedRecorder as TracedRecorder,
)
from .recording.wish import (
    recorded_steps as recorded_steps,
)
from .rules import (
    AbstractRule as AbstractRule,
)
from .rules import (
    AdamStep as AdamStep,
)
from .rules import (
    GradientStep as GradientStep,
)
from .rules import (
    MomentumStep as MomentumStep,
)
from .rules import (
    NormalizedStep as NormalizedStep,
)
from .rules import (
    SignStep as SignStep,
)
from .sensitivity import (
    Linearised as Linearised,
)
from .sensitivity import (
    Sensitivity as Sensitivity,
)
from .settings import (
    SolveSettings as SolveSettings,
)
from .solution import (
    Evaluations as Evaluations,
)
from .solution import (
    Solution as Solution,
)
from .solution import (
    Status as Status,
)
from .solution import (
    Tolerance as Tolerance,
)
from .solution import (
    Trace as Trace,
)
from .solvers.anderson import (
    Anderson as Anderson,
)
from .solvers.base import (
    AbstractSolver as AbstractSolver,
)
from .solvers.broyden import (
    Broyden as Broyden,
)
from .solvers.krylov import (
    minres as minres,
)
from .solvers.picard import (
    Picard as Picard,
)
from .solving import (
    equilibrium as equilibrium,
)
from .solving import (
    solve as solve,
)
from .verdict import (
    solution_at as solution_at,
)

Restorer: typing.Any  # jiio.tasks.Restorer
__version__: str
HOMES: dict[str, str]
UPSTAIRS: dict[str, str]
__all__: list[str]
