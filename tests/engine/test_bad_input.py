"""Unusable input, one table: each row raises its type in one sentence: the argument, what was expected, what came."""

# pyright: reportArgumentType=false, reportCallIssue=false
# Wrong types are the point here.

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import jiio
from jiio import ArgumentError, ArgumentTypeError, CellError, GradientError
from problems import CASES, DOUBLE

CASE = CASES["tanh"]
X, Z = CASE.x0, CASE.z0
NAN = float("nan")


def cell(z: Tensor, x: Tensor) -> Tensor:
    return CASE.cell(z, x)


def problem(**changes: Any) -> jiio.Problem:
    return jiio.Problem(**({"cell": CASE.cell, "objective": CASE.objective} | changes))


def solve(*args: Any, **options: Any) -> jiio.Solution:
    """A solve that would be fine, but for what is changed."""
    parts = list(args) + [problem(), X, Z][len(args) :]
    return jiio.solve(*parts, **({"max_steps": 3, "on_failure": "ignore"} | options))


def plain(*args: Any, **options: Any) -> jiio.Solution:
    parts = list(args) + [cell, X, Z][len(args) :]
    return jiio.equilibrium(*parts, **({"max_steps": 3, "on_failure": "ignore"} | options))


def with_prox(prox: Any, **options: Any) -> jiio.Solution:
    return solve(problem(prox=prox), **options)


def inferring(function: Callable[[], Any]) -> Any:
    with torch.inference_mode():
        return function()


class Net(nn.Module):
    """A cell with one extra layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return CASE.cell(self.layer(z), x)


def half(value: Any, batch: int = 3) -> Tensor:
    return torch.full((batch,), value, dtype=DOUBLE)


grad = torch.ones(3, dtype=DOUBLE, requires_grad=True)

# name -> (what is done, the exception, the argument that the message names, words that it contains)
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str, str]] = {
    # the arguments of solve and equilibrium
    "problem is a cell": (lambda: solve(cell), ArgumentTypeError, "problem", "instance of Problem"),
    "problem is a class": (lambda: solve(jiio.Problem), ArgumentTypeError, "problem", "not the class"),
    "x0 a list": (lambda: solve(problem(), [0.0, 1.0]), ArgumentTypeError, "x0", "a tensor"),
    "x0 None": (lambda: solve(problem(), None), ArgumentTypeError, "x0", "a tensor"),
    "x0 an empty tuple": (lambda: solve(problem(), ()), ArgumentTypeError, "x0", "a tensor"),
    "x0 an array": (lambda: solve(problem(), np.zeros((3, 4))), ArgumentTypeError, "x0", "a tensor"),
    "x0 whole numbers": (lambda: solve(problem(), X.long()), ArgumentTypeError, "x0", "floating-point"),
    "x0 complex": (lambda: solve(problem(), X + 0j), ArgumentTypeError, "x0", "floating-point"),
    "x0 without a batch": (lambda: solve(problem(), torch.tensor(1.0)), ArgumentError, "x0", "the batch"),
    "x0 an empty batch": (lambda: solve(problem(), X[:0]), ArgumentError, "x0", "at least one sample"),
    "x0 of no numbers": (lambda: solve(problem(), X[:, :0]), ArgumentError, "x0", "at least one sample"),
    "x0 on the meta device": (lambda: solve(problem(), X.to("meta")), ArgumentError, "x0", "device"),
    "x0 sparse": (lambda: solve(problem(), X.to_sparse()), ArgumentTypeError, "x0", "dense"),
    "x0 with two batch sizes": (lambda: solve(problem(), (X, X[:2])), ArgumentError, "x0", "batch size 3"),
    "x0 with two dtypes": (lambda: solve(problem(), (X, X.float())), ArgumentError, "x0", "dtype float64"),
    "z0 missing": (lambda: jiio.solve(problem(), X), ArgumentError, "z0", "initial_state"),
    "z0 of another batch": (lambda: solve(problem(), X, Z[:2]), ArgumentError, "z0", "batch size 3"),
    "z0 of another dtype": (lambda: solve(problem(), X, Z.float()), ArgumentError, "z0", "dtype float64"),
    "z0 on another device": (lambda: solve(problem(), X, Z.to("meta")), ArgumentError, "z0", "device"),
    "z0 NaN": (lambda: solve(problem(), X, Z + NAN), ArgumentError, "z0", "finite"),
    "z0 a string": (lambda: solve(problem(), X, "zeros"), ArgumentTypeError, "z0", "a tensor"),
    "multiplier of another shape": (lambda: solve(multiplier=Z[:, :3]), ArgumentError, "multiplier", "shapes as z0"),
    "multiplier another tree": (lambda: solve(multiplier=(Z,)), ArgumentError, "multiplier", "same tree"),
    "multiplier of another dtype": (lambda: solve(multiplier=Z.float()), ArgumentError, "multiplier", "dtype"),
    "scaling one tensor": (lambda: solve(scaling=torch.ones(2)), ArgumentTypeError, "scaling", "a pair of tensors"),
    "scaling of another batch": (
        lambda: solve(scaling=(torch.ones(99, 1), torch.ones(()))),
        ArgumentError,
        "scaling",
        "a number for each sample",
    ),
    "scaling zero": (lambda: solve(scaling=(torch.zeros(()), torch.ones(()))), ArgumentError, "scaling", "above zero"),
    "scaling and a curvature": (
        lambda: solve(scaling=(torch.ones(()), torch.ones(())), rule=jiio.GradientStep(curvature=1.0)),
        ArgumentError,
        "scaling",
        "Leave one out.",
    ),
    "multiplier infinite": (lambda: solve(multiplier=Z + float("inf")), ArgumentError, "multiplier", "finite"),
    "solver a word": (lambda: solve(solver="anderson"), ArgumentTypeError, "solver", "AbstractSolver"),
    "solver a class": (lambda: solve(solver=jiio.Anderson), ArgumentTypeError, "solver", "not the class"),
    "rule a number": (lambda: solve(rule=0.1), ArgumentTypeError, "rule", "AbstractRule"),
    "rule a class": (lambda: solve(rule=jiio.GradientStep), ArgumentTypeError, "rule", "not the class"),
    "adjoint None": (lambda: solve(adjoint=None), ArgumentTypeError, "adjoint", "AbstractAdjoint"),
    "adjoint a class": (lambda: plain(adjoint=jiio.Implicit), ArgumentTypeError, "adjoint", "not the class"),
    "tolerance a number": (lambda: solve(tolerance=1e-3), ArgumentTypeError, "tolerance", "Tolerance"),
    "max_steps 1": (lambda: solve(max_steps=1), ArgumentError, "max_steps", "at least 2"),
    "max_steps a float": (lambda: plain(max_steps=10.0), ArgumentTypeError, "max_steps", "whole number"),
    "max_steps True": (lambda: plain(max_steps=True), ArgumentTypeError, "max_steps", "whole number"),
    "on_failure unknown": (lambda: solve(on_failure="shout"), ArgumentError, "on_failure", "'warn'"),
    "trace unknown": (lambda: solve(trace="everything"), ArgumentError, "trace", "'points'"),
    "solve in inference mode": (lambda: inferring(solve), GradientError, "solve", "no_grad"),
    "cell a number": (lambda: plain(3.0), ArgumentTypeError, "cell", "a callable"),
    "equilibrium with Envelope": (lambda: plain(adjoint=jiio.Envelope()), GradientError, "adjoint", "Implicit()"),
    "equilibrium with KKT": (lambda: plain(adjoint=jiio.KKT()), GradientError, "adjoint", "Implicit()"),
    # what the cell and the objective return
    "cell changes the shape": (lambda: plain(lambda z, x: z[:, :3]), CellError, "cell", "shape (3, 10)"),
    "cell drops the batch": (lambda: plain(lambda z, x: z[0]), CellError, "cell", "shape (3, 10)"),
    "cell changes the dtype": (lambda: plain(lambda z, x: z.float()), CellError, "cell", "float64"),
    "cell changes the tree": (lambda: plain(lambda z, x: (z,)), CellError, "cell", "same tree"),
    "cell returns None": (lambda: plain(lambda z, x: None), CellError, "cell", "same tree"),
    "cell changes the device": (lambda: plain(lambda z, x: z.to("meta")), CellError, "cell", "device"),
    "joint cell changes the shape": (
        lambda: solve(problem(cell=lambda z, x: z[:, :3])),
        CellError,
        "cell",
        "shape (3, 10)",
    ),
    "cell changes its mind": (lambda: solve(problem(cell=Fickle())), CellError, "cell", "shape (3, 10)"),
    "cell is detached": (
        lambda: solve(problem(cell=lambda z, x: z.detach(), objective=lambda z, x: z.detach().sum(1))),
        CellError,
        "cell and objective",
        "differentiably",
    ),
    "objective a mean": (lambda: solve(problem(objective=lambda z, x: z.mean())), CellError, "objective", "(3,)"),
    "objective a column": (
        lambda: solve(problem(objective=lambda z, x: z.sum(1, keepdim=True))),
        CellError,
        "objective",
        "(3,)",
    ),
    "objective a float": (lambda: solve(problem(objective=lambda z, x: 1.0)), CellError, "objective", "(3,)"),
    "objective whole numbers": (
        lambda: solve(problem(objective=lambda z, x: z.argmax(1))),
        CellError,
        "objective",
        "floating-point",
    ),
    "objective not callable": (lambda: problem(objective=None), ArgumentTypeError, "Problem.objective", "a callable"),
    "cell not callable": (lambda: problem(cell="cell"), ArgumentTypeError, "Problem.cell", "a callable"),
    "BatchNorm in training": (
        lambda: plain(Net(nn.BatchNorm1d(10).double())),
        CellError,
        "cell.layer",
        "BatchNorm in training mode",
    ),
    "Dropout in training": (lambda: plain(Net(nn.Dropout(0.2))), CellError, "cell.layer", "Dropout(p=0.2)"),
    "joint Dropout in training": (
        lambda: solve(problem(cell=Net(nn.Dropout(0.2)))),
        CellError,
        "cell.layer",
        "Dropout",
    ),
    "alpha dropout in training": (lambda: plain(Net(nn.AlphaDropout(0.2))), CellError, "cell.layer", "AlphaDropout"),
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
    # solvers, adjoints, tolerance
    "tolerance zero": (lambda: jiio.Tolerance(0.0, 0.0), ArgumentError, "Tolerance", "above zero"),
    "tolerance below zero": (lambda: jiio.Tolerance(-1e-3), ArgumentError, "Tolerance.atol", "at least 0"),
    "tolerance NaN": (lambda: jiio.Tolerance(rtol=NAN), ArgumentError, "Tolerance.rtol", "at least 0"),
    "check_every zero": (lambda: jiio.Tolerance(check_every=0), ArgumentError, "Tolerance.check_every", "at least 1"),
    "memory zero": (lambda: jiio.Anderson(memory=0), ArgumentError, "Anderson.memory", "at least 1"),
    "kind three": (lambda: jiio.Anderson(kind="III"), ArgumentError, "Anderson.kind", "'I', 'II'"),
    "mixing zero": (lambda: jiio.Anderson(mixing=0.0), ArgumentError, "Anderson.mixing", "above 0"),
    "ridge below zero": (lambda: jiio.Anderson(ridge=-1.0), ArgumentError, "Anderson.ridge", "at least 0"),
    "Broyden memory": (lambda: jiio.Broyden(memory=0.5), ArgumentTypeError, "Broyden.memory", "whole number"),
    "damping two": (lambda: jiio.Picard(2.0), ArgumentError, "Picard.damping", "at most 1"),
    "damping a word": (lambda: jiio.Picard("none"), ArgumentTypeError, "Picard.damping", "at most 1"),
    "damping of an unknown block": (
        lambda: jiio.Anderson(damping={"y": 0.5}),
        ArgumentError,
        "Anderson.damping",
        "'mu'",
    ),
    "damping of a block zero": (
        lambda: jiio.Anderson(damping={"z": 0.0}),
        ArgumentError,
        "Anderson.damping['z']",
        "above 0",
    ),
    "Implicit with a word": (lambda: jiio.Implicit(solver="broyden"), ArgumentTypeError, "Implicit.solver", "Solver"),
    "Implicit with a class": (
        lambda: jiio.Implicit(solver=jiio.Broyden),
        ArgumentTypeError,
        "Implicit.solver",
        "class",
    ),
    "Implicit tolerance": (lambda: jiio.Implicit(tolerance=0.1), ArgumentTypeError, "Implicit.tolerance", "Tolerance"),
    "Implicit steps": (lambda: jiio.Implicit(max_steps=0), ArgumentError, "Implicit.max_steps", "at least"),
    "KKT rtol": (lambda: jiio.KKT(rtol=-1.0), ArgumentError, "KKT.rtol", "at least 0"),
    "KKT steps": (lambda: jiio.KKT(max_steps=0), ArgumentError, "KKT.max_steps", "at least 1"),
    "Phantom steps": (lambda: jiio.Phantom(0), ArgumentError, "Phantom.steps", "at least 1"),
    "Phantom damping": (lambda: jiio.Phantom(5, 1.5), ArgumentError, "Phantom.damping", "at most 1"),
    "Phantom kind": (lambda: jiio.Phantom(kind="hopeful"), ArgumentError, "Phantom.kind", "'neumann'"),
    # diagnostics
    "spectral radius: z of another batch": (
        lambda: jiio.spectral_radius(cell, Z[:2], X),
        ArgumentError,
        "z",
        "batch size 3",
    ),
    "spectral radius: steps": (lambda: jiio.spectral_radius(cell, Z, X, steps=0), ArgumentError, "steps", "at least 1"),
    "spectral radius: a seed": (
        lambda: jiio.spectral_radius(cell, Z, X, generator=3),
        ArgumentTypeError,
        "generator",
        "torch.Generator",
    ),
    "spectral radius: a cell that changes the shape": (
        lambda: jiio.spectral_radius(lambda z, x: x, Z, X),
        CellError,
        "cell",
        "shape (3, 10)",
    ),
    "penalty: probes": (lambda: jiio.jacobian_penalty(cell, Z, X, probes=0), ArgumentError, "probes", "at least 1"),
    "penalty: a cell that changes the shape": (
        lambda: jiio.jacobian_penalty(lambda z, x: x, Z, X),
        CellError,
        "cell",
        "shape (3, 10)",
    ),
    "adjoint error: no gradient": (
        lambda: jiio.adjoint_error(cell, X, jiio.Detached(), Z),
        GradientError,
        "adjoint",
        "Detached",
    ),
    "adjoint error: a joint adjoint": (
        lambda: jiio.adjoint_error(cell, X, jiio.KKT(), Z),
        GradientError,
        "adjoint",
        "KKT",
    ),
    "adjoint error: cotangent": (
        lambda: jiio.adjoint_error(cell, X, jiio.Implicit(), Z, cotangent=X),
        ArgumentError,
        "cotangent",
        "as z",
    ),
    "dependence: one start": (
        lambda: jiio.dependence_on_z0(cell, X, Z, starts=1),
        ArgumentError,
        "starts",
        "at least 2",
    ),
    "dependence: scale": (lambda: jiio.dependence_on_z0(cell, X, Z, scale=-1.0), ArgumentError, "scale", "above 0"),
}


class Fickle:
    """A cell whose second call returns another shape."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return CASE.cell(z, x) if self.calls == 1 else z[:, :3]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_sentence(name: str) -> None:
    action, error, argument, words = BAD[name]
    with pytest.raises(error) as caught:
        action()
    message = str(caught.value)
    assert isinstance(caught.value, jiio.JiioError)
    assert re.fullmatch(r"[^\n]+: expected [^\n]+, got [^\n]+\.( [^\n]+[.?])?", message), message
    assert message.startswith(f"{argument}: "), message
    assert words in message, message
    assert len(message) < 300, message


def test_there_are_enough_kinds() -> None:
    assert len(BAD) >= 100 and len({words for *_, words in BAD.values()}) >= 40


def test_every_exception_is_also_the_builtin_one() -> None:
    for error, builtin in {
        jiio.ArgumentError: ValueError,
        jiio.ArgumentTypeError: TypeError,
        jiio.CellError: RuntimeError,
        jiio.ConvergenceError: RuntimeError,
        jiio.GradientError: RuntimeError,
        jiio.SecondDerivativeError: jiio.GradientError,
        jiio.CheckpointError: RuntimeError,
    }.items():
        assert issubclass(error, builtin) and issubclass(error, jiio.JiioError)


@pytest.mark.parametrize(
    "action",
    [
        lambda: solve(nonsense=3),
        lambda: plain(nonsense=3),
        lambda: jiio.Anderson(nonsense=3),  # type: ignore[call-arg]
        lambda: jiio.GradientStep(nonsense=3),  # type: ignore[call-arg]
        lambda: jiio.Tolerance(nonsense=3),  # type: ignore[call-arg]
        lambda: jiio.KKT(nonsense=3),  # type: ignore[call-arg]
        lambda: jiio.Box(0, 1, nonsense=3),  # type: ignore[call-arg]
        lambda: jiio.solve(problem(), X, Z, None),  # type: ignore[misc]
    ],
)
def test_unknown_options_are_errors(action: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"nonsense|positional"):
        action()


def test_configurations_are_frozen() -> None:
    for record in (jiio.Anderson(), jiio.GradientStep(), jiio.L2Ball(1.0), jiio.Tolerance(), jiio.KKT(), problem()):
        with pytest.raises(AttributeError):
            record.memory = 3  # type: ignore[union-attr]


def test_nothing_is_refused_that_is_fine() -> None:
    solve(problem(cell=Net(nn.BatchNorm1d(10).double()).eval()))
    solve(problem(cell=Net(nn.Dropout(0.2)).eval()))
    solve(problem(cell=Net(nn.Dropout(0.0))))
    with_prox(jiio.Box(-float("inf"), X))
    with_prox(jiio.L2Ball(half(1.0), center=0.5 * X[0]), rule=jiio.NormalizedStep(lambda k: 1 / (k + 1)))
    with_prox(jiio.L2Ball(torch.tensor(0.5)), rule=jiio.GradientStep(curvature=half(2.0)))
    with_prox(jiio.SoftThreshold(torch.tensor(0.5)))
    solve(trace="points", tolerance=jiio.Tolerance(0.0, 1e-3, 5))
    spoilt = X.clone()
    spoilt[1] = NAN  # a bad sample is a status, not an exception
    assert solve(problem(), spoilt).status.tolist() == [2, 4, 2]
