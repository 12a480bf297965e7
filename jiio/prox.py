"""Proximal maps: the constraint or the non-smooth prior on the input.

``prox(x, step) = argmin_u  g(u) + |u - x|^2 / (2 step)`` for a convex g; for a set it is the projection. Each prox
knows its *active set* at a solution, which is what the exact outer gradient (:class:`jiio.KKT`) needs: the tangent
space of the active constraints and the curvature they add.

Norms run over the whole sample: a tree of tensors is packed to (B, n) first, and all mathematics below is on (B, n).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .checks import ArgumentError, ArgumentTypeError, GradientError, check_number, fail
from .layout import Spec, Tree, check_tree, conformed, leaves, map_tree, same_tree
from .persample import share_of


@dataclass(frozen=True)
class Active:
    """The active set of one prox at one point.

    free: (B, n) bool, coordinates that may move. normals: directions (B, n) orthogonal to the tangent space.
    weights: for each normal, the curvature of its surface (1 for a sphere, 0 for a flat face).
    diagonal: (B, n) or a number, curvature of a smooth prior.
    """

    free: Tensor
    normals: tuple[Tensor, ...] = ()
    weights: tuple[float, ...] = ()
    diagonal: Tensor | float = 0.0

    def project(self, w: Tensor) -> Tensor:
        """Orthogonal projection of w (B, n) onto the tangent space."""
        w = w * self.free
        for normal in self._basis():
            w = w - normal * (normal * w).sum(1, keepdim=True)
        return w

    def curvature(self, gradient: Tensor) -> Tensor:
        """(B, n) diagonal that the active constraints add to the Hessian, by the multipliers of ``gradient`` (B, n)."""
        total = torch.zeros_like(gradient) + self.diagonal
        if not any(self.weights):
            return total
        # The multipliers: gradient + sum_i force_i normal_i = 0 on the free coordinates, all at once: faces meet askew.
        normals = torch.stack([normal * self.free for normal in self.normals], dim=1)  # (B, K, n)
        gram = torch.bmm(normals, normals.transpose(1, 2))
        wide = torch.promote_types(gram.dtype, torch.float32)  # no linear algebra in half precision
        inverse = torch.linalg.pinv(gram.to(wide), hermitian=True).to(gram.dtype)
        force = -(inverse @ torch.bmm(normals, gradient.unsqueeze(2)))[:, :, 0]
        weights = torch.tensor(self.weights, dtype=force.dtype, device=force.device)
        return total + (weights * force.clamp_min(0.0)).sum(1, keepdim=True)

    def _basis(self) -> list[Tensor]:
        """The normals made orthonormal on the free coordinates, (B, n) each; zero where one adds nothing."""
        basis: list[Tensor] = []
        for normal in self.normals:
            direction = normal * self.free
            for other in basis:
                direction = direction - other * (other * direction).sum(1, keepdim=True)
            length = direction.norm(dim=1, keepdim=True)
            tiny = torch.finfo(length.dtype).eps
            basis.append(torch.where(length > tiny, direction / length.clamp_min(tiny), torch.zeros_like(direction)))
        return basis


class AbstractProx(ABC):
    """Base of every prox. Subclasses are frozen dataclasses that implement the (B, n) methods.

    Called with a tree of tensors (B, ...) and a step it gives the prox of the tree.
    """

    separable = False  # acts coordinate by coordinate, so that a diagonal metric (Adam, sign) keeps its fixed points
    is_set = True  # the indicator of a set: the step does not matter

    @abstractmethod
    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        """prox of packed x (B, n); step: a number or (B, 1)."""

    @abstractmethod
    def excess(self, x: Tensor) -> Tensor:
        """(B,) distance-like violation of packed x; 0 when feasible."""

    @abstractmethod
    def active(self, x: Tensor, gradient: Tensor) -> Active:
        """Active set at packed x, given the gradient (B, n) of the smooth part there."""

    def project(self, x: Tensor) -> Tensor:
        """The feasible point nearest to packed x (B, n); x itself for a prior without a constraint."""
        return self.apply(x, 1.0) if self.is_set else x

    def penalty(self, x: Tensor) -> Tensor:
        """(B,) value of g on packed x, where g is finite."""
        return x.new_zeros(x.shape[0])

    def bind(self, x: Tree) -> AbstractProx:
        """The same prox with every tensor parameter packed to the shape of ``x``; raises where that cannot be."""
        changes: dict[str, Any] = {}
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            if isinstance(value, (Tensor, tuple, list, dict)):
                name = f"{type(self).__name__}.{entry.name}"
                changes[entry.name] = _fit(name, value, x, entry.name)
        return dataclasses.replace(self, **changes) if changes else self  # type: ignore[type-var]

    def rows(self, index: Tensor, x: Tree) -> AbstractProx | None:
        """The same prox for the samples ``index`` (k,) of x, trees of the whole batch; None where that cannot be told.

        Numbers, tensors, and other proxes as fields are taken apart here; one with other fields, or with a ``bind`` of
        its own, says for itself.
        """
        return None if type(self).bind is not AbstractProx.bind else rows_of_fields(self, index, x)

    def __call__(self, x: Tree, step: float = 1.0) -> Tree:
        """prox of a tree of floating-point tensors x (B, ...). Errors: ArgumentError, ArgumentTypeError for others."""
        spec = Spec.of(check_tree("x", x))
        return spec.unpack(self.bind(x).apply(spec.pack(x), step))

    def violation(self, x: Tree) -> Tensor:
        """(B,) by how much a tree of tensors x breaks the constraint. Errors: as of a call."""
        return self.bind(x).excess(Spec.of(check_tree("x", x)).pack(x))


def rows_of_fields(prox: Any, index: Tensor, x: Tree) -> Any:
    """The record ``prox`` with every parameter for the samples ``index`` (k,) of x; None where a field is neither a
    number nor tensors nor a prox.
    """
    flat, changes = leaves(x), {}
    batch = flat[0].shape[0]
    for entry in dataclasses.fields(prox):
        value = getattr(prox, entry.name)
        if value is None or isinstance(value, (bool, int, float, str)):
            continue
        if entry.name == "radius" and isinstance(value, Tensor):
            each, here = value.numel() == batch, index.to(value.device)
            value = value.reshape(batch, -1).index_select(0, here) if each else value
        elif isinstance(value, Tensor):
            value = share_of(value, index, batch, flat[0].dim())
        elif isinstance(value, AbstractProx):
            value = value.rows(index, x)
        else:
            try:
                pairs = conformed(value, x), x
                value = map_tree(lambda v, leaf: share_of(v, index, batch, leaf.dim()), *pairs)
            except (AttributeError, TypeError, ValueError):
                value = None
        if value is None:
            return None
        changes[entry.name] = value
    return dataclasses.replace(prox, **changes) if changes else prox


def _fit(argument: str, value: Tree, x: Tree, name: str) -> Tensor:
    """A parameter packed to the shape of ``x``, (B, n); a radius, one per sample, to (B, 1). Bounds may be infinite."""
    for leaf in leaves(value):
        _check_parameter(argument, leaf, finite=name not in ("low", "high"))
    first = leaves(x)[0]
    if name == "radius":
        batch = first.shape[0]
        if not isinstance(value, Tensor) or value.numel() not in (1, batch):
            fail(argument, f"a number or a tensor of {batch} radii, one per sample", value)
        return value.to(first).reshape(-1, 1).expand(batch, 1)

    # One tensor stands for every leaf of x; a tree has to be the tree of x.
    if isinstance(value, Tensor):
        value = map_tree(lambda _: value, x)
    try:
        value = conformed(value, x)
        if not same_tree(value, x):
            raise ValueError("another tree")
        wide = map_tree(lambda leaf, v: v.to(leaf).expand_as(leaf), x, value)
    except (RuntimeError, ValueError) as error:
        shapes = [tuple(leaf.shape) for leaf in leaves(x)]
        came = ", ".join(str(tuple(leaf.shape)) for leaf in leaves(value))
        raise ArgumentError(f"{argument}: expected something that broadcasts to {shapes}, got {came}.") from error
    return Spec.of(x).pack(wide)


def _check_parameter(argument: str, leaf: Any, finite: bool) -> None:
    """A constant tensor without NaN, and without infinities where it must be ``finite``."""
    if not isinstance(leaf, Tensor):
        fail(argument, "a number or tensors", leaf, error=ArgumentTypeError)
    if leaf.requires_grad:
        remedy = "Detach it; gradients with respect to a constraint are not defined here."
        fail(argument, "tensors that do not require grad", "one that does", remedy, GradientError)
    if bool(torch.isnan(leaf).any()):
        fail(argument, "values without NaN", leaf)
    if finite and not bool(torch.isfinite(leaf).all()):
        fail(argument, "finite values", leaf)


def check_radius(name: str, radius: Any) -> None:
    """A non-negative number, or a tensor of them (one per sample)."""
    if isinstance(radius, Tensor):
        if not bool((radius >= 0).all()):
            fail(name, "radii of at least 0", f"a smallest radius of {float(radius.min()):g}")
    else:
        check_number(name, radius, 0.0)


@dataclass(frozen=True)
class Identity(AbstractProx):
    """No constraint and no prior."""

    separable = True

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        return x

    def excess(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0])

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        return Active(torch.ones_like(x, dtype=torch.bool))
