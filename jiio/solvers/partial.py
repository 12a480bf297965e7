"""A solver that accelerates some blocks of the vector and lets the others take the plain step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import AbstractSolver


@dataclass(frozen=True)
class Partial(AbstractSolver):
    """``solver`` on the columns in ``places``; the numbers between them are those of the image."""

    solver: AbstractSolver
    places: tuple[slice, ...]

    @classmethod
    def of(cls, solver: AbstractSolver, names: tuple[str, ...], blocks: Mapping[str, slice]) -> AbstractSolver:
        """On the blocks of these names, as far as the vector has them; the solver itself where that is all of them."""
        named = tuple(place for name, place in blocks.items() if name in names)
        return solver if len(named) == len(blocks) else cls(solver, named)

    def _seen(self, v: Tensor) -> Tensor:
        return torch.cat([v[:, place] for place in self.places], dim=1)

    def init(self, v: Tensor) -> Any:
        return self.solver.init(self._seen(v))

    def step(self, v: Tensor, fv: Tensor, state: Any) -> tuple[Tensor, Any]:
        mixed, state = self.solver.step(self._seen(v), self._seen(fv), state)
        parts, at, done = [], 0, 0
        for place in self.places:
            width = place.stop - place.start
            parts += [fv[:, at : place.start], mixed[:, done : done + width]]
            at, done = place.stop, done + width
        return torch.cat([*parts, fv[:, at:]], dim=1), state

    def rows(self, state: Any, index: Tensor) -> Any:
        return self.solver.rows(state, index)

    def renewed(self, state: Any, v: Tensor) -> Any:
        return self.solver.renewed(state, self._seen(v))

    def bare(self, state: Any) -> Any:
        return self.solver.bare(state)

    def restart(self, state: Any, mask: Tensor) -> Any:
        return self.solver.restart(state, mask)
