"""Equilibrium networks.

Cells, injections, heads, and the model that joins them. See ``build`` for the short way to one.
"""

from .build import ConvConfig, DenseConfig, ModelConfig, MonotoneConfig, build, classifier, decoder
from .cells import AbstractCell, ConvCell, DenseCell
from .equilibrium import BoundCell, EquilibriumModel
from .files import load, save
from .heads import ClassifierHead, DenseHead, ImageHead
from .image import LevelInjection, ResidualHead, TwoScaleCell
from .injections import ConvInjection, DecoderInjection, LinearInjection
from .monotone import MonotoneCell
from .multiscale import PRESETS, MultiscaleCell, MultiscaleConfig
from .prior import ImagePrior, ImagePriorConfig
from .smooth import SmoothConv2d

__all__ = [
    "PRESETS",
    "AbstractCell",
    "BoundCell",
    "ClassifierHead",
    "ConvCell",
    "ConvConfig",
    "ConvInjection",
    "DecoderInjection",
    "DenseCell",
    "DenseConfig",
    "DenseHead",
    "EquilibriumModel",
    "ImageHead",
    "ImagePrior",
    "ImagePriorConfig",
    "LevelInjection",
    "LinearInjection",
    "ModelConfig",
    "MonotoneCell",
    "MonotoneConfig",
    "MultiscaleCell",
    "MultiscaleConfig",
    "ResidualHead",
    "SmoothConv2d",
    "TwoScaleCell",
    "build",
    "classifier",
    "decoder",
    "load",
    "save",
]
