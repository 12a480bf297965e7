"""Checks of the audit on the model itself: its scores are numbers, and a function of the image and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..inside import does_more
from .evidence import AuditCase, Finding
from .probes import asked_again, in_company, in_two_orders, rolled, scores_otherwise
from .records import ROBUST

CALLS = 8  # of the same images: a model that tosses a coin per call is missed once in 128 times
FEW = 8  # samples that are looked at in several ways


def unusable_scores(case: AuditCase) -> Iterator[Finding]:
    """Scores that are NaN or infinite, over all samples."""
    clean, attacked = (
        sum(int((entry.tensors[name] < 0).sum()) for entry in case.entries) for name in ("clean_label", "label")
    )
    if clean + attacked:
        yield Finding(
            "nan-scores",
            "error",
            f"The scores of {clean} clean and {attacked} attacked images of {case.samples} are NaN or infinite. They "
            "count as misclassified, and no gradient says anything near them: look for an overflow, a logarithm or a "
            "division, or compute in a wider type.",
            {"clean": float(clean), "attacked": float(attacked)},
        )


def level_scores(case: AuditCase) -> Iterator[Finding]:
    """Samples that stand only because arg max takes the first of equal scores."""
    level = sum(
        int(((entry.tensors["status"] == ROBUST) & (entry.tensors["margin"] == 0)).sum()) for entry in case.entries
    )
    if level > case.audit.share * case.samples:
        yield Finding(
            "ties",
            "error",
            f"{level} of {case.samples} samples count as robust although another score is as high as the right one: "
            "arg max takes the first of them, other software the last. Look for clipped, rounded or saturated "
            "scores, and evaluate what stands before them.",
            {"level": float(level)},
        )


def probabilities(case: AuditCase) -> Iterator[Finding]:
    """Scores that went through a softmax."""
    scores = case.target.predict(case.x[:FEW]).logits.double()
    sums = (scores.sum(1) - 1.0).abs().amax().item()
    if bool((scores >= 0).all()) and sums < 1e-3:
        yield Finding(
            "probabilities",
            "warning",
            "The scores are probabilities: where the model is sure, they are flat, and attacks on the cross-entropy of "
            "them are weak. Leave the softmax at the end out, or take its logarithm.",
            {"sum_off_by": sums},
        )


def one_answer(case: AuditCase) -> Iterator[Finding]:
    """Answers that vary when asked again, that hang on whether a gradient is wanted, on what was asked before, or on
    who else is in the batch: the first of these that is found, as each makes the next ones look true.
    """
    few = case.few(FEW)
    varies = _share(asked_again(case.target, few, CALLS))
    if varies > case.audit.share:
        yield _random(varies)
        return

    shown = _share(scores_otherwise(case.target, few))
    if shown > case.audit.share:
        yield _two_faces(shown)
        return

    remembers = max(_share(rolled(case.target, few)), _share(in_two_orders(case.target, case.x[:FEW], case.threat)))
    if remembers > case.audit.share:
        yield _memory(remembers)
        return

    # Only now: what is random or remembers answers otherwise alone, too.
    company = _share(in_company(case.target, few))
    if company > case.audit.share:
        yield _company(company)


def _share(mask: Tensor) -> float:
    return mask.float().mean().item()


def _random(share: float) -> Finding:
    return Finding(
        "random",
        "error",
        f"{share:.0%} of the images get other scores each time they are asked about: something in the model draws at "
        "random, or goes on from the last call. One draw is no figure, and gradients of other draws mislead: take the "
        "randomness out, or wrap the model in a module that averages over many draws from fixed seeds.",
        {"share": share},
    )


def _two_faces(share: float) -> Finding:
    return Finding(
        "grad-mode",
        "error",
        f"{share:.0%} of the images get other scores where a gradient is asked for than where none is: attacks see "
        "another model than the one that is judged. Look for what hangs on torch.is_grad_enabled(), requires_grad or "
        "inference mode, and attack what is in use.",
        {"share": share},
    )


def _memory(share: float) -> Finding:
    return Finding(
        "memory",
        "error",
        f"{share:.0%} of the images get other scores when other images were asked about before, or in another order: "
        "the model answers from a cache or from a state that it keeps. Take that out, or wrap it in a module that "
        "forgets before every call.",
        {"share": share},
    )


def _company(share: float) -> Finding:
    return Finding(
        "batch-dependent",
        "error",
        f"{share:.0%} of the images get other scores alone than in a batch: an attack on the batch is an attack on "
        "another model. Give layers that use statistics of the batch running ones, or evaluate batches as they come "
        "when the model is in use, of one image each if so.",
        {"share": share},
    )


def around_the_equilibrium(case: AuditCase) -> Iterator[Finding]:
    """Equilibrium models that do more than their parts say, or whose solve nobody saw."""
    strange = [type(one).__name__ for one in case.target.inner if does_more(one)]
    if strange:
        yield Finding(
            "forward",
            "warning",
            f"{strange[0]} has a forward of its own, or hooks: the whole of it is what was called and judged, no "
            "certificate applies, and attacks on the equilibrium go through it. Wrap a plain model in a module that "
            "does the rest, if checks of its parts are wanted.",
            {"models": float(len(strange))},
        )

    # It may have a loop of its own around its cell.
    if case.target.implicit and not case.seen:
        yield Finding(
            "unseen",
            "warning",
            "There is an EquilibriumModel in the model, and no call of its solve was seen: whether equilibria were "
            "reached is not known, and the checks of solver and adjoint are left out. Ask for equilibria by solve().",
            {"models": float(len(case.target.inner))},
        )
