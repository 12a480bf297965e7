"""The checks of the audit, one function each: they look at a :class:`.evidence.Case` and yield findings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

import jiio
from jiio.outputs.seeds import generator

from ..methods.gradient import APGD
from ..methods.search import Square
from ..objectives import CrossEntropy, Margin
from ..statistics import interval
from ..target import Target
from .evidence import Case, Finding
from .probes import cosine, finite_difference, gradient_in_train_mode, labels_from_another_start, whole_range
from .report import BROKEN, ROBUST, UNCONVERGED, WRONG

# -- gradients


def zero_gradients(case: Case) -> Iterator[Finding]:
    sizes = {}
    for objective in (Margin(), CrossEntropy()):
        slope = case.target.slope(case.x, lambda logits, o=objective: o(logits, case.y))
        sizes[type(objective).__name__] = slope.gradient.flatten(1).abs().amax(1)
    without, flat = ((sizes[name] == 0).float().mean().item() for name in ("Margin", "CrossEntropy"))
    if without > case.audit.share:
        trained = gradient_in_train_mode(case.target, case.x, case.y)
        hint = (
            " In train mode there is one: the model hides its gradient in eval mode."
            if trained > 1.0 - without
            else " Look for rounding, arg max, detach() or no_grad() on the way from input to scores."
        )
        yield Finding(
            "zero-gradient",
            "error",
            f"{without:.0%} of the samples have no gradient at all, so gradient attacks on them do nothing.{hint}",
            {"share": without, "share_with_gradient_in_train_mode": trained},
        )
    elif flat > 10 * case.audit.share:
        yield Finding(
            "saturated",
            "warning",
            f"The cross-entropy of {flat:.0%} of the samples is flat to the last bit, so that attacks on it start "
            "blind; use Margin() or DLR().",
            {"share": flat},
        )


def wrong_gradients(case: Case) -> Iterator[Finding]:
    claimed, measured = finite_difference(case.target, case.x, case.y, case.threat)
    here = claimed > 0
    if not bool(here.any()):
        return
    apart = ((measured - claimed).abs() / claimed)[here].median().item()
    if apart > 0.25:
        yield Finding(
            "wrong-gradient",
            "error",
            f"Along its own gradient the margin changes by another amount than the gradient says (off by {apart:.0%} "
            "for the median sample), so gradient attacks are misled.",
            {"relative_error": apart, "samples": float(here.sum())},
        )


def adjoint(case: Case) -> Iterator[Finding]:
    if not case.target.implicit:
        return
    score = case.gap
    tight = _tight(case.target, case.x.dtype)
    own, exact = case.target.slope(case.x, score), tight.slope(case.x, score)
    similar = cosine(own.gradient, exact.gradient)
    low = (similar < case.audit.cosine).float().mean().item()
    if low > 10 * case.audit.share:
        yield Finding(
            "adjoint",
            "error",
            f"The gradient depends on how it is taken: for {low:.0%} of the samples that of the model's own adjoint "
            f"points elsewhere than the converged implicit one (median cosine {similar.median().item():.2f}). Attack "
            "with adjoint=jiio.Implicit() and enough solver steps.",
            {"share": low, "cosine": similar.median().item()},
        )
    left = tight.counts.solves[-1].adjoint_residual
    if left is not None and float(left.median()) > 1e-2:
        yield Finding(
            "adjoint-solve",
            "error",
            f"The linear system behind the implicit gradient is not solved (relative residual "
            f"{float(left.median()):.0e}"
            " for the median sample); the gradient is not that of the equilibrium.",
            {"residual": float(left.median())},
        )


# -- the equilibrium


def solver_budget(case: Case) -> Iterator[Finding]:
    if not case.target.implicit:
        return
    points, labels = torch.cat([case.x, case.worst]), torch.cat([case.y, case.y])
    own = case.target.predict(points)
    longer = _tight(case.target, case.x.dtype).predict(points)
    moved = own.label != longer.label
    share = moved.float().mean().item()
    if share > case.audit.share:
        now, then = ((p.label == labels).float().mean().item() for p in (own, longer))
        yield Finding(
            "solver-budget",
            "error",
            f"{share:.0%} of the predictions change when the solver gets more steps and a tighter tolerance (accuracy "
            f"{now:.1%} becomes {then:.1%} over clean and attacked points): the prediction is not that of the "
            "equilibrium.",
            {"share": share, "accuracy": now, "accuracy_converged": then},
        )


def start(case: Case) -> Iterator[Finding]:
    if not case.target.implicit:
        return
    points = torch.cat([case.x, case.worst])
    longer = _tight(case.target, case.x.dtype).predict(points)
    starts = labels_from_another_start(case.target, points, generator(case.seed, "audit", "start"))
    both = longer.converged & starts.converged
    share = (both & (starts.label != longer.label)).float().mean().item()
    if share > case.audit.share:
        yield Finding(
            "start",
            "error",
            f"{share:.0%} of the predictions change when the solver starts elsewhere: there are several equilibria, "
            "and an attack can be lucky or unlucky with the start.",
            {"share": share},
        )


def unconverged(case: Case) -> Iterator[Finding]:
    clean = sum(int((~r[0]["clean_converged"]).sum()) for r in case.records)
    attacked = sum(int((~r[0]["converged"]).sum()) for r in case.records)
    apart = case.total(UNCONVERGED)
    if clean + attacked + apart:
        yield Finding(
            "unconverged",
            "warning",
            f"The equilibrium was not reached for {clean} clean and {attacked} attacked of {case.samples} samples; "
            f"{apart} that were not broken are counted apart and not as robust.",
            {"clean": float(clean), "attacked": float(attacked), "apart": float(apart)},
        )


# -- the attacks


def search_wins(case: Case) -> Iterator[Finding]:
    free = [i for i, attack in enumerate(case.attacks) if attack.gradient_free]
    if len(free) == len(case.attacks):
        return
    taken = sum(int(sum(((r[0]["by"] == i) & (r[0]["status"] == BROKEN)).sum() for i in free)) for r in case.records)
    total = case.samples
    if not free and case.threat.norm != "l1" and len(case.threat.parts(case.x[0].numel())) == 1:
        left = torch.nonzero(case.status == ROBUST)[:, 0].to(case.x.device)
        if len(left):
            draws = generator(case.seed, "audit", "search")
            square, part = Square(queries=case.audit.queries), case.threat.select(left)
            result = square(case.target, case.x[left], case.y[left], part, generator=draws)
            taken, total = int(result.success.sum()), len(case.x)
    if taken > max(1.0, case.audit.share * total):
        yield Finding(
            "search-wins",
            "error",
            f"A random search without gradients breaks {taken} of {total} samples that every gradient attack left "
            "standing: the gradients are masked.",
            {"broken": float(taken), "samples": float(total)},
        )


def labels(case: Case) -> Iterator[Finding]:
    truth = torch.cat([r[0]["y"] for r in case.records])
    right = case.samples - case.total(WRONG)
    chance = torch.bincount(truth).max().item() / len(truth)
    low, _ = interval(right, case.samples)
    if low <= chance:
        yield Finding(
            "labels",
            "error",
            f"Clean accuracy ({right / case.samples:.1%}) is not above that of the most frequent label ({chance:.1%}): "
            "are labels, scaling or normalisation of the inputs those of the training?",
            {"clean": right / case.samples, "most_frequent": chance},
        )


def large_radius(case: Case) -> Iterator[Finding]:
    threat = whole_range(case.threat, case.x)
    left = case.accuracy(tuple(a for a in case.attacks if not a.gradient_free) or case.attacks, threat, "large")
    if left > 2.5 * case.audit.share:
        yield Finding(
            "large-radius",
            "error",
            f"{left:.0%} of the samples resist even at a radius that covers the whole range of images, where every "
            "classifier must fail: the attacks do not work on this model.",
            {"accuracy": left, "radius": float(torch.as_tensor(threat.radius).max())},
        )


def monotone(case: Case) -> Iterator[Finding]:
    attack = next((a for a in case.attacks if not a.gradient_free), case.attacks[0])
    factors = (0.5, 1.0, 2.0)
    kept = [case.accuracy((attack,), case.threat.scaled(f), f"radius {f}") for f in factors]
    if any(after > before + 2.5 * case.audit.share for before, after in itertools.pairwise(kept)):
        told = ", ".join(f"{a:.1%} at {f:g}" for f, a in zip(factors, kept, strict=True))
        yield Finding(
            "radius",
            "error",
            f"A larger radius helps the attack less: {attack.name} leaves {told} times the radius.",
            {f"accuracy_at_{f:g}": a for f, a in zip(factors, kept, strict=True)},
        )


def stronger(case: Case) -> Iterator[Finding]:
    left = torch.nonzero(case.status == ROBUST)[:, 0].to(case.x.device)
    if not len(left):
        return
    attack, draws = APGD(steps=case.audit.steps, objective=Margin()), generator(case.seed, "audit", "steps")
    result = attack(case.target, case.x[left], case.y[left], case.threat.select(left), generator=draws)
    broken = int(result.success.sum())
    if broken > max(1.0, 2.5 * case.audit.share * len(case.x)):
        yield Finding(
            "steps",
            "warning",
            f"Auto-PGD with {case.audit.steps} steps breaks {broken} of {len(case.x)} samples more than the "
            "attacks given: they are too weak for this model, so use more steps, restarts or objectives.",
            {"broken": float(broken), "samples": float(len(case.x))},
        )


def certificate(case: Case) -> Iterator[Finding]:
    against = sum(
        int((r[0]["certified"] & (r[0]["status"] == BROKEN)).sum()) for r in case.records if "certified" in r[0]
    )
    if against:
        yield Finding(
            "certificate",
            "error",
            f"{against} samples were broken inside their certified radius: the certificate or the model is wrong.",
            {"samples": float(against)},
        )


def _tight(target: Target, dtype: torch.dtype) -> Target:
    """The same model with a solver that has time, and the implicit adjoint."""
    options = target.options
    small = 100 * torch.finfo(dtype).eps
    steps = max(200, 4 * options["max_steps"])
    # A sum of n roundings stands in the way of any tighter residual in single precision.
    tolerance = jiio.Tolerance(small, small)
    exact = jiio.Implicit(tolerance=jiio.Tolerance(small, small), max_steps=steps)
    return target.variant(tolerance=tolerance, max_steps=steps, adjoint=exact)


CHECKS = (
    zero_gradients,
    wrong_gradients,
    adjoint,
    solver_budget,
    start,
    unconverged,
    search_wins,
    labels,
    large_radius,
    monotone,
    stronger,
    certificate,
)
