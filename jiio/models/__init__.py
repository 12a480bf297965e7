"""Equilibrium networks.

Cells, injections, heads, and the model that joins them. See ``build`` for the short way to one.
"""

from .build import ConvConfig, DenseConfig, ModelConfig, MonotoneConfig, build, classifier, decoder
from .cells import AbstractCell, ConvCell, DenseCell
from .equilibrium import BoundCell, EquilibriumModel
from .files import load, save
from .heads import ClassifierHead, DenseHead, ImageHead
from .injections import ConvInjection, DecoderInjection, LinearInjection
from .monotone import MonotoneCell
from .multiscale import PRESETS, MultiscaleCell, MultiscaleConfig

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
    "LinearInjection",
    "ModelConfig",
    "MonotoneCell",
    "MonotoneConfig",
    "MultiscaleCell",
    "MultiscaleConfig",
    "build",
    "classifier",
    "decoder",
    "load",
    "save",
]
