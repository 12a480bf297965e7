"""Equilibrium models of plain functions and modules, and of classifiers written for torchdeq; saved by import path."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import jiio
from jiio import attacks, models
from jiio.checks import ArgumentError, ArgumentTypeError, CheckpointError

sys.path.append(str(Path(__file__).parent))
import own_parts
from own_parts import Tanh

TIGHT = {"tolerance": jiio.Tolerance(1e-7, 0.0), "max_steps": 200}
X = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))


def fixed_point(net: Tanh, x: Tensor) -> Tensor:
    z = torch.zeros(len(x), 6)
    for _ in range(300):
        z = net.step(z, net.stem(x))
    return net.top(z)


@pytest.mark.parametrize("how", ["functions", "methods", "modules", "partial"])
def test_the_parts_make_the_equilibrium(how: str) -> None:
    torch.manual_seed(0)
    net = Tanh()
    parts: dict[str, tuple[Any, Any, Any]] = {
        "functions": (lambda x: net.stem(x), lambda z, u: net.step(z, u), lambda z: net.top(z)),
        "methods": (net.stem, net.step, net.top),
        "modules": (net.stem, own_parts.Step(net.inner), net.top),
        "partial": (net.stem, functools.partial(own_parts.step, net.inner), net.top),
    }
    model = models.EquilibriumModel.of(*parts[how], **TIGHT)
    with torch.no_grad():
        assert torch.allclose(model(X), fixed_point(net, X), atol=1e-5)
    assert {id(p) for p in model.parameters()} == {id(p) for p in net.parameters()}
    assert len(list(model.parameters())) == len(list(net.parameters()))
    x = X.clone().requires_grad_()
    model(x).square().sum().backward()
    (slope,) = torch.autograd.grad(fixed_point(net, leaf := X.clone().requires_grad_()).square().sum(), leaf)
    assert x.grad is not None and torch.allclose(x.grad, slope, atol=1e-4)


def test_modes_and_places_reach_what_a_function_uses() -> None:
    net = Tanh()
    model = models.EquilibriumModel.of(lambda x: net.stem(x), lambda z, u: net.step(z, u), lambda z: net.top(z))
    model.eval()
    assert not net.training and not net.inner.training
    model.double()
    assert net.inner.weight.dtype == torch.float64 and model(X.double()).dtype == torch.float64


def test_the_start_is_zero_like_u_unless_another_is_named() -> None:
    net, seen = Tanh(), []

    def step(z: Tensor, u: Tensor) -> Tensor:
        seen.append(z.clone())
        return net.step(z, u)

    models.EquilibriumModel.of(net.stem, step, net.top).solve(X)
    assert torch.equal(seen[0], torch.zeros(4, 6))
    seen.clear()
    models.EquilibriumModel.of(net.stem, step, net.top, initial_state=lambda u: torch.ones_like(u)).solve(X)
    assert torch.equal(seen[0], torch.ones(4, 6))
    cell = models.DenseCell(6)
    assert models.EquilibriumModel.of(net.stem, cell, net.top).cell is cell


def test_the_attacks_for_equilibria_know_it() -> None:
    torch.manual_seed(0)
    model = own_parts.build().eval()
    with torch.no_grad():
        y = model(X).argmax(1)
    report = attacks.evaluate(model, [(X, y)], "l2", 3.0, [attacks.JointAttack(steps=20)], bounds=(-9, 9), audit=None)
    assert report.robust.count < report.clean.count == 4 and report.solver["clean"]["converged"] == 1.0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_cannot_be_called_is_refused(place: int) -> None:
    parts: list[Any] = [nn.Identity(), lambda z, u: z, nn.Identity()]
    parts[place] = 3
    with pytest.raises(ArgumentTypeError, match=f"^{('inject', 'cell', 'head')[place]}: expected a callable"):
        models.EquilibriumModel.of(*parts)


# -- files


def test_a_file_names_the_function_that_makes_the_model(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, path = own_parts.build(), tmp_path / "m.safetensors"
    with torch.no_grad():
        model.cell.cell.used[0].inner.weight.mul_(0.5)  # type: ignore[union-attr, index]
    models.save(model, path)
    assert len(load_file(path)) == 6  # each weight once
    with pytest.raises(CheckpointError, match=r"nothing was imported.*pass allow=\('own_parts:build',\)"):
        models.load(path)
    state = torch.get_rng_state()
    for allow in (("own_parts",), ("own_parts:build",)):
        loaded = models.load(path, allow=allow, max_steps=77)
        assert loaded.max_steps == 77 and loaded.tolerance == model.tolerance and not loaded.training
        with torch.no_grad():
            assert torch.equal(loaded(X), model.eval()(X))
    assert torch.equal(torch.get_rng_state(), state)
    models.save(loaded, tmp_path / "again.safetensors")


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("own_parts:other", "shape"),
        ("own_parts:nobody", "nobody"),
        ("own_parts:Tanh", "not an EquilibriumModel"),
        ("nowhere_at_all:build", "No module"),
        ("own_parts", "import path"),
    ],
)
def test_an_origin_that_does_not_make_the_model_is_not_written(origin: str, words: str, tmp_path: Path) -> None:
    net = Tanh()
    model = models.EquilibriumModel.of(net.stem, net.step, net.top, origin=origin)
    with pytest.raises(CheckpointError, match=words):
        models.save(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_model_without_an_origin_says_how_to_get_one(tmp_path: Path) -> None:
    net = Tanh()
    with pytest.raises(CheckpointError, match=r"origin='package\.module:name'"):
        models.save(models.EquilibriumModel.of(net.stem, net.step, net.top), tmp_path / "m.safetensors")


# -- torchdeq


def torchdeq_net(**options: Any) -> nn.Module:
    package = pytest.importorskip("torchdeq", reason="needs torchdeq: pip install torchdeq")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Tanh()
            settings = {"f_solver": "fixed_point_iter", "f_max_iter": 300, "f_tol": 1e-7, "ift": True} | options
            self.deq = package.get_deq(**settings)

        def forward(self, x: Tensor) -> Tensor:
            u = self.inner.stem(x)
            z, _ = self.deq(lambda z: self.inner.step(z, u), torch.zeros_like(u))
            return self.inner.top(z[-1]) + (x.sum() if options.get("ift") is False else 0.0)

    torch.manual_seed(0)
    return Net().eval()


def test_a_torchdeq_classifier_has_the_same_predictions_and_a_gradient_in_eval_mode() -> None:
    net = torchdeq_net()
    model = models.from_torchdeq(net, X, **TIGHT).eval()
    with torch.no_grad():
        assert torch.allclose(model(X), net(X), atol=1e-5)
    x = X.clone().requires_grad_()
    model(x).square().sum().backward()
    leaf = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(fixed_point(net.inner, leaf).square().sum(), leaf)  # type: ignore[arg-type]
    assert x.grad is not None and torch.allclose(x.grad, slope, atol=1e-4)
    assert "forward" not in vars(net.deq)  # its own solver is back
    assert len(list(model.parameters())) == len(list(net.parameters()))


def test_a_head_that_looks_at_the_input_is_refused() -> None:
    with pytest.raises(ArgumentError, match="looks at the input as well"):
        models.from_torchdeq(torchdeq_net(ift=False), X)


def test_a_model_without_a_solver_is_refused() -> None:
    with pytest.raises(ArgumentError, match="one torchdeq solver"):
        models.from_torchdeq(Tanh(), X)
