"""Equilibrium networks.

Cells, injections, heads, and the model that joins them. See ``build`` for the short way to one.
"""

from .attention import AbstractAttention, KernelAttention, RelativeAttention
from .build import ConvConfig, DenseConfig, ModelConfig, MonotoneConfig, build, classifier, decoder
from .cells import AbstractCell, ConvCell, DenseCell
from .crossmodal import CrossAttention, CrossModalCell, CrossModalModel
from .equilibrium import BoundCell, EquilibriumModel
from .files import load, save
from .heads import ClassifierHead, DenseHead, ImageHead
from .image import LevelInjection, ResidualHead, TwoScaleCell
from .injections import ConvInjection, DecoderInjection, LinearInjection
from .lyapunov import LyapunovCell, LyapunovFlow, lyapunov_model, orthogonal_head
from .monotone import MonotoneCell
from .multiscale import PRESETS, MultiscaleCell, MultiscaleConfig
from .potential import ConvexPotential, project_field
from .prior import ImagePrior, ImagePriorConfig
from .regulated import RegulatedModel, entropy, intermediate_scores
from .segmentation import SceneScores, TwoHeads
from .sequence import AbstractSequenceModel, ExplicitTransformer, Memory, TransformerModel, sparse_masks
from .smooth import SmoothConv2d
from .tokens import Tokens
from .transformer import TRANSFORMERS, TransformerBlock, TransformerCell, TransformerConfig, TransformerInjection

__all__ = [
    "PRESETS",
    "TRANSFORMERS",
    "AbstractAttention",
    "AbstractCell",
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
    "RegulatedModel",
    "RelativeAttention",
    "ResidualHead",
    "SceneScores",
    "SmoothConv2d",
    "Tokens",
    "TransformerBlock",
    "TransformerCell",
    "TransformerConfig",
    "TransformerInjection",
    "TransformerModel",
    "TwoHeads",
    "TwoScaleCell",
    "build",
    "classifier",
    "decoder",
    "entropy",
    "intermediate_scores",
    "load",
    "lyapunov_model",
    "orthogonal_head",
    "project_field",
    "save",
    "sparse_masks",
]
