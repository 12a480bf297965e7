"""The arithmetic that a solve runs in: its own is full precision, that of the cell may be lower (autocast, TF32)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .layout import Tree, map_tree

TF32 = 2.0**-10  # spacing of its numbers at 1
FLOOR = 2.0  # spacings of the numbers at 1 that a residual may be above zero where it can fall no further


@dataclass(frozen=True)
class Arithmetic:
    """device: the kind that the tensors are on. low: what autocast computes in around a solve; None where it is off."""

    device: str
    low: torch.dtype | None

    @classmethod
    def around(cls, like: Tensor) -> Arithmetic:
        """As it is where the solve of tensors like this one begins."""
        device = like.device.type
        on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        return cls(device, torch.get_autocast_dtype(device) if on else None)

    def full(self) -> contextlib.AbstractContextManager[object]:
        """Autocast off: for all that a solve does between two calls of the cell."""
        if self.low is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device, enabled=False)

    def low_again(self) -> contextlib.AbstractContextManager[object]:
        """Autocast as it was around the solve: for the cell and the objective.

        Without its cache of weights: what that keeps of a call without gradients would cut a later one off from them.
        """
        if self.low is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.low, cache_enabled=False)

    def exact(self) -> Arithmetic:
        """The same device, with the cell in the precision of its weights."""
        return replace(self, low=None)

    def asked(self, rtol: float, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
        """For what is computed once around a solve: without autocast where that could not meet the tolerance."""
        return self.full() if self.coarse(rtol, dtype) else contextlib.nullcontext()

    def coarse(self, rtol: float, dtype: torch.dtype) -> bool:
        """Whether the low precision of the cell cannot meet a relative tolerance."""
        return self.low is not None and rtol < self.floor(dtype)

    def raised(self, tree: Tree) -> Tree:
        """The same tree in single precision, where autocast made its tensors lower; a graph goes on."""
        if self.low is None:
            return tree
        return map_tree(
            lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.dtype == self.low else leaf, tree
        )

    def floor(self, dtype: torch.dtype) -> float:
        """How near zero a residual comes, over the size of what it is a difference of."""
        spacing = torch.finfo(dtype).eps
        if self.low is not None:
            spacing = max(spacing, torch.finfo(self.low).eps)
        if self.device == "cuda" and dtype == torch.float32 and "tf32" in _precisions():
            spacing = max(spacing, TF32)
        return FLOOR * spacing


def _precisions() -> Iterator[str]:
    """What products and convolutions in float32 are really computed in on a GPU."""
    for part in (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None)):
        yield str(getattr(part, "fp32_precision", "ieee"))


@contextlib.contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Leave ``torch.inference_mode``, whose tensors do not say whether they were written to; gradients stay off."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def ordinary(tree: Tree) -> Tree:
    """The same tree, with a copy of every tensor that was made in ``torch.inference_mode``."""
    with ordinary_tensors():
        return map_tree(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf, tree)
