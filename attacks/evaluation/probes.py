"""Single measurements for the audit: each asks a model one question and returns numbers."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

import jiio
from jiio.draws import normal_like, uniform_like
from jiio.layout import Spec

from ..base import rows
from ..objectives import margin
from ..target import Prediction, Target
from ..threat import ThreatModel


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(B,) of the angle between two gradients (B, ...); 0 where one of them is zero."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-300)


def finite_difference(target: Target, x: Tensor, y: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """Slope of the margin along its own gradient, (B,) each: what the gradient claims, and what central differences
    over a twentieth of the radius measure.
    """
    gradient = target.slope(x, lambda logits: margin(logits, y)).gradient
    claimed = gradient.flatten(1).double().norm(dim=1)  # the square of a small gradient would vanish
    length = _short(x, threat)
    step = (gradient * rows(length / claimed.clamp_min(torch.finfo(x.dtype).tiny), x)).to(x.dtype)
    return claimed, _difference(target, x, y, step) / (2.0 * length)


def _short(x: Tensor, threat: ThreatModel) -> Tensor:
    """(B,) a twentieth of the radius, as an L2 length."""
    share = {"linf": math.sqrt(x[0].numel()), "l2": 1.0, "l1": 0.25}[threat.norm]
    return 0.05 * share * threat.steps(x, 1.0).flatten(1).amax(1)


def _difference(target: Target, x: Tensor, y: Tensor, step: Tensor) -> Tensor:
    """(B,) of the margins a step (B, ...) ahead and a step behind."""
    ahead, behind = (margin(target.predict(x + sign * step).logits, y) for sign in (1.0, -1.0))
    return ahead - behind


def off_the_gradient(target: Target, x: Tensor, y: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    """By how much margins change otherwise than their gradients say along directions that have nothing to do with
    these, as a share (B,) of the change; and whether the measurement is steady enough to tell, (B,).

    Along itself a gradient without half of its pixels is still the slope of the margin.
    """
    gradient = target.slope(x, lambda logits: margin(logits, y)).gradient.flatten(1).double()
    length, apart, noise, found, claimed = _short(x, threat).double(), [], [], [], []
    for way in _ways(x):
        unit = way.flatten(1).double()
        unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-300)
        steps = [(unit * (n * length)[:, None]).view_as(x).to(x.dtype) for n in (1.0, 2.0)]
        near, far = (_difference(target, x, y, s).double() / (2.0 * n) for n, s in zip((1.0, 2.0), steps, strict=True))

        said = (gradient * unit).sum(1) * length
        for kept, part in ((apart, near - said), (noise, near - far), (found, near), (claimed, said)):
            kept.append(part.square())
    apart, noise, found, claimed = (torch.stack(part).sum(0).sqrt() for part in (apart, noise, found, claimed))

    # Two lengths of step agree where there is a slope to be measured, and not where rounding speaks; scores in coarse
    # steps may not move at all.
    steady = (apart > 3.0 * noise) & (found > 0.5 * claimed)
    return apart / torch.maximum(found, claimed).clamp_min(1e-300), steady


def _ways(x: Tensor) -> list[Tensor]:
    """Directions (B, ...) in which classes lie, towards other images, and some in which nothing does."""
    draws = torch.Generator().manual_seed(0)
    others = [x.roll(k, 0) - x for k in (1, 2) if k < len(x)]
    return [*others, *(torch.randn(x.shape, generator=draws).to(x) for _ in range(2))]


def scores_otherwise(target: Target, x: Tensor) -> Tensor:
    """(B,) whether an image gets other scores where a gradient is asked for than where none is."""
    return differ(target.predict(x).logits, target.slope(x, lambda logits: logits.sum(1)).logits, 0.02)


def gradient_in_train_mode(target: Target, x: Tensor, y: Tensor) -> float:
    """Share of the samples with a gradient in train mode; layers that would remember or draw stay in eval mode."""
    trained = target.variant(train_mode=True)
    with trained.held():
        slope = trained.slope(x, lambda logits: margin(logits, y))
    return (slope.gradient.flatten(1).abs().amax(1) > 0).float().mean().item()


def labels_from_another_start(target: Target, x: Tensor, generator: torch.Generator) -> Prediction:
    """The prediction where the solver starts from Gaussian noise as large as the state."""
    target = target.variant(max_steps=max(200, 4 * target.options["max_steps"]))
    with torch.no_grad():
        near = target.predict(x).state
        spec = Spec.of(near)
        packed = spec.pack(near)
        noise = normal_like(packed, generator)
        size = packed.square().mean(1, keepdim=True).sqrt()
        logits, reached = target.forward(x, spec.unpack(noise * size))
    assert reached is not None
    return Prediction(logits, logits.argmax(1), *reached)


def differ(a: Tensor, b: Tensor, limit: float) -> Tensor:
    """(B,) whether two answers (B, classes) to the same images differ by more than ``limit`` of the range of the scores
    (or what rounding explains). What is NaN or infinite in both is the same.
    """
    spread = torch.where(torch.isfinite(a), a, torch.zeros_like(a))
    room = max(limit, 16 * torch.finfo(a.dtype).eps) * (spread.amax(1) - spread.amin(1))
    same = (a == b) | (torch.isnan(a) & torch.isnan(b)) | ((a - b).abs() <= room[:, None])
    return ~same.all(1)


def asked_again(target: Target, x: Tensor, calls: int) -> Tensor:
    """(B,) whether one of several calls gives other scores than the first."""
    first, *others = (target.predict(x).logits for _ in range(calls))
    return torch.stack([differ(first, other, 1e-3) for other in others]).any(0)


def in_company(target: Target, x: Tensor) -> Tensor:
    """(B,) whether an image gets other scores alone than in a batch.

    Only where its equilibrium was reached both times: elsewhere the last digit decides where the solver stopped, and
    another finding says that it did.
    """
    together, single = target.predict(x), [target.predict(x[i : i + 1]) for i in range(len(x))]
    settled = together.converged & torch.cat([one.converged for one in single])
    return settled & differ(together.logits, torch.cat([one.logits for one in single]), 0.05)


def rolled(target: Target, x: Tensor) -> Tensor:
    """(B,) whether an image gets other scores in another place of the same batch, its equilibrium reached in both."""
    here, there = target.predict(x), target.predict(x.roll(1, 0))
    settled = here.converged & there.converged.roll(-1, 0)
    return settled & differ(here.logits, there.logits.roll(-1, 0), 0.05)


def in_two_orders(target: Target, x: Tensor, threat: ThreatModel) -> Tensor:
    """(B,) whether new images get other scores where images near them were asked about before. Of copies of the model,
    so that each begins with the same memories; none where it cannot be copied.
    """
    draws, threat = torch.Generator().manual_seed(0), threat.select(torch.arange(len(x), device=x.device))
    low, high = (bound.expand_as(x) for bound in threat.box(x))
    noise = uniform_like(x, draws)
    new = torch.where(torch.isfinite(high - low), low + (high - low).nan_to_num(0, 0, 0) * noise, x.roll(1, -1))
    near = threat.random_start(new, draws)

    found = []
    for before in ((near,), ()):
        try:
            twin = target.copied(copy.deepcopy(target.model))
        except Exception:  # whatever a stranger's model says to being copied
            return torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for points in before:
            twin.predict(points)
        found.append(twin.predict(new).logits)
    return differ(found[0], found[1], 1e-3)


def whole_range(threat: ThreatModel, x: Tensor) -> ThreatModel:
    """The threat with a radius so large that every image in the bounds is allowed (where there are bounds; else
    thirty times the radius).
    """
    low, high = threat.box(x)
    span = float((high - low).max())
    terms = {"linf": 1.0, "l2": math.sqrt(x[0].numel()), "l1": float(x[0].numel())}[threat.norm]
    radii = [float(torch.as_tensor(radius).min()) for _, radius in threat.parts(x[0].numel())]
    smallest = min(radius for radius in radii if radius > 0)  # what may not be touched has 0
    return threat.scaled(span * terms / smallest if math.isfinite(span) else 30.0)


def converged(target: Target, dtype: torch.dtype) -> Target:
    """The same model with a solver that has time, and the implicit adjoint."""
    options = target.options
    small = 100 * torch.finfo(dtype).eps
    steps = max(200, 4 * options["max_steps"])
    # A sum of n roundings stands in the way of any tighter residual in single precision.
    tolerance = jiio.Tolerance(small, small)
    exact = jiio.Implicit(tolerance=jiio.Tolerance(small, small), max_steps=steps)
    return target.variant(tolerance=tolerance, max_steps=steps, adjoint=exact)
