"""Layout: named blocks of tensor trees <-> one packed (B, D) tensor.

A *tree* is a tensor, or a tuple, list or dict of trees; every leaf has the batch as its first dimension. Solvers see
only the packed tensor, users see only trees, and this file is the one place where the two meet.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from .checks import ArgumentTypeError, CellError, describe, fail

Tree = Any  # Tensor | tuple[Tree, ...] | list[Tree] | dict[str, Tree]


def leaves(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in a fixed order."""
    return _pytree.tree_leaves(tree)


def map_tree(function, tree: Tree, *rest: Tree) -> Tree:
    """Apply ``function`` leaf by leaf."""
    return _pytree.tree_map(function, tree, *rest)


def same_tree(a: Tree, b: Tree) -> bool:
    """Whether two trees have the same structure (whatever their tensors are like)."""
    return _pytree.tree_structure(a) == _pytree.tree_structure(b)


def conformed(tree: Tree, like: Tree) -> Tree:
    """The same tree with the keys of its dicts in the order that they have in ``like``; as it is where trees differ."""
    if isinstance(like, dict) and isinstance(tree, dict) and tree.keys() == like.keys():
        ordered = {key: conformed(tree[key], like[key]) for key in like}
        return ordered if type(tree) is dict else type(tree)(ordered) if isinstance(tree, OrderedDict) else tree
    if isinstance(like, (tuple, list)) and type(tree) is type(like) and len(tree) == len(like):
        parts = [conformed(part, other) for part, other in zip(tree, like, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def detach(tree: Tree) -> Tree:
    """The same tree, cut from any graph."""
    return map_tree(lambda leaf: leaf.detach(), tree)


def rows(mask: Tensor, like: Tensor) -> Tensor:
    """A per-sample mask (B,) shaped so that it broadcasts against a leaf (B, ...)."""
    return mask.view(-1, *([1] * (like.dim() - 1)))


@dataclass(frozen=True)
class Spec:
    """How one tree lies in a row: its structure and the shape of each leaf without the batch."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @classmethod
    def of(cls, tree: Tree) -> Spec:
        flat, structure = _pytree.tree_flatten(tree)
        shapes = tuple(tuple(leaf.shape[1:]) for leaf in flat)
        return cls(structure, shapes, tuple(leaf[0].numel() for leaf in flat))

    def pack(self, tree: Tree) -> Tensor:
        """Tree -> (B, n)."""
        parts = [leaf.reshape(leaf.shape[0], -1) for leaf in leaves(tree)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def unpack(self, flat: Tensor) -> Tree:
        """(B, n) -> tree, as views where the memory allows."""
        parts = flat.split(self.sizes, dim=1) if len(self.sizes) > 1 else (flat,)
        shaped = [part.reshape(flat.shape[0], *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return _pytree.tree_unflatten(shaped, self.structure)

    def check(self, tree: Tree, like: Tensor, who: str, expected: str) -> Tree:
        """Raise :class:`CellError` unless ``tree`` has this structure, and the batch, dtype and device of ``like``."""
        flat, structure = _pytree.tree_flatten(tree)
        if structure != self.structure or any(not isinstance(leaf, Tensor) for leaf in flat):
            fail(who, f"{expected} (the same tree as z0)", f"a {type(tree).__name__}", error=CellError)
        for leaf, shape in zip(flat, self.shapes, strict=True):
            wanted = (like.shape[0], *shape)
            if tuple(leaf.shape) != wanted or leaf.dtype != like.dtype or leaf.device != like.device:
                dtype = str(like.dtype).removeprefix("torch.")
                what = f"{expected}: a {dtype} tensor of shape {wanted} on device {like.device}"
                fail(who, what, leaf, error=CellError)
        return tree


def check_tree(argument: str, tree: Tree, batch: int | None = None, like: Tensor | None = None) -> Tree:
    """Every leaf a floating-point tensor with one batch size, dtype and device; no empty batch."""
    flat = leaves(tree)
    if not flat:
        fail(argument, "a tensor, or a tuple, list or dict of tensors", tree, error=ArgumentTypeError)
    for leaf in flat:
        _check_leaf(argument, leaf)

    # All alike, and like the input where there is one.
    first = flat[0] if like is None else like
    size = flat[0].shape[0] if batch is None else batch
    for leaf in flat:
        if leaf.shape[0] != size:
            fail(argument, f"batch size {size} in every tensor", leaf)
        if leaf.dtype != first.dtype:
            fail(argument, f"dtype {str(first.dtype).removeprefix('torch.')}, like the input", describe(leaf))
        if leaf.device != first.device:
            fail(argument, f"device {first.device}, like the input", describe(leaf))
    return tree


def _check_leaf(argument: str, leaf: Any) -> None:
    """One dense floating-point tensor with a batch, and with numbers in it."""
    if not isinstance(leaf, Tensor):
        fail(argument, "a tensor, or a tuple, list or dict of tensors", leaf, error=ArgumentTypeError)
    if leaf.is_complex():
        remedy = "Pass real and imaginary parts as channels, for example torch.view_as_real(x)."
        fail(argument, "floating-point tensors", leaf, remedy, ArgumentTypeError)
    if not leaf.is_floating_point():
        fail(argument, "floating-point tensors", leaf, "Convert it, for example with .float().", ArgumentTypeError)
    if leaf.element_size() < 2:
        fail(
            argument,
            "numbers that can be computed with",
            leaf,
            "Convert it, for example with .float().",
            ArgumentTypeError,
        )
    if leaf.layout != torch.strided:
        fail(argument, "dense tensors", leaf, "Convert it with .to_dense().", error=ArgumentTypeError)
    if leaf.device.type == "meta":
        fail(argument, "tensors on a device that holds their numbers", leaf)
    if leaf.device.type == "mps":
        remedy = "Move it, for example with .cpu(): a solve keeps its small linear systems in float64."
        fail(argument, "tensors on a device with float64 numbers, which MPS has not", leaf, remedy)
    if leaf.dim() == 0:
        fail(argument, "tensors whose first dimension is the batch", leaf)
    if leaf.shape[0] == 0 or leaf.numel() == 0:
        fail(argument, "at least one sample and one number per sample", leaf)


@dataclass(frozen=True)
class Layout:
    """Where each named block lies in the packed vector."""

    names: tuple[str, ...]
    specs: tuple[Spec, ...]

    @classmethod
    def of(cls, **trees: Tree) -> Layout:
        return cls(tuple(trees), tuple(Spec.of(tree) for tree in trees.values()))

    @property
    def sizes(self) -> list[int]:
        return [spec.size for spec in self.specs]

    def join(self, *blocks: Tensor) -> Tensor:
        """Packed blocks (B, n_k) -> (B, D)."""
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    def split(self, v: Tensor) -> tuple[Tensor, ...]:
        """(B, D) -> packed blocks (B, n_k), as views."""
        return v.split(self.sizes, dim=1) if len(self.specs) > 1 else (v,)

    def pack(self, *trees: Tree) -> Tensor:
        """One tree per block -> (B, D)."""
        return self.join(*(spec.pack(tree) for spec, tree in zip(self.specs, trees, strict=True)))

    def unpack(self, v: Tensor) -> tuple[Tree, ...]:
        """(B, D) -> one tree per block."""
        return tuple(spec.unpack(part) for spec, part in zip(self.specs, self.split(v), strict=True))
