"""How gradients flow through a solve: one object per call, never a flag, never train or eval mode."""

from .base import AbstractAdjoint, Detached
from .implicit import Envelope, Implicit
from .kkt import KKT
from .levenberg import Levenberg
from .shine import SHINE
from .truncated import Phantom, Unrolled

__all__ = ["KKT", "SHINE", "AbstractAdjoint", "Detached", "Envelope", "Implicit", "Levenberg", "Phantom", "Unrolled"]
