"""Models from plain data: a frozen configuration, and ``build``, which turns it into an :class:`EquilibriumModel`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..checks import ArgumentTypeError, check_choice, check_instance, check_integer, check_number, fail
from .cells.conv import ConvCell
from .cells.dense import DenseCell
from .cells.monotone import MONOTONE_ACTIVATIONS, MonotoneCell
from .cells.multiscale import MultiscaleCell, MultiscaleConfig
from .equilibrium import EquilibriumModel
from .heads import SQUASH, ClassifierHead, DenseHead, ImageHead, TwoHeads
from .injections import ConvInjection, DecoderInjection, LinearInjection
from .layers import ACTIVATIONS, BLOCK_ACTIVATIONS, check_groups, check_sizes

HEADS = {"classifier": 1, "image": 3, "pixels": 1, "both": 2}  # name -> how many numbers its output has


@dataclass(frozen=True)
class DenseConfig:
    """A :class:`DenseCell`: a vector state, f = act(W z + u)."""

    features: int = 64
    activation: str = "tanh"
    scaling: str = "none"
    gain: float = 0.8

    def __post_init__(self) -> None:
        check_integer("features", self.features, 1)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("scaling", self.scaling, ("none", "weight", "spectral"))
        check_number("gain", self.gain, 0.0, open_low=True)


@dataclass(frozen=True)
class MonotoneConfig:
    """A :class:`MonotoneCell`: a vector state with a unique equilibrium by construction."""

    features: int = 64
    m: float = 1.0
    activation: str = "relu"

    def __post_init__(self) -> None:
        check_integer("features", self.features, 1)
        check_number("m", self.m, 0.0, open_low=True)
        check_choice("activation", self.activation, MONOTONE_ACTIVATIONS)


@dataclass(frozen=True)
class ConvConfig:
    """A :class:`ConvCell`: one feature map. Fields as in :class:`MultiscaleConfig`."""

    channels: int = 24
    expansion: int = 2
    groups: int = 4
    activation: str = "relu"
    dropout: float = 0.0
    weight_norm: bool = True
    halvings: int = 0
    planes: int = 1
    head_channels: tuple[int, ...] = (8,)
    final_channels: int = 64
    drive: float = 3.0

    def __post_init__(self) -> None:
        check_integer("channels", self.channels, 1)
        check_integer("expansion", self.expansion, 1)
        check_groups("groups", self.channels, self.groups)
        check_choice("activation", self.activation, BLOCK_ACTIVATIONS)
        check_number("dropout", self.dropout, 0.0, 0.95)
        check_integer("halvings", self.halvings, 0)
        check_integer("planes", self.planes, 1)
        check_sizes("head_channels", self.head_channels, 1)
        check_integer("final_channels", self.final_channels, 1)
        check_number("drive", self.drive, 0.0, open_low=True)


CellConfig = DenseConfig | MonotoneConfig | ConvConfig | MultiscaleConfig
KINDS: dict[str, type] = {
    "dense": DenseConfig,
    "monotone": MonotoneConfig,
    "conv": ConvConfig,
    "multiscale": MultiscaleConfig,
}


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to rebuild a model but its weights.

    cell: sizes of the cell, whose class is the kind of model. input: the shape of x without the batch, (n,) for a
    vector or latent code, (C, H, W) for an image; H and W only matter for a dense state, as maps take any multiple of
    the cell's divisor. head: "classifier" (B, classes), "image" (B, C, H, W), "pixels" (B, classes, H, W), "both" a
    :class:`SceneScores` of classifier and pixels. output: the shape of the prediction without the batch, (classes,) or
    (C, H, W); for pixels (classes,), for both (labels, classes). squash: "none", "tanh" or "sigmoid", of an image head.
    """

    cell: CellConfig
    input: tuple[int, ...]
    head: str
    output: tuple[int, ...]
    squash: str = "none"

    def __post_init__(self) -> None:
        if not isinstance(self.cell, tuple(KINDS.values())):
            names = ", ".join(kind.__name__ for kind in KINDS.values())
            fail("cell", f"one of {names}", self.cell, error=ArgumentTypeError)
        check_choice("head", self.head, HEADS)
        check_choice("squash", self.squash, SQUASH)
        if len(check_sizes("input", self.input)) not in (1, 3):
            fail("input", "(n,) or (channels, height, width)", self.input)
        check_sizes("output", self.output, HEADS[self.head])
        if self.squash != "none" and self.head != "image":
            fail("squash", f"'none' for the {self.head} head", self.squash)
        if isinstance(self.cell, (DenseConfig, MonotoneConfig)):
            if self.head in ("pixels", "both"):
                fail("head", "'classifier' or 'image' for a vector state", self.head)
        elif len(self.input) == 1 and self.head != "image":
            remedy = "Use DenseConfig or MonotoneConfig for vectors."
            fail("input", "(channels, height, width) for a cell of feature maps", self.input, remedy)
        else:
            self._check_sides("output" if self.head == "image" else "input")

    def _check_sides(self, name: str) -> None:
        divisor, shape = self.divisor, getattr(self, name)
        if any(side % divisor for side in shape[1:]):
            sides = tuple(math.ceil(side / divisor) * divisor for side in shape[1:])
            remedy = f"Pad to {sides}, or take fewer branches or halvings."
            fail(name, f"a height and width that are multiples of {divisor}", shape, remedy)

    @property
    def divisor(self) -> int:
        """What the sides of an image must be multiples of; 1 for a vector state."""
        if isinstance(self.cell, MultiscaleConfig):
            return self.cell.divisor
        return 2**self.cell.halvings if isinstance(self.cell, ConvConfig) else 1


def build(config: ModelConfig, **options: Any) -> EquilibriumModel:
    """A freshly initialised model; ``options`` are the solve settings of :class:`EquilibriumModel`."""
    check_instance("config", config, ModelConfig)
    if isinstance(config.cell, (DenseConfig, MonotoneConfig)):
        inject, cell, head = _vector_parts(config, config.cell)
    else:
        inject, cell, head = _map_parts(config, config.cell)
    return EquilibriumModel(inject, cell, head, config=config, **options)


def _vector_parts(config: ModelConfig, cell: DenseConfig | MonotoneConfig) -> tuple[nn.Module, nn.Module, nn.Module]:
    inject = LinearInjection(math.prod(config.input), cell.features)
    if isinstance(cell, DenseConfig):
        body = DenseCell(cell.features, activation=cell.activation, scaling=cell.scaling, gain=cell.gain)
    else:
        body = MonotoneCell(cell.features, m=cell.m, activation=cell.activation)
    if config.head == "image":
        return inject, body, ImageHead(cell.features, config.output, squash=config.squash)  # type: ignore[arg-type]
    return inject, body, ClassifierHead(cell.features, config.output[0])


def _map_parts(config: ModelConfig, cell: ConvConfig | MultiscaleConfig) -> tuple[nn.Module, nn.Module, nn.Module]:
    widths = (cell.channels,) if isinstance(cell, ConvConfig) else cell.channels
    shared = {"activation": cell.activation}
    from_code = len(config.input) == 1
    if from_code:
        size = tuple(side // 2**cell.halvings for side in config.output[1:])
        inject = DecoderInjection(config.input[0], widths, size, planes=cell.planes)  # type: ignore[arg-type]
    else:
        inject = ConvInjection(
            config.input[0], widths[0], halvings=cell.halvings, groups=cell.groups, divisor=config.divisor, **shared
        )
    if isinstance(cell, MultiscaleConfig):
        body = MultiscaleCell(cell, injected=len(widths) if from_code else 1)
    else:
        body = ConvCell(
            cell.channels,
            expansion=cell.expansion,
            groups=cell.groups,
            dropout=cell.dropout,
            weight_norm=cell.weight_norm,
            drive=cell.drive,
            **shared,
        )
    return inject, body, _map_head(config, cell, widths)


def _map_head(config: ModelConfig, cell: ConvConfig | MultiscaleConfig, widths: tuple[int, ...]) -> nn.Module:
    shared: dict[str, Any] = {"activation": cell.activation}
    if config.head == "image":
        image: Any = config.output
        return ImageHead(widths, image, halvings=cell.halvings, squash=config.squash, **shared)
    heads: list[nn.Module] = []
    if config.head in ("classifier", "both"):
        sizes: dict[str, Any] = {"head_channels": cell.head_channels, "final_channels": cell.final_channels}
        heads.append(ClassifierHead(widths, config.output[0], groups=cell.groups, **sizes, **shared))
    if config.head in ("pixels", "both"):
        heads.append(DenseHead(widths, config.output[-1], halvings=cell.halvings, groups=cell.groups, **shared))
    return heads[0] if len(heads) == 1 else TwoHeads(*heads)


def _cell_config(cell: str | CellConfig) -> CellConfig:
    return MultiscaleConfig.preset(cell) if isinstance(cell, str) else cell


def classifier(
    cell: str | CellConfig = "tiny", *, image: tuple[int, ...], classes: int, **options: Any
) -> EquilibriumModel:
    """x (B, *image) -> scores (B, classes).

    cell: the name of a multiscale preset, or a cell configuration. options: see ``build``.
    """
    return build(ModelConfig(_cell_config(cell), tuple(image), "classifier", (classes,)), **options)


def decoder(
    cell: str | CellConfig = "decoder-64",
    *,
    image: tuple[int, int, int] = (3, 64, 64),
    latent: int = 128,
    squash: str = "tanh",
    **options: Any,
) -> EquilibriumModel:
    """Latent codes (B, latent) -> images (B, *image). The defaults are the sizes of JIIO's model for 64x64 faces.

    squash: the range of the pixels, "sigmoid" (0, 1), "tanh" (-1, 1), "none". cell and options as in
    :func:`classifier`.
    """
    return build(ModelConfig(_cell_config(cell), (latent,), "image", tuple(image), squash), **options)
