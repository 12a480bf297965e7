"""Checks of the audit on gradients: they are there, they are right, and they do not depend on how they are taken."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..objectives import CrossEntropy, Margin
from .evidence import AuditCase, Finding
from .probes import converged, cosine, finite_difference, gradient_in_train_mode, off_the_gradient

FEW = 16  # samples whose slopes are measured in several directions


def zero_gradients(case: AuditCase) -> Iterator[Finding]:
    """Samples without a gradient of the margin, or else with a cross-entropy that is flat."""
    without, flat = _without(case, Margin()), _without(case, CrossEntropy())
    lost = case.target.slope(case.few(FEW), lambda logits: logits.logsumexp(1)).lost.float().mean().item()
    if lost > case.audit.share:
        yield _no_numbers(lost)

    if without > case.audit.share:
        trained = gradient_in_train_mode(case.target, case.x, case.y)
        yield _missing(without, trained)

    # Without any gradient nothing is to be learnt from a flat cross-entropy.
    elif flat > 10 * case.audit.share:
        yield Finding(
            "saturated",
            "warning",
            f"The cross-entropy of {flat:.0%} of the samples is flat to the last bit, so that attacks on it start "
            "blind; use Margin() or DLR().",
            {"share": flat},
        )


def _without(case: AuditCase, objective: Margin | CrossEntropy) -> float:
    """Share of the samples whose gradient of the objective is zero."""
    slope = case.target.slope(case.x, lambda logits: objective(logits, case.y))
    return (slope.gradient.flatten(1).abs().amax(1) == 0).float().mean().item()


def _no_numbers(lost: float) -> Finding:
    return Finding(
        "nan-gradient",
        "error",
        f"The gradients of {lost:.0%} of the images, untouched and attacked, have entries that are NaN or infinite, "
        "and zeros stood in their place: attacks do not move these pixels. Look for a root, a logarithm or a norm of "
        "zero on the way, also in the branch that torch.where does not take.",
        {"share": lost},
    )


def _missing(without: float, trained: float) -> Finding:
    hint = " Look for rounding, arg max, detach() or no_grad() on the way from input to scores."
    if trained > 1.0 - without:
        hint = (
            " In train mode there is one: the model hides its gradient in eval mode; attack "
            "Target(model, train_mode=True)."
        )
    return Finding(
        "zero-gradient",
        "error",
        f"{without:.0%} of the samples have no gradient at all, so gradient attacks on them do nothing.{hint}",
        {"share": without, "share_with_gradient_in_train_mode": trained},
    )


def wrong_gradients(case: AuditCase) -> Iterator[Finding]:
    """A margin that changes by another amount than its gradient says."""
    claimed, measured = finite_difference(case.target, case.x, case.y, case.threat)
    here = claimed > 0
    if not bool(here.any()):
        return

    # The median forgives a few samples at a kink, where no difference quotient can be right.
    apart = ((measured - claimed).abs() / claimed)[here].median().item()
    if apart > 0.25:
        yield Finding(
            "wrong-gradient",
            "error",
            f"Along its own gradient the margin changes by another amount than the gradient says (off by {apart:.0%} "
            "for the median sample), so gradient attacks are misled. Keep Square among the attacks, and attack a "
            "stand-in with an honest gradient: SurrogateAttack(stand_in, PGD()).",
            {"relative_error": apart, "samples": float(here.sum())},
        )
        return

    # A gradient without some of the pixels is right along itself alone.
    x, y = case.x[:FEW], case.y[:FEW]
    share, steady = off_the_gradient(case.target, x, y, case.threat.select(torch.arange(len(x), device=x.device)))
    hidden = (steady & (share > 0.25)).float().mean().item()
    if hidden > 0.5:
        yield Finding(
            "partial-gradient",
            "error",
            f"For {hidden:.0%} of the samples the margin changes in directions in which the gradient is flat: "
            "part of what the scores hang on is hidden from it, by detach(), rounding or a copy to numpy on the way "
            "from some of the pixels. Mend that, or keep Square among the attacks.",
            {"share": hidden},
        )


def adjoint(case: AuditCase) -> Iterator[Finding]:
    """A gradient that another adjoint does not confirm, or one whose linear system is not solved."""
    if not case.seen:
        return
    tight = converged(case.target, case.x.dtype)
    own, exact = case.target.slope(case.x, case.gap), tight.slope(case.x, case.gap)

    # Where there is no gradient at all there is nothing to compare.
    there = own.gradient.flatten(1).abs().amax(1) > 0
    if not bool(there.any()):
        return
    similar = cosine(own.gradient, exact.gradient)[there]
    low = (similar < case.audit.cosine).float().mean().item()
    if low > 10 * case.audit.share:
        yield _elsewhere(low, similar.median().item())

    # Of the implicit gradient itself: was the solve behind it finished?
    left = tight.counts.solves[-1].adjoint_residual
    if left is not None and float(left.median()) > 1e-2:
        yield _unsolved(float(left.median()))


def _elsewhere(low: float, median: float) -> Finding:
    return Finding(
        "adjoint",
        "error",
        f"The gradient depends on how it is taken: for {low:.0%} of the samples that of the model's own adjoint "
        f"points elsewhere than the converged implicit one (median cosine {median:.2f}). Attack "
        "with adjoint=jiio.Implicit() and enough solver steps.",
        {"share": low, "cosine": median},
    )


def _unsolved(residual: float) -> Finding:
    return Finding(
        "adjoint-solve",
        "error",
        f"The linear system behind the implicit gradient is not solved (relative residual {residual:.0e}"
        " for the median sample); the gradient is not that of the equilibrium.",
        {"residual": residual},
    )
