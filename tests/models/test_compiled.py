"""torch.compile of a cell: the same equilibrium and gradient, first order only, alone and in a recorded step."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio.recording import forget_records, recorded_steps

X = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
BACKENDS = ["aot_eager", "inductor"]  # the second makes code for the machine


def model_of() -> jiio.models.EquilibriumModel:
    torch.manual_seed(0)
    return jiio.models.classifier(jiio.models.DenseConfig(6, scaling="weight"), image=(1, 2, 2), classes=3).eval()


def answers(model: jiio.models.EquilibriumModel) -> list[Tensor]:
    """Scores, the gradient of their square, and the end of an attack, plain and recorded."""
    scores = model(X)
    grads = torch.autograd.grad(scores.square().sum(), list(model.parameters()))
    problem = model.problem(lambda s, _: s.square().sum(1), jiio.L2Ball(0.3, center=X))
    attacked = [jiio.solve(problem, X, adjoint=jiio.Detached()).x]
    with recorded_steps():
        attacked.append(jiio.solve(problem, X, adjoint=jiio.Detached()).x)
    forget_records()
    return [scores.detach(), *grads, *attacked]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_cell_is_the_same_map(backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("needs a compiler of C++")
    plain, compiled = model_of(), model_of()
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        compiled.cell.compile(backend=backend)
        found = answers(compiled)
    for own, right in zip(found, answers(plain), strict=True):
        assert gap(own, right) < 1e-4
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in plain.named_parameters()]
