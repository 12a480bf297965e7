"""PerBlock: another constraint or prior for each block of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import ArgumentError, check_instance, fail
from .layout import Spec, Tree
from .prox import AbstractProx, Active, Identity


@dataclass(frozen=True)
class PerBlock(AbstractProx):
    """A prox of its own for each part of a dict or a tuple: ``PerBlock(gain=Box(0, 1), code=L2Ball(3.0))``.

    by_place: for an input that is a tuple or a list, in its order. by_name: for one that is a dict. One of the two;
    parts without a prox are free. A norm runs over its own block only.
    """

    parts: dict[str | int, AbstractProx]

    def __init__(self, *by_place: AbstractProx, **by_name: AbstractProx) -> None:
        if bool(by_place) == bool(by_name):
            fail("PerBlock", "sets by position or by name", "both" if by_place else "none")
        parts: dict[str | int, AbstractProx] = {**dict(enumerate(by_place)), **by_name}
        for name, part in parts.items():
            check_instance(f"PerBlock[{name!r}]", part, AbstractProx)
        object.__setattr__(self, "parts", parts)

    @property
    def separable(self) -> bool:  # type: ignore[override]
        return all(part.separable for part in self.parts.values())

    @property
    def is_set(self) -> bool:  # type: ignore[override]
        return all(part.is_set for part in self.parts.values())

    def bind(self, x: Tree) -> AbstractProx:
        blocks = dict(x) if isinstance(x, dict) else dict(enumerate(x)) if isinstance(x, (tuple, list)) else {}
        unknown = [name for name in self.parts if name not in blocks]
        if unknown:
            names = ", ".join(repr(name) for name in blocks) or "none: it is a single tensor"
            fail("PerBlock", f"the blocks of x ({names})", repr(unknown[0]), error=ArgumentError)
        bound = [self.parts.get(name, Identity()).bind(block) for name, block in blocks.items()]
        return BoundBlocks(tuple(bound), tuple(Spec.of(block).size for block in blocks.values()))

    def rows(self, index: Tensor, x: Tree) -> AbstractProx | None:
        parts = {name: part.rows(index, x[name]) for name, part in self.parts.items()}
        by_name = {str(name): part for name, part in parts.items() if isinstance(name, str) and part is not None}
        by_place = [part for name, part in parts.items() if not isinstance(name, str) and part is not None]
        return PerBlock(*by_place, **by_name) if len(by_name) + len(by_place) == len(parts) else None

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        raise NotImplementedError  # only what is bound to an input knows its blocks

    excess = active = apply  # type: ignore[assignment]


@dataclass(frozen=True)
class BoundBlocks(AbstractProx):
    """PerBlock for inputs whose blocks have these ``sizes``."""

    parts: tuple[AbstractProx, ...]
    sizes: tuple[int, ...]

    @property
    def separable(self) -> bool:  # type: ignore[override]
        return all(part.separable for part in self.parts)

    @property
    def is_set(self) -> bool:  # type: ignore[override]
        return all(part.is_set for part in self.parts)

    def bind(self, x: Tree) -> AbstractProx:
        return self

    def rows(self, index: Tensor, x: Tree) -> AbstractProx | None:
        parts = [part.rows(index, block) for part, block in self._pairs(x)]
        found = tuple(part for part in parts if part is not None)
        return BoundBlocks(found, self.sizes) if len(found) == len(parts) else None

    def _pairs(self, x: Tensor) -> Sequence[tuple[AbstractProx, Tensor]]:
        return list(zip(self.parts, x.split(self.sizes, dim=1), strict=True))

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        return torch.cat([part.apply(block, step) for part, block in self._pairs(x)], dim=1)

    def project(self, x: Tensor) -> Tensor:
        return torch.cat([part.project(block) for part, block in self._pairs(x)], dim=1)

    def excess(self, x: Tensor) -> Tensor:
        return torch.stack([part.excess(block) for part, block in self._pairs(x)]).amax(0)

    def penalty(self, x: Tensor) -> Tensor:
        return torch.stack([part.penalty(block) for part, block in self._pairs(x)]).sum(0)

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        """Every block's own active set, each normal zero outside its block."""
        free, normals, weights, diagonal = [], [], [], []
        slopes = gradient.split(self.sizes, dim=1)
        for i, (part, block) in enumerate(self._pairs(x)):
            one = part.active(block, slopes[i])
            free.append(one.free)
            left, right = sum(self.sizes[:i]), sum(self.sizes[i + 1 :])
            normals += [torch.nn.functional.pad(normal, (left, right)) for normal in one.normals]
            weights += one.weights
            diagonal.append(torch.zeros_like(block) + one.diagonal)
        return Active(torch.cat(free, dim=1), tuple(normals), tuple(weights), torch.cat(diagonal, dim=1))
