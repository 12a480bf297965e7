"""Plain (damped) fixed-point iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .base import AbstractSolver, Damping


@dataclass(frozen=True)
class Picard(AbstractSolver):
    """v <- F(v), with the damping inside F. Converges only where F contracts; the honest baseline."""

    damping: Damping = 1.0

    def init(self, v: Tensor) -> Any:
        return None

    def rows(self, state: Any, index: Tensor) -> Any:
        return None

    def step(self, v: Tensor, fv: Tensor, state: Any) -> tuple[Tensor, Any]:
        return fv, None
