"""What a solver has learnt, kept for each sample from the step in which that sample ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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

    def look(self, state: Any, running: Tensor, last: bool) -> None:
        """Take what is known of who has just ended; of all, where this look is the last."""
        before = torch.ones_like(running) if self.running is None else self.running
        ended = before if last else before & ~running
        self.running = running
        if self.found is not None and not bool(ended.any()):
            return
        now = self.solver.inverse(state).scaled(self.damping)
        if self.found is not None:
            rows = ended[:, None, None]
            now = Inverse(now.base, torch.where(rows, now.u, self.found.u), torch.where(rows, now.w, self.found.w))
        self.found = now
