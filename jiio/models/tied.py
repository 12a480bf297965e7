"""The cell of an equilibrium network as ordinary layers: with shared weights, sparse or not, or weights of its own.

Song, Majumder and Lin, "Revisiting implicit models: sparsity trade-offs capability in weight-tied model for vision
tasks" (2023), drop the solver: the cell is applied so many times and differentiated as any network is. A binary mask of
its own for every layer, drawn once, lets each see another part of the shared weights. With masks the layers are
different maps, and what they end in is no equilibrium of any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..checks import ArgumentTypeError, check_instance, check_integer, check_number, fail
from ..draws import uniform_like
from ..layout import Tree
from .build import ModelConfig, build
from .cells.base import AbstractCell
from .equilibrium import BoundCell, EquilibriumModel

# Weights as they are, clamped to a norm, and the directions of weight norm, whose lengths are not masked.
WEIGHTS = ("weight", "original", "original1")


def matrices(cell: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The matrices and convolution kernels of a cell, by name: what a mask thins out."""
    for name, p in cell.named_parameters():
        if p.dim() >= 2 and name.rpartition(".")[2] in WEIGHTS:
            yield name, p


def sparse_masks(
    cell: AbstractCell, layers: int, sparsity: float, *, generator: torch.Generator
) -> tuple[dict[str, Tensor], ...]:
    """For every layer of an unrolled twin its own mask of the shared matrices (Song, Majumder and Lin 2023).

    An entry is kept with probability 1 - sparsity and scaled by its inverse square root, so that the size of a sum of
    independent terms stays (under weight norm and a spectral bound the scale comes from there). Convolution kernels are
    masked entry by entry.

    Returns: for each of ``layers`` layers, the name of a matrix of ``cell`` -> its mask, of the shape of the matrix,
    drawn on the CPU by ``generator``. One mask for all layers: ``sparse_masks(cell, 1, ...) * layers``.

    Errors: ArgumentError / ArgumentTypeError for unusable numbers, and for a cell without a matrix to mask.
    """
    check_integer("layers", layers, 1)
    keep = 1.0 - check_number("sparsity", sparsity, 0.0, 0.99)
    check_instance("generator", generator, torch.Generator)
    found = [*matrices(check_instance("cell", cell, nn.Module))]
    if not found:
        fail("cell", "a cell with matrices or convolutions that masks can thin out", type(cell).__name__)
    return tuple(
        {name: ((uniform_like(p.detach(), generator) < keep).to(p) / keep**0.5) for name, p in found}
        for _ in range(layers)
    )


def thinned(bound: BoundCell, z: Any, u: Tree, mask: dict[str, Tensor]) -> Any:
    """One application of a bound cell to z and u with ``mask`` on its matrices, under its dropout masks."""
    weights = {name: p * mask[name] for name, p in bound.cell.named_parameters() if name in mask}
    return functional_call(bound.cell, weights, (z, u) if bound.seed is None else (z, u, bound.masks(z)))


class TiedModel(nn.Module):
    """prediction = head(z_L), z_l = cell(z_(l-1), inject(x)), z_0 = 0: the same weights in all of the L layers.

    model: whose injection, cell and head these are; they are shared, not copied. layers: how many. masks: from
    :func:`sparse_masks`, one for each layer; empty for none. They are no weights: a checkpoint has to draw them anew.

    Errors: ArgumentError / ArgumentTypeError where the masks are not for these layers and this cell.
    """

    def __init__(self, model: EquilibriumModel, layers: int, *, masks: Sequence[dict[str, Tensor]] = ()) -> None:
        super().__init__()
        check_instance("model", model, EquilibriumModel)
        self.layers = check_integer("layers", layers, 1)
        self.inject, self.cell, self.head = model.inject, model.cell, model.head
        self._names = _masked("masks", masks, self.cell, self.layers)
        for i, mask in enumerate(masks):
            for j, name in enumerate(self._names):
                self.register_buffer(f"mask{i}_{j}", mask[name], persistent=False)

    def mask(self, layer: int) -> dict[str, Tensor]:
        """Of one layer, by the names of the matrices; empty where nothing is masked."""
        return {name: getattr(self, f"mask{layer}_{j}") for j, name in enumerate(self._names)}

    def forward(self, x: Tree) -> Tensor:
        """The prediction for x (B, ...), with ordinary gradients."""
        u, bound = self.inject(x), BoundCell(self.cell, self.cell, None)
        z = bound.initial_state(u)
        for i in range(self.layers):
            z = thinned(bound, z, u, self.mask(i)) if self._names else bound(z, u)
        return self.head(z)


def _masked(argument: str, masks: Sequence[dict[str, Tensor]], cell: nn.Module, layers: int) -> tuple[str, ...]:
    """The names of what is masked."""
    if not isinstance(masks, (tuple, list)) or not all(isinstance(mask, dict) for mask in masks):
        fail(argument, "what sparse_masks makes, one dict for each layer", masks, error=ArgumentTypeError)
    if not masks:
        return ()
    if len(masks) != layers:
        fail(argument, f"one for each of the {layers} layers", f"{len(masks)}")
    there = {name: tuple(p.shape) for name, p in matrices(cell)}
    for mask in masks:
        shapes = {name: tuple(t.shape) for name, t in mask.items()}
        if shapes.keys() != masks[0].keys() or any(there.get(name) != shape for name, shape in shapes.items()):
            remedy = "Draw them for this very cell."
            fail(argument, f"masks of {', '.join(there)} in their shapes", f"{shapes}", remedy)
    return tuple(masks[0])


class UntiedModel(nn.Module):
    """prediction = head(z_L), z_l = f_l(z_(l-1), inject(x)), z_0 = 0, where every layer f_l has weights of its own.

    config: sizes of the model, as for :func:`jiio.models.build`; all layers are cells of it. layers: how many.

    Errors: ArgumentError / ArgumentTypeError as in :func:`jiio.models.build`.
    """

    def __init__(self, config: ModelConfig, layers: int) -> None:
        super().__init__()
        first = build(config)
        self.inject, self.head = first.inject, first.head
        more = (build(config).cell for _ in range(check_integer("layers", layers, 1) - 1))
        self.cells = nn.ModuleList([first.cell, *more])

    def forward(self, x: Tree) -> Tensor:
        """The prediction for x (B, ...)."""
        u, layers = self.inject(x), [BoundCell(cell, cell, None) for cell in self.cells]
        z = layers[0].initial_state(u)
        for layer in layers:
            z = layer(z, u)
        return self.head(z)
