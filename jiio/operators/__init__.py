"""Packed maps whose fixed point is the answer; the only callers of a VJP during a solve."""

from .base import Point, rms, select
from .equilibrium import EquilibriumMap
from .joint import JointMap
from .packed import PackedProblem
from .scales import Scales, check_scaling

__all__ = ["EquilibriumMap", "JointMap", "PackedProblem", "Point", "Scales", "check_scaling", "rms", "select"]
