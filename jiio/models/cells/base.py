"""What a cell of an equilibrium network is, and what the configuration of one says to ``build``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from ...checks import ArgumentTypeError, check_integer, fail
from ...layout import Tree
from ...persample import SampleBySample
from ..layers import check_sizes

MAX_HALVINGS = 16  # an image of one pixel at the coarsest resolution has 65,536 a side then
# word in a file -> configuration. The classes of this package enter themselves; others are named by their import path.
KINDS: dict[str, type[AbstractCellConfig]] = {}


class AbstractCell(SampleBySample, nn.Module, ABC):
    """Base of the cells: the map f(z, u) whose fixed point is the network; u is what the injection says to it.

    No state between calls: a map that changes during a solve has no fixed point. Samples never meet, so that a solve
    may go on without those that have ended; a cell in which they do defines ``rows(index)`` as None.
    """

    dropout: float = 0.0

    @abstractmethod
    def forward(self, z: Tree, u: Tree, masks: Tree | None = None) -> Tree:
        """One application of f to z and u: a new tree with the shapes of z. ``masks``: from :meth:`draw_masks`, None
        without.
        """

    @abstractmethod
    def initial_state(self, u: Tree) -> Tree:
        """z0 = 0, with the batch, dtype and device of u."""

    def draw_masks(self, z: Tree, generator: torch.Generator) -> Tree | None:
        """Variational dropout masks for the state z, drawn by ``generator``, to be held fixed for a whole solve; None
        without dropout.
        """
        return None


class AbstractCellConfig(ABC):
    """What a cell is made from, in plain data, and what stands around it in a model.

    Derive a frozen dataclass, inside jiio or outside, whose fields are numbers, words, truth values and tuples of them;
    give it :attr:`widths` and :meth:`cell`, and :class:`jiio.models.ModelConfig` takes it. A file names a class of
    this package by its ``kind``, any other by its import path "package.module:Name".

    What an injection and a head for feature maps are made from are attributes here, so that they may be fields there.
    activation, groups: of their layers. halvings: branch 0 has the resolution of the image over 2**halvings. planes:
    maps that a latent code writes into branch 0. head_channels: a bottleneck width of a classifier head for each branch
    (None: 8 each). final_channels: of the last layer of that head.
    """

    kind: str = ""
    activation: str = "relu"
    groups: int = 1
    halvings: int = 0
    planes: int = 1
    head_channels: tuple[int, ...] | None = None
    final_channels: int = 64

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.kind and cls.__module__.rpartition(".")[0] == __name__.rpartition(".")[0]:
            KINDS[cls.kind] = cls

    @property
    @abstractmethod
    def widths(self) -> int | tuple[int, ...]:
        """Of the state: the features of a vector, or a tuple with the channels of each feature map, finest first."""

    @abstractmethod
    def cell(self, injected: int = 1) -> nn.Module:
        """A fresh cell. injected: how many branches u is for; 1, the finest, or all that there are."""

    @property
    def is_map(self) -> bool:
        """Whether the state is feature maps; a vector otherwise."""
        return not isinstance(self.widths, int)

    @property
    def divisor(self) -> int:
        """What the sides of an image must be multiples of; every branch has half the resolution of the one before."""
        return 1 if isinstance(self.widths, int) else 2 ** (self.halvings + len(self.widths) - 1)

    def check(self) -> None:
        """Raise unless ``build`` can make the surroundings of the cell from this: ArgumentError, ArgumentTypeError."""
        parameters = vars(type(self)).get("__dataclass_params__")  # its own, not those of a parent
        if parameters is None or not parameters.frozen:
            remedy = f"Write @dataclass(frozen=True) above {type(self).__name__}."
            fail("cell", "a frozen dataclass", self, remedy, ArgumentTypeError)
        if isinstance(self.widths, int):
            check_integer("widths", self.widths, 1)
            return

        branches = len(check_sizes("widths", self.widths))
        if check_integer("halvings", self.halvings, 0) > MAX_HALVINGS:
            fail("halvings", f"at most {MAX_HALVINGS}", self.halvings)
        check_integer("planes", self.planes, 1)
        if self.head_channels is not None:
            check_sizes("head_channels", self.head_channels, branches)
        check_integer("final_channels", self.final_channels, 1)
