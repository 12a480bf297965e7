"""Adversarial evaluation of equilibrium networks; imports jiio, and is imported by tasks."""

from .base import AbstractAttack, AttackResult
from .evaluation.certificates import Certificate, certify
from .evaluation.evaluate import evaluate
from .evaluation.evidence import Audit, Finding
from .evaluation.report import Report, Share
from .methods.equilibrium import AdjointEnsemble, IntermediateAttack, SimultaneousAttack
from .methods.gradient import APGD, PGD
from .methods.joint import JointAttack
from .methods.multiview import (
    MultiViewInjection,
    MultiViewThreat,
    SingleViewAttack,
    TwoStageAttack,
    multi_view_classifier,
)
from .methods.search import Square
from .methods.surrogate import SurrogateAttack
from .methods.tools import AutoAttack, TorchAttack
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
from .statistics import interval
from .suites import SUITES
from .target import Counts, Prediction, Target
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
