"""One solve by a record: loaded, told, replayed, checked, looked at, and handed over."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from ..arithmetic import Arithmetic
from ..onward import looked_at_again
from ..operators import JointMap
from .base import separate
from .course import Course, Surroundings, place_of, told
from .store import STORE, RecordedStep

CHECKED = 2  # first replays of a record that are held against the eager step
AGAIN = 64  # uses of a record after which one replay is held against it once more
EVERY = 4  # steps between two looks on a GPU


class ReplayedSolve:
    """One solve by one record."""

    def __init__(
        self, record: RecordedStep, around: Surroundings, course: Course, key: Hashable, max_steps: int
    ) -> None:
        self.record, self.around, self.course, self.key, self.max_steps = record, around, course, key, max_steps
        if isinstance(course.operator, JointMap):
            course.operator.shortened = True  # what a full step would do is asked by the record, and so beside it
        self.replay, self.structure = record.replay, record.structure

    def through(self, every: int) -> bool:
        """From the first point to the last; False, with everything as it was, where the record is wrong."""
        replay, course, last = self.replay, self.course, self.max_steps - 1
        start = course.apart()
        self._load()
        checks = self._checks()

        every = every if course.v.device.type == "cpu" else max(every, EVERY)
        at = 0
        while at < last:
            self._tell(at)
            expected = self._eager() if at < checks else None
            replay()
            at += 1

            # A record that is wrong is worth nothing from its first step on.
            if expected is not None and not self._agrees(expected):
                self.course.operator.__dict__.update(start.operator.__dict__)
                self.course.progress.__dict__.update(start.progress.__dict__)
                why = "A replay differed from the eager step."
                STORE.refuse(self.key, why, self.around.parts.modules)
                return False
            self._count()
            if at % every and at != last:
                continue
            # The one look: does anybody run, has anybody just ended?
            runs, asked = replay.state[place_of(self.structure, "flags")].tolist()
            while asked:
                moved = self._looked(at, last)
                at += moved
                runs = bool(course.progress.running.any())
                asked = moved and at == last and bool(course.progress.unverified.any())
            if not runs:
                break
        self._hand_over()
        return True

    # -- the tensors of the record

    def _load(self) -> None:
        """Begin: the constants of this solve, and where it stands."""
        for own, value in zip(self.replay.constants, self.around.tensors, strict=True):
            own.copy_(value)
        self.replay.begin()
        self.record.used += 1

        # The state of the solver is begun in the tensors of the one before.
        old = self.course.apart()
        old.moved_to(self.replay.state, self.structure)
        self.course.state = self.course.solver.renewed(old.state, self.course.v)
        self._store()

    def _store(self) -> None:
        """Write where the course stands into the tensors of the record."""
        found, structure = self.course.tensors(*told(self.course.v))
        assert structure == self.structure
        for own, value in zip(self.replay.state, separate(found, self.replay.state), strict=True):
            if own is not value:
                own.copy_(value)

    def _tell(self, at: int) -> None:
        """What this step is told: whether it is the last but one, and the rate where that follows a schedule."""
        if at in (0, self.max_steps - 2):
            self.replay.state[place_of(self.structure, "ending")].fill_(at == self.max_steps - 2)
        operator = self.course.operator
        if isinstance(operator, JointMap) and callable(operator.rule.rate):
            self.replay.state[place_of(self.structure, "rate")].fill_(operator.rule.at(at + 1))

    def _hand_over(self) -> None:
        """Where the solve ended, in tensors that outlive the next one."""
        self.course.moved_to(self.replay.state, self.structure)
        self.course.end()

    # -- beside the replays

    def _checks(self) -> int:
        """How many of the next replays are held against the eager step."""
        if self.record.used <= 1:
            return CHECKED
        return 1 if self.record.used % AGAIN == 0 else 0

    def _eager(self) -> list[Tensor]:
        """What the step should give, by the functions of this solve themselves."""
        counts = self.course.operator.evaluations
        before = counts.cell, counts.vjp
        beside = self.course.apart()
        ending = beside.moved_to([t.clone() for t in self.replay.state], self.structure)
        beside.forward(ending)
        counts.cell, counts.vjp = before  # a check is no part of the method
        rate = self.replay.state[place_of(self.structure, "rate")]
        return beside.tensors(ending, rate)[0]

    def _agrees(self, expected: Sequence[Tensor]) -> bool:
        """Whether every tensor of the record is what it should be, to rounding."""
        floor = Arithmetic.around(self.course.v).floor(self.course.v.dtype)
        allowed = max(torch.finfo(self.course.v.dtype).eps ** 0.5, 4 * floor)
        return all(near(own, right, allowed) for own, right in zip(self.replay.state, expected, strict=True))

    def _count(self) -> None:
        counts = self.course.operator.evaluations
        counts.cell += self.record.costs[0]
        counts.vjp += self.record.costs[1]

    def _looked(self, at: int, last: int) -> int:
        """Who has just ended is asked whether it stands on a slope; then one step is eager. How many steps were."""
        course = self.course
        course.moved_to(self.replay.state, self.structure)
        fresh, again = looked_at_again(course.operator, course.progress, course.v, course.point)
        done = 0
        if again is not None and at < last:
            course.forward_from(fresh, again, ending=at == self.max_steps - 2)
            done = 1
        self._store()
        return done


def near(own: Tensor, right: Tensor, allowed: float) -> bool:
    if not own.is_floating_point():
        return bool((own == right).all())
    finite = torch.isfinite(right)
    if not bool((torch.isfinite(own) == finite).all()):
        return False
    own, right = (torch.where(finite, t, torch.zeros_like(t)).double() for t in (own, right))
    return float((own - right).norm()) <= allowed * float(right.norm()) + torch.finfo(torch.float64).tiny
