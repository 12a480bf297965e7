"""A solve whose steps are launches: record where shapes repeat, check the record, and run by it.

The first evaluation of every solve is eager. What was recorded is held against the eager step at its first two replays,
and now and then later; where they differ, or nothing can be recorded, the solve goes on eagerly.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..calls import GuardedCell
from ..operators import EquilibriumMap, JointMap, Point
from ..progress import Progress
from ..solvers.base import AbstractSolver
from .base import UnrecordableError
from .course import Course, Surroundings, told
from .cuda import CudaRecorder
from .run import ReplayedSolve
from .store import STORE, RecordedStep
from .traced import TracedRecorder
from .wish import wished

AFTER = 3  # solves of one key from which on recording pays


def forget_records() -> None:
    """Free everything that was recorded; the next solves begin anew."""
    STORE.clear()


class Launch:
    """The steps of one solve, to be run by a record."""

    def __init__(self, operator: EquilibriumMap | JointMap, solver: AbstractSolver, max_steps: int) -> None:
        self.operator, self.solver, self.max_steps = operator, solver, max_steps
        self.wish = wished()

    @classmethod
    def of(
        cls, operator: EquilibriumMap | JointMap, solver: AbstractSolver, v: Tensor, max_steps: int, watched: bool
    ) -> Launch | None:
        """None where the solve is to run eagerly. watched: somebody sees every step."""
        when, given = wished().when, wished().recorder
        if when == "never" or (when == "auto" and given is None and v.device.type != "cuda"):
            return None

        # Who sees every step, or differentiates through all of them, needs them one by one.
        if watched or torch.is_grad_enabled() or max_steps < 3 or v.device.type not in ("cpu", "cuda"):
            return None
        if isinstance(operator, JointMap) and (operator.metric is not None or operator.differentiable):
            return None
        if isinstance(operator, EquilibriumMap) and not isinstance(operator.cell, GuardedCell):
            return None  # the linear system of an adjoint, over a graph of autograd
        if _get_current_dispatch_mode() is not None or torch.compiler.is_compiling() or forward_ad._current_level >= 0:
            return None
        return cls(operator, solver, max_steps)

    @torch.no_grad()
    def ran(self, progress: Progress, v: Tensor, point: Point, every: int) -> bool:
        """Go on from the first point, judged, to the end of the solve; False where nothing was done."""
        try:
            around = Surroundings(self.operator)
        except UnrecordableError:
            return False

        # One record for all solves of a key, from the time on when that pays.
        key = self._key(around, progress, v)
        if key in STORE.refused:
            return False
        record, came = STORE.find(key), STORE.came(key)
        if record is None and self.wish.when == "auto" and came < AFTER:
            return False

        course = Course(self.operator, self.solver, progress, v, point, None)
        try:
            if record is None:
                record = self._recorded(around, course, key)
            if not record.busy.acquire(blocking=False):  # a solve within this one, or in another thread
                return False
        except UnrecordableError as error:
            STORE.refuse(key, str(error), around.parts.modules)
            return False
        try:
            return ReplayedSolve(record, around, course, key, self.max_steps).through(every)
        finally:
            record.busy.release()

    def _key(self, around: Surroundings, progress: Progress, v: Tensor) -> Hashable:
        operator = self.operator
        cell = operator.cell if isinstance(operator, EquilibriumMap) else operator.problem.cell
        rule: Any = None
        if isinstance(operator, JointMap):
            # A schedule is asked outside of the step, and curvatures are in the scales.
            rate = None if callable(operator.rule.rate) else operator.rule.rate
            other = {k: w for k, w in vars(operator.rule).items() if k not in ("rate", "curvature")}
            rule = type(operator.rule), rate, repr(other), repr(operator.damping)

        return (
            (type(operator), operator.blocks, repr(getattr(operator, "damping", None)), rule),
            (type(self.solver), repr(self.solver)),
            (tuple(v.shape), v.dtype, v.device),
            (type(progress), progress.tolerance.atol, progress.tolerance.rtol, progress.floor),
            (getattr(cell, "arithmetic", None), self.wish.recorder, modes()),
            (around.parts.key, tuple((tuple(t.shape), t.dtype) for t in around.tensors)),
        )

    def _recorded(self, around: Surroundings, course: Course, key: Hashable) -> RecordedStep:
        """A new record for solves like this one."""
        kind = CudaRecorder() if course.v.device.type == "cuda" else TracedRecorder()
        recorder = self.wish.recorder or kind
        begun = course.apart()
        begun.state = self.solver.bare(self.solver.init(course.v))
        state, structure = begun.tensors(*told(course.v))
        replay = recorder.record(around.step(begun, structure), state, around.tensors)
        # Whoever changes itself when it is called was caught in the middle of something.
        if Surroundings(self.operator).parts.key != around.parts.key:
            raise UnrecordableError("The cell or the objective changes something of its own whenever it is called.")
        record = RecordedStep(replay, structure, (1, int(isinstance(self.operator, JointMap))))
        STORE.keep(key, record, around.parts.modules)
        return record


def modes() -> tuple[Any, ...]:
    """Switches of torch that decide which operations run."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return cuda.matmul.allow_tf32, cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()
