"""What a solver has learnt, kept for each sample from the step in which that sample ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..persample import placed
from .base import AbstractSolver
from .inverse import Inverse


class SecantKeeper:
    """The estimate of every sample as it stood when that sample ended.

    A sample that has ended stays in the batch and stands still, and a solver's memory would fill up with its standing
    still: without this the gradient of a sample would depend on how long its batch mates take.

    damping: of the map that the solver saw, (1 - damping) v + damping f(v); the estimate is that of f.
    """

    def __init__(self, solver: AbstractSolver, damping: float) -> None:
        self.solver, self.damping = solver, damping
        self.found: Inverse | None = None
        self.running: Tensor | None = None  # (B,) at the last look
        self.places: Tensor | None = None  # (k,) in the batch of those that it still hears of; None: of all

    def rows(self, index: Tensor) -> None:
        """From now on only the samples ``index`` (k,) of those so far are shown."""
        self.places = index if self.places is None else self.places[index]
        self.running = None if self.running is None else self.running[index]

    def look(self, state: Any, running: Tensor, last: bool) -> None:
        """Take what is known of who has just ended; of all, where this look is the last."""
        before = torch.ones_like(running) if self.running is None else self.running
        ended = before if last else before & ~running
        self.running = running
        if self.found is not None and not bool(ended.any()):
            return
        now = self.solver.inverse(state).scaled(self.damping)
        if self.found is not None:
            old, u, w = self.found, now.u, now.w
            if self.places is not None:
                u, w = placed(old.u, self.places, u), placed(old.w, self.places, w)
                ended = placed(torch.zeros_like(old.u[:, 0, 0], dtype=torch.bool), self.places, ended)
            rows = ended[:, None, None]
            now = Inverse(now.base, torch.where(rows, u, old.u), torch.where(rows, w, old.w))
        self.found = now
