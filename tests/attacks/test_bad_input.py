"""Unusable input, one table: each row raises its type in one sentence: the argument, what was expected, what came."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# Wrong types are the point here.

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import jiio
from attack_models import Pair, blobs, convolutional, equilibrium
from jiio import ArgumentError, ArgumentTypeError, CellError, GradientError
from jiio.attacks import (
    APGD,
    DLR,
    PGD,
    AdjointEnsemble,
    Audit,
    AutoAttack,
    IntermediateAttack,
    JointAttack,
    Margin,
    MultiViewThreat,
    SimultaneousAttack,
    SingleViewAttack,
    Square,
    Target,
    TargetedDLR,
    TargetedMargin,
    ThreatModel,
    TorchAttack,
    TwoStageAttack,
    evaluate,
    interval,
    multi_view_classifier,
)

X, Y = blobs(3, seed=0)
NAN, INF = float("nan"), float("inf")
LINF = ThreatModel("linf", 0.1)


def attack(x: Any = X, y: Any = Y, model: Any = None, threat: Any = LINF, how: Any = None, **options: Any) -> Any:
    """An attack that would be fine, but for what is changed."""
    return (how or PGD(steps=1))(model or convolutional(), x, y, threat, **options)


def measure(batches: Any = None, attacks: Any = None, **options: Any) -> Any:
    settings = {"generator": torch.Generator(), "audit": None} | options
    model, threat = settings.pop("model", convolutional()), settings.pop("threat", LINF)
    batches = [(X, Y)] if batches is None else batches
    return evaluate(model, batches, threat, [PGD(steps=1)] if attacks is None else attacks, **settings)


class Scores(nn.Module):
    """Whatever it is told to return."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Any) -> Any:
        return self.value(x)


def constant(shape: tuple[int, ...], **options: Any) -> nn.Module:
    return Scores(lambda x: torch.zeros(shape, **options))


two = Scores(lambda x: x.flatten(1)[:, :2])
meta = nn.Linear(2, 2, device="meta")

# name -> (what is done, the exception, the argument that the message names, words that it contains)
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str, str]] = {
    # threat models
    "unknown norm": (lambda: ThreatModel("l3", 1.0), ArgumentError, "ThreatModel.norm", "'linf'"),
    "norm a number": (lambda: ThreatModel(2, 1.0), ArgumentError, "ThreatModel.norm", "'l2'"),
    "radius zero": (lambda: ThreatModel("l2", 0.0), ArgumentError, "ThreatModel.radius", "above 0"),
    "radius negative": (lambda: ThreatModel("l2", -1.0), ArgumentError, "ThreatModel.radius", "above 0"),
    "radius NaN": (lambda: ThreatModel("l2", NAN), ArgumentError, "ThreatModel.radius", "above 0"),
    "radius a word": (lambda: ThreatModel("l2", "8/255"), ArgumentTypeError, "ThreatModel.radius", "above 0"),
    "radii with a zero": (
        lambda: ThreatModel("l2", torch.tensor([1.0, 0.0])), ArgumentError, "ThreatModel.radius", "above 0"
    ),
    "radii of another batch": (
        lambda: attack(threat=ThreatModel("l2", torch.ones(5))), ArgumentError, "ThreatModel.radius", "3 of them"
    ),
    "bounds reversed": (
        lambda: ThreatModel("l2", 1.0, (1.0, 0.0)), ArgumentError, "ThreatModel.bounds", "in this order"
    ),
    "bounds equal": (lambda: ThreatModel("l2", 1.0, (0.5, 0.5)), ArgumentError, "ThreatModel.bounds", "low below high"),
    "bounds one number": (lambda: ThreatModel("l2", 1.0, 1.0), ArgumentTypeError, "ThreatModel.bounds", "a pair"),
    "bounds words": (lambda: ThreatModel("l2", 1.0, ("0", "1")), ArgumentTypeError, "ThreatModel.bounds", "numbers"),
    "bounds NaN": (lambda: ThreatModel("l2", 1.0, (0.0, NAN)), ArgumentError, "ThreatModel.bounds", "NaN"),
    "bounds of other channels": (
        lambda: attack(threat=ThreatModel("l2", 1.0, (torch.zeros(3), torch.ones(3)))),
        ArgumentError, "ThreatModel.bounds (low)", "(1, 6, 6)",
    ),
    "images outside the bounds": (lambda: attack(2 * X), ArgumentError, "x", "inside the bounds [0, 1]"),
    "images of 0 to 255": (lambda: attack((255 * X).round()), ArgumentError, "x", "Scale the images"),
    # images, labels, model
    "images whole numbers": (lambda: attack((X > 0.5).long()), ArgumentTypeError, "x", "floating-point"),
    "images a list": (lambda: attack(X.tolist()), ArgumentTypeError, "x", "floating-point"),
    "images NaN": (lambda: attack(X + NAN), ArgumentError, "x", "finite"),
    "no images": (lambda: attack(X[:0], Y[:0]), ArgumentError, "x", "at least one sample"),
    "one image without batch": (lambda: attack(X[0, 0, 0], Y[:1]), ArgumentError, "x", "batch first"),
    "labels out of range": (lambda: attack(y=Y + 4), ArgumentError, "y", "from 0 to 3"),
    "labels negative": (lambda: attack(y=Y - 9), ArgumentError, "y", "from 0 to 3"),
    "labels floats": (lambda: attack(y=Y.float()), ArgumentTypeError, "y", "int64"),
    "labels one-hot": (lambda: attack(y=torch.eye(4, dtype=torch.int64)[Y]), ArgumentError, "y", "shape (3,)"),
    "labels of another batch": (lambda: attack(y=Y[:2]), ArgumentError, "y", "one label per sample"),
    "labels on another device": (lambda: attack(y=Y.to("meta")), ArgumentError, "y", "like x"),
    "model on another device": (lambda: attack(X.flatten(1), model=meta), ArgumentError, "x", "images on meta"),
    "model a function": (lambda: attack(model=lambda x: x), ArgumentTypeError, "model", "torch.nn.Module"),
    "model returns a tuple": (lambda: attack(model=Pair()), CellError, "model(x)", "one tensor of scores"),
    "model returns one score": (lambda: attack(model=constant((3, 1))), CellError, "model(x)", "at least 2 classes"),
    "model returns maps": (lambda: attack(model=constant((3, 4, 6, 6))), CellError, "model(x)", "(3, classes)"),
    "model returns another batch": (lambda: attack(model=constant((5, 4))), CellError, "model(x)", "(3, classes)"),
    "model returns labels": (
        lambda: attack(model=constant((3, 4), dtype=torch.int64)), CellError, "model(x)", "scores"
    ),
    "threat a number": (lambda: attack(threat=0.1), ArgumentTypeError, "threat", "instance of ThreatModel"),
    "generator a seed": (lambda: attack(generator=3), ArgumentTypeError, "generator", "instance of Generator"),
    "solver settings for a plain network": (
        lambda: Target(convolutional(), max_steps=10), ArgumentError, "max_steps", "an EquilibriumModel"
    ),
    "adjoint a word": (lambda: Target(equilibrium(), adjoint="kkt"), ArgumentTypeError, "adjoint", "AbstractAdjoint"),
    "std zero": (lambda: Target(convolutional(), std=0.0), ArgumentError, "std", "above 0"),
    "mean of a picture": (
        lambda: Target(convolutional(), mean=torch.zeros(6, 6)), ArgumentError, "mean", "per channel"
    ),
    "means of other channels": (
        lambda: attack(model=Target(convolutional(), mean=torch.zeros(3))), ArgumentError, "mean and std", "1 of them"
    ),
    # attacks
    "no steps": (lambda: PGD(steps=0), ArgumentError, "PGD.steps", "at least 1"),
    "steps a float": (lambda: APGD(steps=10.0), ArgumentTypeError, "APGD.steps", "whole number"),
    "step zero": (lambda: PGD(step=0.0), ArgumentError, "PGD.step", "above 0"),
    "objective a word": (lambda: PGD(objective="ce"), ArgumentTypeError, "PGD.objective", "AbstractObjective"),
    "objective a class": (lambda: PGD(objective=Margin), ArgumentTypeError, "PGD.objective", "not the class"),
    "adjoint of PGD a word": (lambda: PGD(adjoint="implicit"), ArgumentTypeError, "PGD.adjoint", "AbstractAdjoint"),
    "adjoint on a plain network": (
        lambda: attack(how=PGD(adjoint=jiio.Implicit())), ArgumentError, "PGD.adjoint", "EquilibriumModel"
    ),
    "DLR of two classes": (
        lambda: attack(y=Y % 2, model=two, how=PGD(objective=DLR())), ArgumentError, "DLR", "3 classes"
    ),
    "targeted DLR of two classes": (
        lambda: attack(y=Y % 2, model=two, how=PGD(objective=TargetedDLR())), ArgumentError, "TargetedDLR", "4 classes"
    ),
    "joint attack on a plain network": (
        lambda: attack(how=JointAttack()), ArgumentTypeError, "model", "use PGD or APGD"
    ),
    "intermediate attack on a plain network": (
        lambda: attack(how=IntermediateAttack()), ArgumentTypeError, "model", "EquilibriumModel"
    ),
    "joint rule a word": (lambda: JointAttack(rule="sign"), ArgumentTypeError, "JointAttack.rule", "AbstractRule"),
    "no states": (lambda: IntermediateAttack(states=()), ArgumentError, "IntermediateAttack.states", "a tuple"),
    "targeted intermediate": (
        lambda: IntermediateAttack(objective=TargetedMargin()), ArgumentError, "IntermediateAttack.objective", "without"
    ),
    "no inner steps": (lambda: SimultaneousAttack(inner=0), ArgumentError, "SimultaneousAttack.inner", "at least 1"),
    "no adjoints": (lambda: AdjointEnsemble(adjoints=()), ArgumentError, "AdjointEnsemble.adjoints", "a tuple"),
    "detached adjoint gives no gradient": (
        lambda: AdjointEnsemble(adjoints=(jiio.KKT(),))(equilibrium(), X, Y, LINF), GradientError, "adjoint", "plain"
    ),
    "square of area zero": (lambda: Square(area=0.0), ArgumentError, "Square.area", "above 0"),
    "square in L1": (
        lambda: attack(threat=ThreatModel("l1", 1.0), how=Square()), ArgumentError, "Square", "linf or l2"
    ),
    # other people's
    "unknown torchattack": (lambda: TorchAttack("Magic"), ArgumentError, "TorchAttack.attack", "'FGSM'"),
    "its radius": (
        lambda: TorchAttack("PGD", {"eps": 1}), ArgumentError, "TorchAttack.options", "come from the threat"
    ),
    "its options a list": (lambda: TorchAttack("PGD", ["steps"]), ArgumentTypeError, "TorchAttack.options", "mapping"),
    "autoattack version": (lambda: AutoAttack(version="best"), ArgumentError, "AutoAttack.version", "'standard'"),
    # views
    "no sizes": (lambda: MultiViewThreat("l2", 1.0), ArgumentTypeError, "MultiViewThreat.sizes", "per view"),
    "radii of other views": (
        lambda: MultiViewThreat("l2", (1.0,), sizes=(2, 3)), ArgumentError, "MultiViewThreat.radius", "2 of them"
    ),
    "all radii zero": (
        lambda: MultiViewThreat("l2", 0.0, sizes=(2, 3)), ArgumentError, "MultiViewThreat.radius", "one view at least"
    ),
    "views of another size": (
        lambda: attack(threat=MultiViewThreat("l2", 1.0, sizes=(2, 3))), ArgumentError, "x", "2 + 3 numbers"
    ),
    "fusion unknown": (lambda: multi_view_classifier((2, 3), 4, fusion="max"), ArgumentError, "fusion", "'mean'"),
    "no single models": (
        lambda: TwoStageAttack((), PGD()), ArgumentTypeError, "TwoStageAttack.models", "one model per view"
    ),
    "single view of one image": (lambda: attack(how=SingleViewAttack(PGD())), ArgumentTypeError, "threat", "MultiView"),
    # evaluation
    "empty loader": (lambda: measure([]), ArgumentError, "batches", "at least one batch"),
    "used-up iterator": (lambda: measure(iter(())), ArgumentError, "batches", "used up"),
    "batches a tensor": (lambda: measure(X), ArgumentTypeError, "batches", "pairs"),
    "batches one pair": (lambda: measure((X, Y)), ArgumentTypeError, "batches", "For one batch pass [(x, y)]"),
    "batches of three": (lambda: measure([(X, Y, Y)]), ArgumentTypeError, "batches", "pairs"),
    "no attacks": (lambda: measure(attacks=[]), ArgumentError, "attacks", "at least one attack"),
    "attacks one attack": (lambda: measure(attacks=PGD()), ArgumentTypeError, "attacks", "a list"),
    "attacks a class": (lambda: measure(attacks=[PGD]), ArgumentTypeError, "attacks", "not the class"),
    "attacks twice": (lambda: measure(attacks=[PGD(), PGD()]), ArgumentError, "attacks", "PGD twice"),
    "curve at zero": (lambda: measure(curve=(0.0, 1.0)), ArgumentError, "curve", "above 0"),
    "audit True": (lambda: measure(audit=True), ArgumentTypeError, "audit", "instance of Audit"),
    "audit of no samples": (lambda: Audit(samples=0), ArgumentError, "Audit.samples", "at least 1"),
    "evaluation generator a seed": (lambda: measure(generator=3), ArgumentTypeError, "generator", "Generator"),
    "norm without a radius": (lambda: evaluate(convolutional(), [(X, Y)], "linf"), ArgumentError, "radius", "8 / 255"),
    "norm misspelt": (
        lambda: evaluate(convolutional(), [(X, Y)], "lin", 0.1), ArgumentError, "ThreatModel.norm", "mean 'linf'?"
    ),
    "two radii": (
        lambda: evaluate(convolutional(), [(X, Y)], LINF, 0.1, [PGD()]), ArgumentError, "radius", "beside a ThreatModel"
    ),
    "bounds twice": (lambda: measure(bounds=(0.0, 1.0)), ArgumentError, "bounds", "beside a ThreatModel"),
    "suite misspelt": (lambda: measure(attacks="standart"), ArgumentError, "attacks", "Did you mean 'standard'?"),
    "deq suite on a plain network": (
        lambda: measure(attacks="deq"), ArgumentError, "attacks", "EquilibriumModel.of"
    ),
    "square among others in L1": (
        lambda: measure(attacks=[PGD(), Square()], threat=ThreatModel("l1", 1.0)), ArgumentError, "Square", "another"
    ),
    "joint attack among others": (
        lambda: measure(attacks=[PGD(), JointAttack()]), ArgumentTypeError, "model", "EquilibriumModel"
    ),
    "about the weather": (lambda: measure(about={"sky": "grey"}), ArgumentTypeError, "about", "command"),
    "part beyond the parts": (lambda: measure(shard=(4, 4), state_path="s"), ArgumentError, "shard", "from 0 to 3"),
    "part without a folder": (lambda: measure(shard=(0, 4)), ArgumentError, "state_path", "share"),
    "part a word": (lambda: measure(shard="1/4"), ArgumentError, "shard", "a pair"),
    "evaluation threat a number": (lambda: measure(threat=0.1), ArgumentTypeError, "threat", "ThreatModel"),
    "evaluation labels out of range": (lambda: measure([(X, Y + 4)]), ArgumentError, "y", "from 0 to 3"),
    "more successes than trials": (lambda: interval(5, 3), ArgumentError, "successes", "from 0 to 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(name: str) -> None:
    do, error, argument, words = BAD[name]
    with pytest.raises(error) as caught:
        do()
    text = str(caught.value)
    assert re.match(re.escape(argument) + r": expected .+, got .+\.", text, re.DOTALL), text
    assert words in text, text
    assert "\n" not in text and len(text) < 400


def test_the_table_has_the_kinds_asked_for() -> None:
    assert len(BAD) >= 30


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 1.0]))])
def test_autoattack_wants_images_and_one_width(bounds: Any) -> None:
    pytest.importorskip("pyautoattack", reason="needs the extra: pip install jiio[attacks]")
    flat = torch.full((2, 2), 0.5)
    model = nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match=r"^x: expected images \(B, C, H, W\)"):
        AutoAttack()(model, flat, Y[:2] % 2, ThreatModel("linf", 0.1))
    if isinstance(bounds[0], torch.Tensor):
        wide = nn.Sequential(nn.Flatten(), nn.Linear(72, 4))
        x = torch.full((3, 2, 6, 6), 0.5)
        with pytest.raises(ArgumentError, match=r"^threat.bounds: expected finite bounds of one width"):
            AutoAttack()(wide, x, Y, ThreatModel("linf", 0.1, bounds))
        with pytest.raises(ArgumentError, match=r"^threat.radius: expected one number for all samples"):
            AutoAttack()(wide, x, Y, ThreatModel("linf", torch.full((3,), 0.1)))
