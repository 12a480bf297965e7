"""The public names, read by type checkers and editors, and by ``__init__`` to load each when it is first used.

Every name from ``.methods`` is an attack.
"""

from .aims import AbstractAim as AbstractAim
from .aims import Strongest as Strongest
from .aims import Success as Success
from .base import AbstractAttack as AbstractAttack
from .base import AttackResult as AttackResult
from .binary import BinaryLogits as BinaryLogits
from .corruptions.board import CorruptionBoard as CorruptionBoard
from .corruptions.families import corrupt as corrupt
from .corruptions.measure import evaluate_corruptions as evaluate_corruptions
from .corruptions.report import CorruptionReport as CorruptionReport
from .counts import Counts as Counts
from .dense.attack import BalancedPixels as BalancedPixels
from .dense.attack import PixelAttack as PixelAttack
from .dense.attack import PixelCrossEntropy as PixelCrossEntropy
from .dense.evaluate import evaluate_dense as evaluate_dense
from .dense.report import DenseReport as DenseReport
from .dense.target import DenseTarget as DenseTarget
from .evaluation.adversarial import Adversarial as Adversarial
from .evaluation.certificates import Certificate as Certificate
from .evaluation.certificates import certify as certify
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.evidence import Audit as Audit
from .evaluation.evidence import Finding as Finding
from .evaluation.leaderboard import Leaderboard as Leaderboard
from .evaluation.report import Report as Report
from .evaluation.report import Share as Share
from .fusion import LatentEnsemble as LatentEnsemble
from .methods.apgd import APGD as APGD
from .methods.ensemble import AdjointEnsemble as AdjointEnsemble
from .methods.equilibrium import IntermediateAttack as IntermediateAttack
from .methods.equilibrium import SimultaneousAttack as SimultaneousAttack
from .methods.foolbox import FoolboxAttack as FoolboxAttack
from .methods.gradient import PGD as PGD
from .methods.joint import JointAttack as JointAttack
from .methods.multiview import SingleViewAttack as SingleViewAttack
from .methods.multiview import TwoStageAttack as TwoStageAttack
from .methods.noise import NoiseAttack as NoiseAttack
from .methods.search import Square as Square
from .methods.surrogate import SurrogateAttack as SurrogateAttack
from .methods.tools import AutoAttack as AutoAttack
from .methods.tools import TorchAttack as TorchAttack
from .objectives import DLR as DLR
from .objectives import AbstractObjective as AbstractObjective
from .objectives import CrossEntropy as CrossEntropy
from .objectives import Margin as Margin
from .objectives import TargetedCrossEntropy as TargetedCrossEntropy
from .objectives import TargetedDLR as TargetedDLR
from .objectives import TargetedMargin as TargetedMargin
from .objectives import margin as margin
from .sources import OneViewThreat as OneViewThreat
from .statistics import interval as interval
from .suites import SUITES as SUITES
from .target import Prediction as Prediction
from .target import Target as Target
from .threat import ThreatModel as ThreatModel
from .views import MultiViewInjection as MultiViewInjection
from .views import MultiViewThreat as MultiViewThreat
from .views import multi_view_classifier as multi_view_classifier

ATTACKS: dict[str, str]
KINDS: dict[str, str]
CHOICES: dict[str, dict[str, str]]
SUITE_NAMES: tuple[str, ...]
