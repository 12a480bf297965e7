"""What still stands of a batch: levels, the worst image, and what counts as resistance, by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jiio.attacks import AttackResult, Prediction, ThreatModel
from jiio.attacks.evaluation.records import BROKEN, ROBUST, UNCONVERGED, WRONG
from jiio.attacks.evaluation.standing import Standing

Y = torch.tensor([0, 0, 0, 0])


def predicted(labels: Sequence[int], steps: int = 1, converged: Sequence[bool] | None = None) -> Prediction:
    n = len(labels)
    reached = torch.ones(n, dtype=torch.bool) if converged is None else torch.tensor(converged)
    whole = torch.full((n,), steps)
    return Prediction(torch.zeros(n, 2), torch.tensor(labels), reached, whole, torch.full((n,), 1e-6), None)


def result(
    x: Tensor, labels: Sequence[int], margins: Sequence[float], settled: Sequence[bool] | None = None
) -> AttackResult:
    after = predicted(labels, steps=7)
    n = len(labels)
    return AttackResult(
        x=x,
        success=after.label != 0,
        prediction=after,
        margin=torch.tensor(margins),
        clean=after,
        clean_margin=torch.zeros(n),
        distance=torch.zeros(n),
        broken=torch.zeros(n, dtype=torch.bool),
        settled=torch.ones(n, dtype=torch.bool) if settled is None else torch.tensor(settled),
        cost={},
    )


def begun(labels: Sequence[int] = (0, 0, 0, 1), converged: Sequence[bool] | None = None) -> Standing:
    return Standing(torch.zeros(4, 2), Y, predicted(labels, converged=converged), levels=3, main=1)


def test_what_is_wrong_untouched_never_stood() -> None:
    standing = begun()
    assert standing.left(0).tolist() == [0, 1, 2]
    assert standing.fell.tolist() == [3, 3, 3, -1] and standing.by.tolist() == [-1] * 4
    assert standing.status().tolist() == [ROBUST, ROBUST, ROBUST, WRONG]


def test_a_sample_falls_once_at_its_level_to_its_attack() -> None:
    standing = begun()
    standing.offer(result(torch.ones(3, 2), [0, 1, 0], [-1.0, 1.0, -1.0]), standing.left(0), 0, 5)
    assert standing.left(0).tolist() == standing.left(2).tolist() == [0, 2]
    standing.offer(result(2 * torch.ones(2, 2), [1, 0], [1.0, -1.0]), standing.left(1), 1, 6)
    standing.offer(result(3 * torch.ones(1, 2), [1], [1.0]), standing.left(2), 2, 7)
    assert standing.fell.tolist() == [1, 0, 2, -1] and standing.by.tolist() == [6, 5, 7, -1]
    # What fell beyond the threat's own radius is robust, and its worst image is not the one from out there.
    assert standing.status().tolist() == [BROKEN, BROKEN, ROBUST, WRONG]
    assert standing.worst[:, 0].tolist() == [2.0, 1.0, 1.0, 0.0]


def test_the_worst_image_is_the_strongest_not_the_last() -> None:
    standing = begun()
    for factor, margins in ((1.0, [-3.0, -3.0, -3.0]), (2.0, [-4.0, -2.0, -3.0])):
        standing.offer(result(factor * torch.ones(3, 2), [0, 0, 0], margins), standing.left(1), 1, 0)
    assert standing.worst[:, 0].tolist() == [1.0, 2.0, 1.0, 0.0]
    assert standing.margin.tolist() == [-3.0, -2.0, -3.0, float("-inf")]
    kept = standing.tensors(ThreatModel("linf", 1.0))
    assert kept["steps"].tolist() == [7, 7, 7, 1] and kept["clean_steps"].tolist() == [1, 1, 1, 1]
    assert kept["distance"].tolist() == [1.0, 2.0, 1.0, 0.0]


def test_what_has_not_converged_has_not_resisted() -> None:
    standing = begun((0, 0, 0, 0), converged=(False, True, True, True))
    settled = [True, False, False, True]
    standing.offer(result(torch.ones(4, 2), [0, 0, 1, 0], [-1.0, -1.0, 1.0, -1.0], settled), standing.left(1), 1, 0)
    assert standing.status().tolist() == [UNCONVERGED, UNCONVERGED, BROKEN, ROBUST]
    # Beyond the threat's own radius an equilibrium may be missed without harm.
    standing.offer(result(torch.ones(3, 2), [0, 0, 0], [-1.0] * 3, [False] * 3), standing.left(2), 2, 0)
    assert standing.status().tolist() == [UNCONVERGED, UNCONVERGED, BROKEN, ROBUST]
