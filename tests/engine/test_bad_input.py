"""Unusable arguments, cells, objectives, solvers, adjoints and measurements: a table of what is refused."""

# pyright: reportArgumentType=false, reportCallIssue=false
# Wrong types are the point here.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import jiio
from bad_cases import (
    NAN,
    Fickle,
    Net,
    Row,
    X,
    Z,
    cell,
    half,
    inferring,
    plain,
    problem,
    refused_in_one_sentence,
    solve,
    with_prox,
)
from jiio import ArgumentError, ArgumentTypeError, CellError, GradientError

BAD: dict[str, Row] = {
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


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_sentence(name: str) -> None:
    refused_in_one_sentence(BAD[name])


def test_there_are_enough_kinds() -> None:
    assert len(BAD) >= 80 and len({words for *_, words in BAD.values()}) >= 30


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
