"""Networks under autocast and in half precision: first steps low, last ones exact; what a type can do, and said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.layout import detach, leaves
from jiio.models import ConvConfig, DenseConfig, MultiscaleConfig, TransformerConfig, TransformerModel, classifier

IMAGE = (1, 8, 8)
MULTISCALE = MultiscaleConfig(
    channels=(8, 8), expansion=2, groups=2, fusion_groups=2, head_channels=(4, 4), final_channels=8
)
CELLS = {"dense": DenseConfig(24), "conv": ConvConfig(channels=8), "multiscale": MULTISCALE}


class Reader(nn.Module):
    """A transformer that tells classes from its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TransformerModel(TransformerConfig(11, 8, 2, 12, memory=4))

    def forward(self, x: Tensor) -> Tensor:
        return self.solve(x).z[:, -1, :4]

    def solve(self, x: Tensor) -> jiio.Solution:
        embedded = self.body.tokens.embed((10 * x.flatten(1)[:, :6]).long())
        return self.body.solved(embedded).solution


def made(name: str) -> Any:
    torch.manual_seed(0)
    return (Reader() if name == "transformer" else classifier(CELLS[name], image=IMAGE, classes=4)).eval()


def images(count: int = 3) -> Tensor:
    return torch.rand(count, *IMAGE, generator=torch.Generator().manual_seed(1))


def slope(model: Any, x: Tensor) -> Tensor:
    model.zero_grad()
    F.cross_entropy(model(x).float(), torch.arange(len(x)) % 4).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", [*CELLS, "transformer"])
def test_autocast_costs_no_calls_and_hardly_any_gradient(name: str) -> None:
    model, x = made(name), images()
    plain, exact = model.solve(x), slope(model, x)
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")
        low, found = model.solve(x), slope(model, x)
    assert bool(low.converged.all()) and low.evaluations.cell <= 1.3 * plain.evaluations.cell
    assert float((found - exact).norm() / exact.norm()) < 0.03

    # It is the equilibrium of single precision, and not only near its own.
    for one, other in zip(leaves(detach(low.z)), leaves(detach(plain.z)), strict=True):
        assert float((one - other).norm() / other.norm()) < 2e-3


def problem(model: Any, x: Tensor) -> jiio.Problem:
    y = torch.arange(len(x)) % 4
    loss: Callable[..., Tensor] = lambda scores, _: -F.cross_entropy(scores.float(), y, reduction="none")  # noqa: E731
    return model.problem(loss, jiio.L2Ball(0.5, center=x))


def test_a_joint_solve_under_autocast_ends_where_one_without_does() -> None:
    model, x = made("dense"), images()
    how: dict = {"tolerance": jiio.Tolerance(1e-5, 1e-3), "adjoint": jiio.Detached()}
    plain = jiio.solve(problem(model, x), x, **how)
    with torch.autocast("cpu", torch.bfloat16):
        low = jiio.solve(problem(model, x), x, **how)
    assert bool(plain.converged.all()) and bool(low.converged.all())
    assert low.evaluations.cell <= 1.3 * plain.evaluations.cell
    assert torch.allclose(low.value, plain.value, rtol=1e-3) and torch.allclose(low.x, plain.x, atol=2e-2)


def test_a_tolerance_that_low_precision_can_meet_stays_low() -> None:
    model, x, seen = made("dense"), images(), set()

    def watched(module: nn.Module, given: Any, out: Tensor) -> None:
        seen.add((torch.is_autocast_enabled("cpu"), out.dtype))

    model.cell.register_forward_hook(watched)
    with torch.autocast("cpu", torch.bfloat16):
        model.solve(x, tolerance=jiio.Tolerance(0.0, 5e-2))
        assert {on for on, _ in seen} == {True}
        model.solve(x)
    assert {on for on, _ in seen} == {True, False}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_a_model_in_half_precision_goes_as_far_as_its_numbers_and_says_so(name: str, dtype: torch.dtype) -> None:
    model, x = made(name).to(dtype), images().to(dtype)
    with pytest.warns(jiio.PrecisionWarning, match="as far as the arithmetic goes"):
        solution = model.solve(x)
    assert bool(solution.converged.all()) and int(solution.steps.max()) < 40
    exact = made(name).solve(images())
    apart = solution.z.detach().float() - exact.z.detach()
    assert float(apart.norm() / exact.z.detach().norm()) < 20 * torch.finfo(dtype).eps
