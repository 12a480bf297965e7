"""Models from plain data: a frozen configuration, and ``build``, which turns it into an :class:`EquilibriumModel`."""

from __future__ import annotations

import copyreg
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..checks import CheckpointError, check_choice, check_instance, fail
from .cells.base import KINDS, AbstractCellConfig
from .cells.multiscale import MultiscaleConfig
from .equilibrium import EquilibriumModel
from .heads import SQUASH, ClassifierHead, DenseHead, ImageHead, TwoHeads
from .injections import ConvInjection, DecoderInjection, LinearInjection
from .layers import check_sizes

HEADS = {"classifier": 1, "image": 3, "pixels": 1, "both": 2}  # name -> how many numbers its output has


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to rebuild a model but its weights.

    cell: sizes of the cell, whose class is the kind of model. input: the shape of x without the batch, (n,) for a
    vector or latent code, (C, H, W) for an image; H and W only matter for a dense state, as maps take any multiple of
    the cell's divisor. head: "classifier" (B, classes), "image" (B, C, H, W), "pixels" (B, classes, H, W), "both" a
    :class:`SceneScores` of classifier and pixels. output: the shape of the prediction without the batch, (classes,) or
    (C, H, W); for pixels (classes,), for both (labels, classes). squash: "none", "tanh" or "sigmoid", of an image head.
    """

    cell: AbstractCellConfig
    input: tuple[int, ...]
    head: str
    output: tuple[int, ...]
    squash: str = "none"

    def __post_init__(self) -> None:
        names = ", ".join(kind.__name__ for kind in KINDS.values())
        remedy = f"Take one of {names}, or derive one."
        check_instance("cell", self.cell, AbstractCellConfig, remedy).check()
        check_choice("head", self.head, HEADS)
        check_choice("squash", self.squash, SQUASH)

        # The head says how many numbers its output has.
        if len(check_sizes("input", self.input)) not in (1, 3):
            fail("input", "(n,) or (channels, height, width)", self.input)
        check_sizes("output", self.output, HEADS[self.head])
        if self.squash != "none" and self.head != "image":
            fail("squash", f"'none' for the {self.head} head", self.squash)

        # What the two kinds of state ask of both ends.
        if self.cell.is_map:
            self._check_maps()
        elif self.head in ("pixels", "both"):
            fail("head", "'classifier' or 'image' for a vector state", self.head)

    def _check_maps(self) -> None:
        if len(self.input) == 1 and self.head != "image":
            remedy = "Use DenseConfig or MonotoneConfig for vectors."
            fail("input", "(channels, height, width) for a cell of feature maps", self.input, remedy)
        name = "output" if self.head == "image" else "input"
        divisor, shape = self.divisor, getattr(self, name)
        if any(side % divisor for side in shape[1:]):
            sides = tuple(math.ceil(side / divisor) * divisor for side in shape[1:])
            remedy = f"Pad to {sides}, or take fewer branches or halvings."
            fail(name, f"a height and width that are multiples of {divisor}", shape, remedy)

    @property
    def divisor(self) -> int:
        """What the sides of an image must be multiples of; 1 for a vector state."""
        return self.cell.divisor


def build(config: ModelConfig, **options: Any) -> EquilibriumModel:
    """A freshly initialised model. config: all of its sizes. options: the solve settings of :class:`EquilibriumModel`.

    Weights come from torch's global random state. Raises ArgumentTypeError for what is no :class:`ModelConfig`, which
    has checked its numbers, and ArgumentError / ArgumentTypeError for unusable options.
    """
    check_instance("config", config, ModelConfig)
    inject = _injection(config)
    # A latent code writes into every branch, an image only into the finest.
    widths = config.cell.widths
    everywhere = len(config.input) == 1 and not isinstance(widths, int)
    cell = config.cell.cell(len(widths) if everywhere else 1)  # type: ignore[arg-type]
    return EquilibriumModel(inject, cell, _head(config), config=config, **options)


def _reduced(model: EquilibriumModel) -> Any:
    """For pickle, which torch refuses to parametrised modules: the configuration, and the weights to put into it."""
    if not any(parametrize.is_parametrized(part) for part in model.modules()):
        return object.__reduce_ex__(model, 2)
    if not isinstance(model.config, ModelConfig):
        remedy = "Build it with jiio.models.build(config), or keep its state_dict()."
        fail("pickle", "a model that knows its configuration", "one put together by hand", remedy, CheckpointError)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    modes = [part.training for part in model.modules()]
    return _restored, (model.config, model.settings, dict(model.state_dict()), frozen, modes)


def _restored(config: ModelConfig, settings: Any, weights: dict[str, Any], frozen: list[str], modes: list[bool]) -> Any:
    """The model again; the random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        model = build(config)
    model.load_state_dict(weights, assign=True)
    model.settings = settings
    for name, p in model.named_parameters():
        p.requires_grad_(name not in frozen)
    for part, mode in zip(model.modules(), modes, strict=True):
        part.training = mode
    return model


copyreg.pickle(EquilibriumModel, _reduced)


def _injection(config: ModelConfig) -> nn.Module:
    cell, widths = config.cell, config.cell.widths
    if isinstance(widths, int):
        return LinearInjection(math.prod(config.input), widths)
    if len(config.input) == 1:
        height, width = (side // 2**cell.halvings for side in config.output[1:])
        return DecoderInjection(config.input[0], widths, (height, width), planes=cell.planes)
    around = {"halvings": cell.halvings, "groups": cell.groups, "activation": cell.activation}
    return ConvInjection(config.input[0], widths[0], divisor=config.divisor, **around)


def _head(config: ModelConfig) -> nn.Module:
    cell, widths = config.cell, config.cell.widths
    shared: dict[str, Any] = {"activation": cell.activation}
    if config.head == "image":
        image: Any = config.output
        return ImageHead(widths, image, halvings=cell.halvings, squash=config.squash, **shared)
    if isinstance(widths, int):
        return ClassifierHead(widths, config.output[0])  # a linear layer

    # The classifier comes first: the order in which weights are drawn is part of what a seed means.
    heads: list[nn.Module] = []
    if config.head in ("classifier", "both"):
        inner = (8,) * len(widths) if cell.head_channels is None else cell.head_channels
        sizes: dict[str, Any] = {"head_channels": inner, "final_channels": cell.final_channels}
        heads.append(ClassifierHead(widths, config.output[0], groups=cell.groups, **sizes, **shared))
    if config.head in ("pixels", "both"):
        heads.append(DenseHead(widths, config.output[-1], halvings=cell.halvings, groups=cell.groups, **shared))
    return heads[0] if len(heads) == 1 else TwoHeads(*heads)


def _cell_config(cell: str | AbstractCellConfig) -> AbstractCellConfig:
    return MultiscaleConfig.preset(cell) if isinstance(cell, str) else cell


def classifier(
    cell: str | AbstractCellConfig = "tiny", *, image: tuple[int, ...], classes: int, **options: Any
) -> EquilibriumModel:
    """x (B, *image) -> scores (B, classes).

    cell: the name of a multiscale preset, or a cell configuration. image: the shape of x without the batch, (C, H, W)
    for feature maps, any for a vector state. classes: how many. options: see :func:`build`. Raises ArgumentError /
    ArgumentTypeError for unusable arguments.
    """
    return build(ModelConfig(_cell_config(cell), tuple(image), "classifier", (classes,)), **options)


def decoder(
    cell: str | AbstractCellConfig = "decoder-64",
    *,
    image: tuple[int, int, int] = (3, 64, 64),
    latent: int = 128,
    squash: str = "tanh",
    **options: Any,
) -> EquilibriumModel:
    """Latent codes (B, latent) -> images (B, *image). The defaults are the sizes of JIIO's model for 64x64 faces.

    image: (C, H, W). latent: numbers in a code. squash: the range of the pixels, "sigmoid" (0, 1), "tanh" (-1, 1),
    "none". cell and options as in :func:`classifier`. Raises ArgumentError / ArgumentTypeError for unusable arguments.
    """
    return build(ModelConfig(_cell_config(cell), (latent,), "image", tuple(image), squash), **options)
