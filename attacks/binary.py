"""Classifiers that give one score: the two scores that attacks work on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jiio.checks import CellError, check_instance, check_integer, fail


class BinaryLogits(nn.Module):
    """The scores (B, 2) of a yes-or-no question: 0 for no (label 0), the model's own score for yes (label 1), so that
    softmax of the two is the sigmoid of the one.

    model: x -> one logit per sample, (B,) or (B, 1), or with ``label`` a row of logits (B, labels), one question each
    (multi-label), of which this is the one asked about. Labels y are 0 or 1.
    """

    def __init__(self, model: nn.Module, *, label: int | None = None) -> None:
        super().__init__()
        self.model = check_instance("model", model, nn.Module)
        self.label = None if label is None else check_integer("label", label, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2) for inputs x."""
        yes = self._one(self.model(x), x)
        return torch.stack([torch.zeros_like(yes), yes], dim=1)

    def _one(self, scores: Tensor, x: Tensor) -> Tensor:
        """The score (B,) of the question."""
        if self.label is None:
            if scores.shape not in ((len(x),), (len(x), 1)):
                remedy = "For one of several labels pass BinaryLogits(model, label=...)."
                fail("model(x)", f"one score per sample, ({len(x)},) or ({len(x)}, 1)", scores, remedy, CellError)
            return scores.reshape(len(x))
        if scores.dim() != 2 or len(scores) != len(x) or scores.shape[1] <= self.label:
            fail("model(x)", f"scores ({len(x)}, labels) with a label {self.label}", scores, error=CellError)
        return scores[:, self.label]
