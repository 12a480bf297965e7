"""Classes to reach that the user chooses, and classifiers with one score or several labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import jiio
from attack_models import CLASSES, blobs, convolutional, equilibrium
from jiio.attacks import APGD, PGD, BinaryLogits, JointAttack, Target, TargetedMargin, ThreatModel
from jiio.attacks.runs import Run, restarted

X, Y = blobs(8, seed=5)
WIDE = ThreatModel("linf", 0.35)


def test_the_chosen_class_is_approached() -> None:
    """Aimed at a class, its score over the right one ends higher than aimed at any other."""
    target, gaps = Target(convolutional()), torch.zeros(CLASSES, CLASSES)  # aimed at, measured for
    for aim in range(CLASSES):
        attack = PGD(steps=12, objective=TargetedMargin(), targets=(aim,), best=False, random_start=False)
        with target.held():
            found = attack.run(target, X, Y, ThreatModel("linf", 0.15), torch.Generator())
            logits = target.predict(found).logits
        for other in range(CLASSES):
            gaps[aim, other] = (logits - logits.gather(1, Y[:, None]))[other != Y, other].mean()
    assert bool((gaps.argmax(0) == torch.arange(CLASSES)).all()), gaps


@pytest.mark.parametrize("kind", [PGD, APGD, JointAttack])
def test_attacks_take_classes(kind) -> None:
    attack = kind(steps=8, objective=TargetedMargin(), targets=(1, 3))
    assert "targets=(1, 3)" in attack.name
    assert int(attack(equilibrium(), X, Y, WIDE).success.sum()) >= 6


def test_each_class_in_turn_and_never_the_own_one() -> None:
    """In the order given; a sample of that very class goes for its likeliest wrong one."""
    seen: list[Tensor] = []

    def once(run: Run) -> Tensor:
        assert run.aimed is not None
        seen.append(run.aimed.clone())
        return run.x

    attack = PGD(objective=TargetedMargin(), targets=(2, 0))
    target = Target(convolutional())
    restarted(attack, once, Run(target, X, Y, ThreatModel("linf", 0.01)), torch.Generator())
    right = target.predict(X).label == Y
    assert bool(right.all()) and [len(aimed) for aimed in seen] == [8, 8]
    for chosen, aimed in zip((2, 0), seen, strict=True):
        assert bool((aimed != Y).all()) and bool((aimed[chosen != Y] == chosen).all())


@pytest.mark.parametrize("targets", [(), (-1,), (1.5,), "ab", 0])
def test_classes_that_are_none(targets) -> None:
    with pytest.raises((jiio.ArgumentError, jiio.ArgumentTypeError), match=r"^PGD\.targets: expected"):
        PGD(targets=targets)


def test_a_class_that_the_model_lacks() -> None:
    with pytest.raises(jiio.ArgumentError, match=r"^targets: expected classes from 0 to 3, as the model has, got 4"):
        PGD(steps=1, objective=TargetedMargin(), targets=(4,))(convolutional(), X, Y, WIDE)


class One(nn.Module):
    """One logit: is the first corner the bright one?"""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        scores = convolutional()(x)
        return (scores[:, 0] - scores[:, 1:].logsumexp(1)).view(len(x), *self.shape)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_score(shape: tuple[int, ...]) -> None:
    """The two scores mean the same probability, and attacks flip the answer."""
    model, y = BinaryLogits(One(shape)).eval(), (Y == 0).long()
    with torch.no_grad():
        one = One(()).forward(X)
        assert torch.allclose(model(X).softmax(1)[:, 1], torch.sigmoid(one), atol=1e-6)
    result = PGD(steps=20)(model, X, y, WIDE)
    assert int(result.success.sum()) >= 7
    with torch.no_grad():
        assert torch.equal(result.prediction.label, (One(()).forward(result.x) > 0).long())


def test_one_of_several_labels() -> None:
    model = BinaryLogits(convolutional(), label=2)
    with torch.no_grad():
        assert torch.equal(model(X)[:, 1], convolutional()(X)[:, 2])
    assert int(PGD(steps=20)(model, X, model(X).argmax(1), WIDE).success.sum()) >= 1
    with pytest.raises(jiio.CellError, match=r"^model\(x\): expected scores \(8, labels\) with a label 9"):
        BinaryLogits(convolutional(), label=9)(X)
    with pytest.raises(jiio.CellError, match=r"^model\(x\): expected one score per sample.*label=\.\.\."):
        BinaryLogits(convolutional())(X)


def test_an_equilibrium_behind_one_score() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = equilibrium()

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)[:, 0] - self.model(x)[:, 1]

    target = Target(BinaryLogits(Head()))
    assert target.implicit and bool(target.predict(X).converged.all())


class Reusing(nn.Module):
    """Answers in the same memory every time."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.held = convolutional(), torch.zeros(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.held.copy_(self.model(x))


def test_an_answer_stays_what_it_was() -> None:
    x, _ = blobs(4, seed=1)
    target = Target(Reusing())
    with torch.no_grad():
        first, _ = target.forward(x[:2])
        second, _ = target.forward(x[2:])
        assert torch.equal(first, convolutional()(x[:2])) and not torch.equal(first, second)
