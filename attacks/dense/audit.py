"""Whether the figures of a segmentation can be believed: gradients are there and right, answers hang on the image."""

from __future__ import annotations

import torch
from torch import Tensor

from ..evaluation.evidence import Finding
from ..evaluation.probes import differ
from ..threat import ThreatModel
from .attack import PixelCrossEntropy
from .target import DenseTarget

FEW = 4  # images that are looked at
SMALL = 0.05  # of the radius: a step over which a slope is measured


def audited(target: DenseTarget, x: Tensor, y: Tensor, threat: ThreatModel) -> list[Finding]:
    """What the first images of the first batch show."""
    x, y = x[:FEW], y[:FEW]
    threat = threat.select(torch.arange(len(x), device=x.device))
    together, again = (target.predict(x).logits for _ in range(2))
    if bool(differ(together.flatten(1), again.flatten(1), 1e-3).any()):
        return [_found("random", "images get other scores each time they are asked about: take the randomness out.")]
    single = torch.cat([target.predict(x[i : i + 1]).logits for i in range(len(x))])
    if bool(differ(together.flatten(1), single.flatten(1), 0.05).any()):
        told = "images get other scores alone than in a batch: give layers that use statistics of the batch fixed ones."
        return [_found("batch-dependent", told)]
    return _of_gradients(target, x, y, threat)


def _of_gradients(target: DenseTarget, x: Tensor, y: Tensor, threat: ThreatModel) -> list[Finding]:
    """The slope of the loss along its own gradient, claimed and measured."""
    loss = PixelCrossEntropy()
    found = target.slope(x, lambda scores: loss(scores, y, 0.0))
    claimed = found.gradient.flatten(1).double().norm(dim=1)
    if bool((claimed == 0).any()):
        told = "images have no gradient at all: look for rounding, arg max, detach() or no_grad() in the model."
        return [_found("zero-gradient", told)]
    if bool(found.lost.any()):
        told = "gradients have entries that are NaN or infinite, and zeros stood in their place."
        return [_found("nan-gradient", told)]

    # Along the steepest direction of the norm, as the attacks go.
    step = threat.steps(x, SMALL) * threat.steepest(found.gradient, x)
    said = (found.gradient * step).flatten(1).double().sum(1)
    ahead, behind = (loss(target.predict(x + sign * step).logits, y, 0.0).double() for sign in (1.0, -1.0))
    apart = ((ahead - behind) / 2 - said).abs() / said.abs().clamp_min(1e-300)
    if float(apart.median()) > 0.25:
        told = "the loss changes by another amount than its gradient says, so gradient attacks are misled."
        return [_found("wrong-gradient", told)]
    return []


def _found(name: str, told: str) -> Finding:
    return Finding(name, "error", f"Of the first images, {told}", {})
