"""How people write the names of norms; loads nothing, as a command line asks before it loads PyTorch."""

from __future__ import annotations

from typing import Any


def spelt(norm: Any) -> Any:
    """A norm as it is spelt here: "Linf", "L_2" and "l-1" are "linf", "l2" and "l1"; other things are left alone."""
    return norm.lower().replace("_", "").replace("-", "").replace("∞", "inf") if isinstance(norm, str) else norm
