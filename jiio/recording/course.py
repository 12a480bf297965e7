"""All that changes from step to step as a flat list of tensors, and the step as a function of that list."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from ..best import BestPoints
from ..calls import GuardedCell, guarded
from ..holding import held_at, held_values
from ..layout import Tree, map_tree
from ..onward import onward
from ..operators import EquilibriumMap, JointMap, PackedProblem, Point, Scales, select
from ..problem import Problem
from ..progress import Progress, Tally
from ..solution import Evaluations
from ..solvers.base import AbstractSolver
from .base import refuse
from .parts import Ingredients

SCRATCH = ("apart", "scheduled")  # tensors of a joint map that carry nothing from one step to the next


@dataclasses.dataclass
class Course:
    """A solve after a point was judged: what it works with, and where it stands. v: (B, D). state: of the solver."""

    operator: EquilibriumMap | JointMap
    solver: AbstractSolver
    progress: Progress
    v: Tensor
    point: Point
    state: Any

    def tensors(self, ending: Tensor, rate: Tensor) -> tuple[list[Tensor], Any]:
        """Everything that a step changes or is told, and how it hangs together."""
        best = self.progress.best
        assert best is not None
        tree = {
            "flags": torch.stack([self.progress.running.any(), self.progress.unverified.any()]),
            "ending": ending,
            "rate": rate,
            "v": self.v,
            "point": _tensors_of(self.point),
            "best": {name: t for name, t in _tensors_of(best).items() if name != "image"},  # that is the point's
            "progress": _tensors_of(self.progress),
            "points": {"v": self.progress.best_v, "image": self.progress.best_image},
            "operator": _own_of(self.operator),
            "scales": _tensors_of(self.operator.scales) if isinstance(self.operator, JointMap) else {},
            "solver": map_tree(lambda leaf: _lifted(leaf, self.v), self.state),
        }

        # What is no tensor is no part of the state, and the same in every step.
        flat, structure = _pytree.tree_flatten(tree)
        places = [i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor)]
        return [flat[i] for i in places], (structure, tuple(places), len(flat))

    def moved_to(self, tensors: Sequence[Tensor], structure: Any) -> Tensor:
        """Stand where these tensors say; whether one evaluation is left ()."""
        form, places, count = structure
        flat: list[Tensor | None] = [None] * count
        for place, t in zip(places, tensors, strict=True):
            flat[place] = t

        # Back into the objects that the loop works with.
        tree = _pytree.tree_unflatten(flat, form)
        self.v, self.state, self.point = tree["v"], tree["solver"], Point(**tree["point"])
        self.progress.__dict__.update(tree["progress"])
        self.progress.best = Point(image=self.point.image, **tree["best"])
        self._stand(**tree["points"])
        self.operator.__dict__.update(tree["operator"])
        if isinstance(self.operator, JointMap):
            self.operator.scales = Scales(**tree["scales"])
            if callable(self.operator.rule.rate):
                self.operator.scheduled = tree["rate"]
        return tree["ending"]

    def _stand(self, v: Tensor, image: Tensor) -> None:
        """The best points, which the loop writes to in buffers of its own, and what is counted of the masks."""
        self.progress.points = BestPoints(v)
        self.progress.points.replace(v, image)
        self.progress.counts = Tally.of(self.progress)

    def forward(self, ending: bool | Tensor) -> None:
        """Go on to the next point, evaluate and judge it."""
        operator, solver, progress = self.operator, self.solver, self.progress
        self.v, self.state = onward(operator, solver, progress, self.v, self.point, self.state, ending)
        self.measure()

    def forward_from(self, fresh: Tensor, again: Tensor, ending: bool) -> None:
        """The same, where the samples in ``again`` (B,) go on from ``fresh`` (B, D)."""
        v, state = onward(self.operator, self.solver, self.progress, self.v, self.point, self.state, ending)
        self.v, self.state = select(again, fresh, v), self.solver.restart(state, again)
        self.measure()

    def measure(self) -> None:
        """Evaluate and judge where it stands."""
        self.point = self.operator(self.v)
        self.progress.judge(self.v, self.point)

    def end(self) -> None:
        """Keep what a solve returns in tensors of its own, and nothing else."""
        best = self.progress.best
        assert best is not None
        for part in (self.progress, best, self.operator):
            kept = {name: t.clone() for name, t in vars(part).items() if isinstance(t, Tensor) and name != "x"}
            part.__dict__.update(kept)
        self._stand(self.progress.best_v.clone(), self.progress.best_image.clone())
        if isinstance(self.operator, JointMap):
            self.operator.scales = Scales(*(t.clone() for t in self.operator.scales.pair))
        self.v, self.point, self.state = self.progress.best_v, best, None

    def apart(self) -> Course:
        """Another one at the same place, so that each can go its way."""
        return dataclasses.replace(self, operator=copy.copy(self.operator), progress=copy.copy(self.progress))


class Surroundings:
    """What a solve is given and never changes: cell, objective, constraint, and weights that it holds."""

    def __init__(self, operator: EquilibriumMap | JointMap) -> None:
        self.operator = operator
        whole = [operator.cell, operator.x] if isinstance(operator, EquilibriumMap) else _of_joint(operator)
        self.parts = Ingredients(*(part.function if isinstance(part, GuardedCell) else part for part in whole))
        self.held = held_values(dict.fromkeys(self.parts.modules))
        self.tensors = [*self.parts.tensors, *(value for _, value in self.held)]

    def step(self, course: Course, structure: Any) -> Any:
        """The step as a function of (state, constants), on copies of everything that it changes."""

        def step(state: Sequence[Tensor], constants: Sequence[Tensor]) -> list[Tensor]:
            count = len(self.parts.tensors)
            with held_at((held for held, _ in self.held), constants[count:]):
                moving = course.apart()
                moving.operator = self._over(list(constants[:count]))
                ending = moving.moved_to(state, structure)
                moving.forward(ending)
                found, other = moving.tensors(ending, state[place_of(structure, "rate")])
                if other != structure:
                    refuse("one that keeps something else after it than before")
                return found

        return step

    def _over(self, tensors: list[Tensor]) -> EquilibriumMap | JointMap:
        """The map over other constants; every shortened step is looked at as one."""
        new = copy.copy(self.operator)
        found = self.parts.rebuilt(tensors)
        if isinstance(new, EquilibriumMap):
            cell = new.cell
            new.cell = _unlooked(GuardedCell(found[0], cell.arithmetic)) if isinstance(cell, GuardedCell) else found[0]
            new.x, new.evaluations = found[1], Evaluations(cell=1)
            return new

        old: Any = self.operator
        new.prox = found[2]
        new.problem = guarded(Problem(found[0], found[1], old.problem.prox), old.problem.cell.arithmetic)
        for part in (new.problem.cell, new.problem.objective):
            _unlooked(part)
        new.packed = PackedProblem(new.problem, old.zspec, old.xspec, old.batch, False)
        new.packed.evaluations = new.evaluations = Evaluations(cell=1)
        new.shortened, new.apart = True, None
        return new


def _own_of(operator: EquilibriumMap | JointMap) -> dict[str, Tensor]:
    """What a joint map changes in the course of a solve, but for its units."""
    if isinstance(operator, EquilibriumMap):
        return {}
    return {name: t for name, t in vars(operator).items() if isinstance(t, Tensor) and name not in SCRATCH}


def _of_joint(operator: JointMap) -> list[Any]:
    cell, objective = operator.problem.cell, operator.problem.objective
    return [getattr(cell, "function", cell), getattr(objective, "function", objective), operator.prox]


def _unlooked(part: Any) -> Any:
    """A guarded function whose tensors' numbers are not compared: that was done when the solve began."""
    part.looks = 0
    return part


def _tensors_of(record: Any) -> dict[str, Tensor]:
    found = {entry.name: getattr(record, entry.name) for entry in dataclasses.fields(record)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _lifted(leaf: Any, like: Tensor) -> Tree:
    """A count as a tensor, which a recorded step can move on."""
    if isinstance(leaf, int) and not isinstance(leaf, bool):
        return torch.full((), leaf, dtype=torch.int64, device=like.device)
    if leaf is not None and not isinstance(leaf, Tensor):
        refuse(f"a solver that keeps a {type(leaf).__name__}")
    return leaf


def place_of(structure: Any, name: str) -> int:
    """Where the tensor of this name stands in the flat list; dicts are flattened in the order of their keys."""
    form, places, count = structure
    tree = _pytree.tree_unflatten(list(range(count)), form)
    return places.index(tree[name])


def told(like: Tensor) -> tuple[Tensor, Tensor]:
    """What a step is told from outside: ending () and rate ()."""
    return torch.zeros((), dtype=torch.bool, device=like.device), like.new_ones(())
