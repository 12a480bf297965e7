"""Equilibrium networks.

Cells, injections, heads, and the model that joins them; see ``build`` for the short way to one. Beside these, energies
of images, transformers over sequences, and equilibria with a Lyapunov function.
"""

from .borrowed import from_torchdeq
from .build import ModelConfig, build, classifier, decoder
from .cells.base import AbstractCell, AbstractCellConfig
from .cells.conv import ConvCell, ConvConfig
from .cells.dense import DenseCell, DenseConfig
from .cells.monotone import MonotoneCell, MonotoneConfig
from .cells.multiscale import PRESETS, MultiscaleCell, MultiscaleConfig
from .equilibrium import BoundCell, EquilibriumModel
from .files import load, save
from .heads import ClassifierHead, DenseHead, ImageHead, SceneScores, TwoHeads
from .images.parts import LevelInjection, ResidualHead, TwoScaleCell
from .images.prior import ImagePrior, ImagePriorConfig
from .images.smooth import SmoothConv2d
from .injections import ConvInjection, DecoderInjection, LinearInjection
from .sequences.attention import AbstractAttention, KernelAttention, RelativeAttention
from .sequences.crossmodal import CrossAttention, CrossModalCell, CrossModalModel
from .sequences.model import (
    AbstractSequenceModel,
    EquilibriumSequenceModel,
    ExplicitTransformer,
    Memory,
    Read,
    TransformerModel,
)
from .sequences.tokens import Tokens
from .sequences.transformer import (
    TRANSFORMERS,
    TransformerBlock,
    TransformerCell,
    TransformerConfig,
    TransformerInjection,
)
from .sequences.trellis import TrellisCell, TrellisConfig, TrellisInjection, TrellisModel
from .stable.lyapunov import LyapunovCell, LyapunovFlow, lyapunov_model, orthogonal_head
from .stable.potential import ConvexPotential, project_field
from .stable.regulated import RegulatedModel, entropy, intermediate_scores
from .tied import TiedModel, UntiedModel, sparse_masks

__all__ = [
    "PRESETS",
    "TRANSFORMERS",
    "AbstractAttention",
    "AbstractCell",
    "AbstractCellConfig",
    "AbstractSequenceModel",
    "BoundCell",
    "ClassifierHead",
    "ConvCell",
    "ConvConfig",
    "ConvInjection",
    "ConvexPotential",
    "CrossAttention",
    "CrossModalCell",
    "CrossModalModel",
    "DecoderInjection",
    "DenseCell",
    "DenseConfig",
    "DenseHead",
    "EquilibriumModel",
    "EquilibriumSequenceModel",
    "ExplicitTransformer",
    "ImageHead",
    "ImagePrior",
    "ImagePriorConfig",
    "KernelAttention",
    "LevelInjection",
    "LinearInjection",
    "LyapunovCell",
    "LyapunovFlow",
    "Memory",
    "ModelConfig",
    "MonotoneCell",
    "MonotoneConfig",
    "MultiscaleCell",
    "MultiscaleConfig",
    "Read",
    "RegulatedModel",
    "RelativeAttention",
    "ResidualHead",
    "SceneScores",
    "SmoothConv2d",
    "TiedModel",
    "Tokens",
    "TransformerBlock",
    "TransformerCell",
    "TransformerConfig",
    "TransformerInjection",
    "TransformerModel",
    "TrellisCell",
    "TrellisConfig",
    "TrellisInjection",
    "TrellisModel",
    "TwoHeads",
    "TwoScaleCell",
    "UntiedModel",
    "build",
    "classifier",
    "decoder",
    "entropy",
    "from_torchdeq",
    "intermediate_scores",
    "load",
    "lyapunov_model",
    "orthogonal_head",
    "project_field",
    "save",
    "sparse_masks",
]
