"""Adversarial evaluation of equilibrium networks; imports jiio, and is imported by tasks."""

from .audit import Audit, Finding
from .base import AbstractAttack, AttackResult
from .certificates import Certificate, certify
from .deq import AdjointEnsemble, IntermediateAttack, SimultaneousAttack
from .evaluate import evaluate
from .gradient import APGD, PGD
from .joint import JointAttack
from .models import Counts, Prediction, Target
from .multiview import (
    MultiViewInjection,
    MultiViewThreat,
    SingleViewAttack,
    TwoStageAttack,
    multi_view_classifier,
)
from .objectives import (
    DLR,
    AbstractObjective,
    CrossEntropy,
    Margin,
    TargetedCrossEntropy,
    TargetedDLR,
    TargetedMargin,
    margin,
)
from .report import Report, Share
from .search import Square
from .statistics import interval
from .suites import SUITES, AutoAttack, TorchAttack
from .surrogate import SurrogateAttack
from .threat import ThreatModel

__all__ = [
    "APGD",
    "DLR",
    "PGD",
    "SUITES",
    "AbstractAttack",
    "AbstractObjective",
    "AdjointEnsemble",
    "AttackResult",
    "Audit",
    "AutoAttack",
    "Certificate",
    "Counts",
    "CrossEntropy",
    "Finding",
    "IntermediateAttack",
    "JointAttack",
    "Margin",
    "MultiViewInjection",
    "MultiViewThreat",
    "Prediction",
    "Report",
    "Share",
    "SimultaneousAttack",
    "SingleViewAttack",
    "Square",
    "SurrogateAttack",
    "Target",
    "TargetedCrossEntropy",
    "TargetedDLR",
    "TargetedMargin",
    "ThreatModel",
    "TorchAttack",
    "TwoStageAttack",
    "certify",
    "evaluate",
    "interval",
    "margin",
    "multi_view_classifier",
]
