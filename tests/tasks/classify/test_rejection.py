"""A classifier that may say nothing: what it refuses, by closed forms, and what is refused of its arguments."""

# pyright: reportArgumentType=false
# Wrong types are the point of the last table.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from jiio.tasks.classify.rejection import Rejection, accuracy_at, evidence, scores_of, softmax


class Pixels(nn.Module):
    """The scores are the first three pixels, times twenty."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * x.flatten(1)[:, :3]


def images(*rows: tuple[float, float, float]) -> Tensor:
    return torch.cat([torch.tensor(rows), torch.zeros(len(rows), 1)], 1).view(-1, 1, 2, 2)


SHOWN = images((0.9, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.3), (0.1, 0.0, 0.0))


def test_evidence_and_softmax_are_their_closed_forms() -> None:
    scores = scores_of(Pixels(), SHOWN)
    assert torch.allclose(scores, 20 * SHOWN.flatten(1)[:, :3])
    total = math.exp(18.0) + 2
    assert abs(float(evidence(scores)[0]) - math.log(total)) < 1e-5
    assert abs(float(softmax(scores)[3]) - math.exp(2.0) / (math.exp(2.0) + 2)) < 1e-6


@pytest.mark.parametrize("by", ["evidence", "softmax"])
def test_a_share_is_kept_and_the_least_sure_refused(by: str) -> None:
    for share, expected in ((1.0, [0, 1, 2, 0]), (0.75, [0, 1, 2, -1]), (0.5, [0, 1, -1, -1]), (0.01, [0, -1, -1, -1])):
        assert Rejection.keeping(Pixels(), SHOWN, share, by=by).labels(SHOWN).tolist() == expected


def test_a_score_that_broke_down_is_refused() -> None:
    class Broken(Pixels):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).log() * torch.tensor([math.nan, 1.0, 1.0])

    assert Rejection(Broken(), -1e9).labels(SHOWN).tolist() == [-1] * 4


def test_more_images_than_a_chunk_keep_their_order() -> None:
    many = SHOWN.repeat(100, 1, 1, 1)
    assert torch.equal(scores_of(Pixels(), many), 20 * many.flatten(1)[:, :3])


def test_accuracy_on_the_surest() -> None:
    sure, right = torch.tensor([0.1, 0.9, 0.5, 0.3]), torch.tensor([False, True, True, False])
    assert [accuracy_at(sure, right, share) for share in (0.25, 0.5, 0.75, 1.0)] == [1.0, 1.0, 2 / 3, 0.5]


SURE, RIGHT = torch.rand(4), torch.ones(4, dtype=torch.bool)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no model": (lambda: Rejection("net", 0.0), "Rejection.model"),
    "a threshold that is NaN": (lambda: Rejection(Pixels(), math.nan), "Rejection.threshold"),
    "a threshold that is a word": (lambda: Rejection(Pixels(), "high"), "Rejection.threshold"),
    "an unknown way to be sure": (lambda: Rejection(Pixels(), 0.0, "feeling"), "Rejection.by"),
    "keeping nothing": (lambda: Rejection.keeping(Pixels(), SHOWN, 0.0), "share"),
    "keeping more than all": (lambda: Rejection.keeping(Pixels(), SHOWN, 1.5), "share"),
    "keeping by an unknown way": (lambda: Rejection.keeping(Pixels(), SHOWN, by="mood"), "by"),
    "no images": (lambda: scores_of(Pixels(), SHOWN[:0]), "images"),
    "an image without a batch": (lambda: scores_of(Pixels(), SHOWN[0]), "images"),
    "images that are bytes": (lambda: scores_of(Pixels(), SHOWN.byte()), "images"),
    "images with NaN": (lambda: scores_of(Pixels(), SHOWN * math.nan), "images"),
    "a list of images": (lambda: Rejection(Pixels(), 0.0).labels(SHOWN.tolist()), "images"),
    "another number of answers": (lambda: accuracy_at(SURE, RIGHT[:3], 0.5), "sure, right"),
    "nothing to be sure of": (lambda: accuracy_at(SURE[:0], RIGHT[:0], 0.5), "sure, right"),
    "a table of scores": (lambda: accuracy_at(SURE[None], RIGHT[None], 0.5), "sure, right"),
    "no share": (lambda: accuracy_at(SURE, RIGHT, 0.0), "share"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_sentence(case: str) -> None:
    action, words = BAD[case]
    with pytest.raises(jiio.JiioError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
