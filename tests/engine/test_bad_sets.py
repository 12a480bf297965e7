"""Unusable constraints, priors and rules: a table of what is refused."""

# pyright: reportArgumentType=false, reportCallIssue=false
# Wrong types are the point here.

from __future__ import annotations

import pytest
import torch

import jiio
from bad_cases import (
    NAN,
    Row,
    X,
    Z,
    half,
    problem,
    refused_in_one_sentence,
    solve,
    with_prox,
)
from jiio import ArgumentError, ArgumentTypeError, GradientError
from problems import DOUBLE

grad = torch.ones(3, dtype=DOUBLE, requires_grad=True)

BAD: dict[str, Row] = {
    # prox
    "prox a class": (lambda: with_prox(jiio.Identity), ArgumentTypeError, "Problem.prox", "not the class"),
    "prox a function": (lambda: with_prox(torch.relu), ArgumentTypeError, "Problem.prox", "AbstractProx"),
    "radius below zero": (lambda: jiio.L2Ball(-0.1), ArgumentError, "L2Ball.radius", "at least 0"),
    "radii below zero": (lambda: jiio.L1Ball(half(-1.0)), ArgumentError, "L1Ball.radius", "at least 0"),
    "radius NaN": (lambda: jiio.LinfBall(NAN), ArgumentError, "LinfBall.radius", "at least 0"),
    "radii NaN": (lambda: with_prox(jiio.L2Ball(half(NAN))), ArgumentError, "L2Ball.radius", "at least 0"),
    "radius infinite": (lambda: jiio.L2Ball(float("inf")), ArgumentError, "L2Ball.radius", "at least 0"),
    "radius a word": (lambda: jiio.L2Ball("small"), ArgumentTypeError, "L2Ball.radius", "at least 0"),
    "radii for another batch": (
        lambda: with_prox(jiio.L2Ball(half(1.0, 5))),
        ArgumentError,
        "L2Ball.radius",
        "3 radii",
    ),
    "center of another shape": (
        lambda: with_prox(jiio.L2Ball(1.0, center=Z)),
        ArgumentError,
        "L2Ball.center",
        "broadcasts",
    ),
    "center a word": (lambda: jiio.L1Ball(1.0, center="origin"), ArgumentTypeError, "L1Ball.center", "tensor"),
    "center NaN": (lambda: with_prox(jiio.LinfBall(1.0, center=X + NAN)), ArgumentError, "LinfBall.center", "NaN"),
    "center another tree": (
        lambda: with_prox(jiio.L2Ball(1.0, center={"a": X})),
        ArgumentError,
        "L2Ball.center",
        "broadcasts",
    ),
    "center with a gradient": (
        lambda: with_prox(jiio.L2Ball(1.0, center=X.clone().requires_grad_())),
        GradientError,
        "L2Ball.center",
        "Detach",
    ),
    "radius with a gradient": (lambda: with_prox(jiio.L2Ball(grad)), GradientError, "L2Ball.radius", "Detach"),
    "box upside down": (lambda: jiio.Box(1.0, 0.0), ArgumentError, "Box", "low at most high"),
    "boxes upside down": (lambda: with_prox(jiio.Box(X + 1, X)), ArgumentError, "Box", "low at most high"),
    "box trees upside down": (
        lambda: solve(problem(prox=jiio.Box([X + 1], 0.0)), [X]),
        ArgumentError,
        "Box",
        "low at most high",
    ),
    "box without a bound": (lambda: jiio.Box(None, 1.0), ArgumentTypeError, "Box.low", "number"),
    "box NaN": (lambda: jiio.Box(0.0, NAN), ArgumentError, "Box.high", "finite"),
    "box of another shape": (lambda: with_prox(jiio.Box(0.0, Z)), ArgumentError, "Box.high", "broadcasts"),
    "box trees that do not fit": (lambda: with_prox(jiio.Box([X], 1.0)), ArgumentError, "Box.low", "broadcasts"),
    "weight below zero": (lambda: jiio.SoftThreshold(-1.0), ArgumentError, "SoftThreshold.weight", "at least 0"),
    "weights below zero": (lambda: jiio.QuadraticPrior(X - 1), ArgumentError, "QuadraticPrior.weight", "at least 0"),
    "weight with a gradient": (
        lambda: with_prox(jiio.SoftThreshold(X.clone().requires_grad_())),
        GradientError,
        "SoftThreshold.weight",
        "Detach",
    ),
    "intersection of one": (lambda: jiio.Intersection(jiio.Box(0, 1)), ArgumentError, "Intersection", "two sets"),
    "intersection with a prior": (
        lambda: jiio.Intersection(jiio.Box(0, 1), jiio.SoftThreshold(1.0)),
        ArgumentError,
        "Intersection",
        "sets only",
    ),
    "intersection with a number": (
        lambda: jiio.Intersection(jiio.Box(0, 1), 0.5),
        ArgumentTypeError,
        "Intersection",
        "sets such as",
    ),
    "intersection of a list": (
        lambda: jiio.Intersection([jiio.Box(0, 1), jiio.L2Ball(1)]),
        ArgumentTypeError,
        "Intersection",
        "sets such as",
    ),
    "rounds of zero": (
        lambda: jiio.Intersection(jiio.L1Ball(1), jiio.L2Ball(1), rounds=0),
        ArgumentError,
        "Intersection.rounds",
        "1",
    ),
    "box and ball apart": (
        lambda: with_prox(jiio.Intersection(jiio.Box(2.0, 3.0), jiio.L2Ball(0.5))),
        ArgumentError,
        "Intersection",
        "meet",
    ),
    "boxes apart": (
        lambda: with_prox(jiio.Intersection(jiio.Box(2.0, 3.0), jiio.Box(0, 1))),
        ArgumentError,
        "Intersection",
        "meet",
    ),
    "balls apart": (
        lambda: with_prox(jiio.Intersection(jiio.L1Ball(0.5), jiio.L2Ball(0.5, center=X + 3))),
        ArgumentError,
        "Intersection",
        "meet",
    ),
    # rules
    "momentum with a prior": (
        lambda: with_prox(jiio.SoftThreshold(0.1), rule=jiio.MomentumStep()),
        ArgumentError,
        "rule",
        "SoftThreshold",
    ),
    "Adam with a prior": (
        lambda: with_prox(jiio.SoftThreshold(0.1), rule=jiio.AdamStep()),
        ArgumentError,
        "rule",
        "SoftThreshold",
    ),
    "Adam with an L2 ball": (
        lambda: with_prox(jiio.L2Ball(1.0), rule=jiio.AdamStep()),
        ArgumentError,
        "rule",
        "AdamStep with L2Ball",
    ),
    "sign with an L1 ball": (
        lambda: with_prox(jiio.L1Ball(1.0), rule=jiio.SignStep()),
        ArgumentError,
        "rule",
        "SignStep with L1Ball",
    ),
    "sign with a coupled intersection": (
        lambda: with_prox(jiio.Intersection(jiio.Box(0, 1), jiio.L2Ball(1)), rule=jiio.SignStep()),
        ArgumentError,
        "rule",
        "SignStep with Intersection",
    ),
    "rate zero": (lambda: jiio.GradientStep(0.0), ArgumentError, "GradientStep.rate", "above 0"),
    "rate a word": (lambda: jiio.SignStep("fast"), ArgumentTypeError, "SignStep.rate", "above 0"),
    "schedule below zero": (
        lambda: solve(rule=jiio.GradientStep(lambda k: 0.1 - k)),
        ArgumentError,
        "GradientStep.rate(1)",
        "above 0",
    ),
    "schedule of words": (
        lambda: solve(rule=jiio.GradientStep(lambda k: "slow")),
        ArgumentTypeError,
        "GradientStep.rate(0)",
        "above 0",
    ),
    "momentum 1": (lambda: jiio.MomentumStep(momentum=1.0), ArgumentError, "MomentumStep.momentum", "below 1"),
    "beta2 1": (lambda: jiio.AdamStep(beta2=1.0), ArgumentError, "AdamStep.beta2", "below 1"),
    "eps zero": (lambda: jiio.AdamStep(eps=0.0), ArgumentError, "AdamStep.eps", "above 0"),
    "curvature zero": (lambda: jiio.GradientStep(curvature=0.0), ArgumentError, "GradientStep.curvature", "above 0"),
    "curvatures zero": (
        lambda: jiio.GradientStep(curvature=half(0.0)),
        ArgumentError,
        "GradientStep.curvature",
        "above 0",
    ),
    "curvature a word": (
        lambda: jiio.GradientStep(curvature="auto"),
        ArgumentTypeError,
        "GradientStep.curvature",
        "above 0",
    ),
    "curvatures for another batch": (
        lambda: solve(rule=jiio.GradientStep(curvature=half(1.0, 5))),
        ArgumentError,
        "GradientStep.curvature",
        "3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_sentence(name: str) -> None:
    refused_in_one_sentence(BAD[name])


@pytest.mark.parametrize(
    "prox", [jiio.Box(0, 1), jiio.L1Ball(1.0), jiio.L2Ball(1.0), jiio.LinfBall(1.0), jiio.Simplex()]
)
@pytest.mark.parametrize("x", [torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.long), 3.0])
def test_a_set_tells_what_it_cannot_project(prox: jiio.AbstractProx, x) -> None:
    for call in (prox, prox.violation):
        with pytest.raises((ArgumentError, ArgumentTypeError), match="x: expected "):
            call(x)
