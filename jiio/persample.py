"""Taking some samples of a batch: what a part of a problem offers so that a solve can go on with those that still run.

A part (a cell, an objective, an injection, a head) that treats every sample by itself says so by a method

    rows(index) -> the same part for the samples ``index`` (k,) alone, or None where it cannot be had,

and whoever is made of parts asks them. A part without the method, or with an attribute of that name which is no method,
may see the whole batch at once, and is left whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .checks import ArgumentTypeError, check_callable, fail
from .layout import Tree, leaves, map_tree

# Layers of torch that see one sample at a time, whatever their mode.
LAYERS = (nn.Identity, nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.LayerNorm, nn.GroupNorm)
LAYERS += (nn.ReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Tanh, nn.Sigmoid)


def rows_of(part: Any, index: Tensor) -> Any:
    """The part for the samples ``index`` (k,) alone; None where it does not offer that."""
    if type(part) in LAYERS:
        return part
    if type(part) is nn.Sequential:
        layers = [rows_of(layer, index) for layer in part]
        return part if all(new is old for new, old in zip(layers, part, strict=True)) else None
    offer = getattr(part, "rows", None)
    return offer(index) if callable(offer) and not isinstance(offer, nn.Module) else None


def taken(tree: Tree, index: Tensor) -> Tree:
    """The samples ``index`` (k,) of a tree of tensors (B, ...)."""
    return map_tree(lambda leaf: leaf.index_select(0, index), tree)


class SampleBySample:
    """A part that treats every sample by itself and holds nothing of a batch: any samples of it are served by itself.

    To be derived from beside ``nn.Module``. A module inside that couples samples breaks the promise.
    """

    def rows(self, index: Tensor) -> Any:
        """Itself."""
        return self


class PerSample:
    """A cell or an objective that treats every sample by itself: (z, x) -> function(z, x, *data).

    data: trees of tensors (B, ...), what the function has to know of each sample: targets, masks, measurements. Given
    here, and not caught by the function, they leave the batch together with their samples, so that a solve costs what
    the samples cost that still run. Everything else (``initial_state``, ``module``) is the function's own.

        problem = model.problem(jiio.PerSample(lambda scores, x, y: -F.cross_entropy(scores, y, reduction="none"), y))
    """

    def __init__(self, function: Callable[..., Any], *data: Tree) -> None:
        self.function = check_callable("function", function, "(z, x, *data) -> tensor or tree")
        self.data = data
        for tree in data:
            for leaf in leaves(tree):
                if not isinstance(leaf, Tensor) or leaf.dim() == 0:
                    fail("data", "tensors with the batch first", leaf, error=ArgumentTypeError)

    @property
    def module(self) -> nn.Module | None:
        """What a solve holds fixed."""
        return self.function if isinstance(self.function, nn.Module) else getattr(self.function, "module", None)

    def __getattr__(self, name: str) -> Any:
        if name == "function":  # not there yet, while a copy is being made
            raise AttributeError(name)
        return getattr(self.function, name)

    def __call__(self, z: Tree, x: Tree) -> Any:
        # A row for each sample, or rows would be taken that are not there, or somebody else's.
        batch = leaves(x)[0].shape[0]
        for leaf in (leaf for tree in self.data for leaf in leaves(tree)):
            if leaf.shape[0] != batch:
                fail("PerSample.data", f"{batch} samples, as many as x has", leaf)
        return self.function(z, x, *self.data)

    def rows(self, index: Tensor) -> PerSample | None:
        """The samples ``index`` (k,), with their data; a function that offers rows itself is asked."""
        offers = callable(getattr(self.function, "rows", None))
        function = rows_of(self.function, index) if offers else self.function
        return None if function is None else PerSample(function, *(taken(tree, index) for tree in self.data))


def share_of(value: Tensor, index: Tensor, batch: int, dims: int) -> Tensor:
    """A parameter that broadcasts against (B, ...) of ``dims`` dimensions, for the samples ``index`` (k,)."""
    per_sample = value.dim() == dims and value.shape[0] == batch and batch > 1
    # A mask that was drawn on the CPU follows what it is applied to, and not what it is divided for.
    return value.index_select(0, index.to(value.device)) if per_sample else value


def placed(whole: Tensor, places: Tensor, part: Tensor) -> Tensor:
    """``whole`` (B, ...) with ``part`` (k, ...) at ``places`` (k,)."""
    return torch.index_copy(whole, 0, places, part)
