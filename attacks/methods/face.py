"""The face of a model for attacks of other packages: what they expect of a classifier, and when they can be used.

They expect images in [0, 1], single precision, models whose parameters tell their device, and the global random state.
The face shows them just that, whatever the bounds, the normalisation, the type and the mode; what they return is
verified as every result is (:mod:`jiio.attacks.base`).
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import fail

from ..target import Target
from ..threat import ThreatModel

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}  # ours -> theirs


class Face(nn.Module):
    """The model as the tools want it: one parameter that says where it lives, scores that they may write to. The model
    itself is not a part of it, so that nobody changes its mode.
    """

    def __init__(self, target: Target, x: Tensor, threat: ThreatModel) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros((), device=x.device, dtype=torch.float32), requires_grad=False)
        self.eval()
        self._call = lambda unit: target.forward(self.from_unit(unit).to(x.dtype))[0]
        self._dtype = torch.get_default_dtype()
        low, high = threat.box(x)
        self.low, self.span = low, float((high - low).max())
        self.plain = self.span == 1.0 and not bool((low != 0).any())

    def from_unit(self, unit: Tensor) -> Tensor:
        """[0, 1] -> the bounds of the threat."""
        return unit if self.plain else unit.to(self.low) * self.span + self.low

    def to_unit(self, x: Tensor) -> Tensor:
        """The bounds of the threat -> [0, 1], single precision, as the tools compute."""
        unit = x if self.plain else (x - self.low) / self.span
        return unit.float().clamp(0.0, 1.0).contiguous()

    def forward(self, unit: Tensor) -> Tensor:
        with default_dtype(self._dtype):  # the model is asked in the world that it was made in
            return self._call(unit).float().clone()


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors have this type inside; the tools take it for granted that it is single precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def check_faced(name: str, x: Tensor, threat: ThreatModel) -> None:
    """Raise unless x and the threat can be shown as images in [0, 1] under one radius."""
    if x.dim() != 4:
        fail("x", f"images (B, C, H, W), as {name} is made for", x, "Use the attacks of this package for vectors.")
    if isinstance(threat.radius, (Tensor, tuple)):
        fail("threat.radius", f"one number for all samples, as {name} takes no other", threat.radius)
    low, high = threat.box(x)
    span = high - low
    if not bool(torch.isfinite(span).all()) or float(span.max() - span.min()) > 1e-6 * float(span.max()):
        came = f"a span from {float(span.min()):g} to {float(span.max()):g}"
        remedy = "A ball of one radius would not stay one."
        fail("threat.bounds", f"finite bounds of one width, as {name} works in [0, 1]", came, remedy)


def check_classes(name: str, model: Target, x: Tensor, least: int) -> None:
    """Raise where the model has fewer than ``least`` classes."""
    if least <= 2:
        return  # every classifier has two
    with model.held():
        classes = model.predict(x[:1]).logits.shape[1]
    if classes < least:
        remedy = "Use APGD() and Square() of this package."
        fail("model(x)", f"scores of at least {least} classes for {name}", f"{classes}", remedy)


def check_squares(name: str, x: Tensor, threat: ThreatModel) -> None:
    """Raise where the Square attack of the other packages ends in an error: in L2 and L1 it tiles the image five by
    five, and places windows, without looking whether they fit.
    """
    height, width = x.shape[2:]
    if threat.norm == "linf" or (height >= 5 and width >= 5 and _tiles_fit(height, width)):
        return
    remedy = "Use Square() or the suite 'standard' of this package, which take any size, or Linf."
    expected = f"images of a size that the Square attack in {name} can tile in {NORMS[threat.norm]} (16, 20, 28, 32)"
    fail("x", expected, f"{height} x {width} pixels", remedy)


def _tiles_fit(height: int, width: int) -> bool:
    side = height // 5
    margin = (height - 5 * side) // 2
    tiled = side == 1 or all(margin + side * (n // side) <= n for n in (height, width))

    # The first window: 0.8 of the area, an odd number of pixels on each side.
    window = max(round(math.sqrt(0.8 * height * width)), 3)
    return tiled and window + (window % 2 == 0) <= min(height, width)


def package(name: str, extra: str = "attacks") -> Any:
    """The installed package, or a sentence that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = f'Install the extra: pip install "jiio[{extra}]".'
        fail("attacks", f"the package {name}", f"no such package ({error})", remedy)


def seeded(seed: int | None, generator: torch.Generator) -> int:
    """``seed``, or one from the generator where it is None."""
    if seed is not None:
        return seed
    return int(torch.randint(2**31, (), generator=generator, device=generator.device))
