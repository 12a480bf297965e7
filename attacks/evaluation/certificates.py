"""Certified radii: perturbations that provably do not change the prediction, for cells with a known Lipschitz bound.

Let u(x) be the injection, z*(u) the equilibrium and W the rows of a linear head. With

    |u(x') - u(x)| <= a |x' - x|,     |z*(u') - z*(u)| <= b |u' - u|     (L2 norms)

the gap between the right class y and another class j moves by at most |w_y - w_j| a b |x' - x|, so that no perturbation
shorter than

    min over j of  ((w_y - w_j)^T z* + c_y - c_j) / (|w_y - w_j| a b)

changes the prediction. (With one Lipschitz constant L for all scores this is the margin over sqrt(2) L; the pairwise
form is never smaller.) b is 1 / m for the monotone cell (Pabbaraju, Winston and Kolter 2021) and s / (1 - c) for a cell
of slope s that contracts by c < 1. The solver returns z, not z*: a contraction by c with residual r has
|z - z*| <= r / (1 - c), and that much is taken off the gap first. |x' - x|_2 <= |x' - x|_1, and
<= sqrt(n) |x' - x|_inf, which gives the radii in the other norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import jiio
from jiio.models import AbstractCell, ClassifierHead

from ..target import Target
from ..threat import ThreatModel


@dataclass(frozen=True)
class Certificate:
    """radius (B,): no perturbation of this length, in the norm of the threat, changes the prediction; 0 where the clean
    prediction is wrong. certified (B,): radius at or above that of the threat. lipschitz: of the state in the input.
    """

    radius: Tensor
    certified: Tensor
    lipschitz: float


def certify(model: nn.Module | Target, x: Tensor, y: Tensor, threat: ThreatModel) -> Certificate | None:
    """Certified radii for x (B, ...), y (B,); None where no finite bound is known.

    model: x -> scores (B, classes). threat: the norm of the radii, and the radius to compare with; one ball for all of
    x.

    Known: a linear classifier (``torch.nn.Linear`` after any flattening), and an :class:`jiio.EquilibriumModel` whose
    injection and cell offer ``lipschitz``, whose cell offers ``contraction``, and whose head is linear in the state.
    """
    target = Target.of(model)
    found = _linear(target.model) or _equilibrium(target)
    if found is None or len(threat.parts(x[0].numel())) > 1:
        return None
    layer, slope, contraction = found
    with target.held(), torch.no_grad():
        logits, reached = target.forward(x)
        off = _state_error(target, x, None if reached is None else reached.state, contraction)
    slope *= float((1.0 / target.std).max())

    radius = _reach(layer, logits, y, off, slope)
    if threat.norm == "linf":  # |x' - x|_2 <= sqrt(n) |x' - x|_inf
        radius = radius / math.sqrt(x[0].numel())
    asked = threat.steps(x, 1.0).flatten(1).amax(1).double()
    return Certificate(radius, radius >= asked + threat.slack(x), slope)


def _reach(layer: nn.Linear, logits: Tensor, y: Tensor, off: Tensor, slope: float) -> Tensor:
    """(B,) how far in L2 the input may go before another class can have the better score; 0 where one has it already.

    off: (B,) a bound on |z - z*|. slope: of the state in the input.
    """
    weight, scores = layer.weight.detach().double(), logits.double()
    gaps = scores.gather(1, y[:, None]) - scores  # (B, classes)
    pairs = (weight[y][:, None, :] - weight[None]).norm(dim=2)  # (B, classes)

    # What the solver left undone, and what rounding may have added in norms, scores and gaps, is taken off.
    rounding = 64 * torch.finfo(logits.dtype).eps * math.sqrt(weight.shape[1])
    gaps = gaps - pairs * off[:, None] - rounding * scores.abs().amax(1, keepdim=True)

    own = torch.arange(weight.shape[0], device=y.device)[None] == y[:, None]
    reach = torch.where(own, torch.inf, gaps / (pairs * slope * (1.0 + rounding)).clamp_min(1e-300))
    radius = reach.amin(1).clamp_min(0.0)
    return torch.where(torch.isfinite(radius), radius, torch.zeros_like(radius))


def _linear(model: nn.Module) -> tuple[nn.Linear, float, float] | None:
    """A model that is one linear layer, perhaps after a flattening."""
    parts = [p for p in model if not isinstance(p, nn.Flatten)] if isinstance(model, nn.Sequential) else [model]
    if len(parts) == 1 and isinstance(parts[0], nn.Linear):
        return parts[0], 1.0, 0.0
    return None


def _equilibrium(target: Target) -> tuple[nn.Linear, float, float] | None:
    model = target.model
    # A hook, or a forward or solve of its own, may do what no bound knows of.
    if not target.plain or not isinstance(model, jiio.EquilibriumModel) or not isinstance(model.cell, AbstractCell):
        return None
    head = model.head
    layer = head if isinstance(head, nn.Linear) else None
    if isinstance(head, ClassifierHead) and not head.branches:
        layer = head.linear
    bounds = [getattr(part, "lipschitz", None) for part in (model.inject, model.cell)]
    contraction = getattr(model.cell, "contraction", None)
    if layer is None or contraction is None or not contraction < 1.0 or None in bounds:
        return None
    slope = float(bounds[0]) * float(bounds[1])  # type: ignore[arg-type]
    return (layer, slope, float(contraction)) if math.isfinite(slope) else None


def _state_error(target: Target, x: Tensor, state: Any, contraction: float) -> Tensor:
    """(B,) a bound on |z - z*|: the residual at z over 1 - contraction."""
    if state is None:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    model = target.equilibrium
    z = state.double()
    image = model.cell(state, model.inject(target.normalised(x))).double()
    rounding = torch.finfo(x.dtype).eps * math.sqrt(z.shape[1]) * z.norm(dim=1)
    return ((image - z).norm(dim=1) + rounding) / (1.0 - contraction)
