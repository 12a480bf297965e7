"""The contract of every cell, and the equilibrium model around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from helpers import gap
from jiio import models
from jiio.layout import leaves, map_tree
from model_cases import CONFIGS, SMALL, Plain


def vector(features: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randn(batch, features, dtype=torch.float64)


def feature_map(channels: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randn(batch, channels, 4, 4, dtype=torch.float64)


def pyramid(batch: int) -> tuple[Tensor, Tensor]:
    return feature_map(8)(batch), torch.randn(batch, 8, 2, 2, dtype=torch.float64)


# name -> (cell, u(batch))
CELLS: dict[str, tuple[Callable[[], Any], Callable[[int], Any]]] = {
    "dense": (lambda: models.DenseCell(6), vector(6)),
    "dense-weight": (lambda: models.DenseCell(6, scaling="weight", activation="silu"), vector(6)),
    "dense-spectral": (lambda: models.DenseCell(6, scaling="spectral", activation="softplus"), vector(6)),
    "monotone": (lambda: models.MonotoneCell(6, m=0.5, activation="softplus"), vector(6)),
    "monotone-relu": (lambda: models.MonotoneCell(6), vector(6)),
    "conv": (lambda: models.ConvCell(8, groups=2, activation="silu"), feature_map(8)),
    "multiscale": (lambda: models.MultiscaleCell(SMALL), feature_map(8)),
    "multiscale-all": (lambda: models.MultiscaleCell(SMALL, injected=2), pyramid),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=CELLS, name="case")
def make_case(request: pytest.FixtureRequest) -> tuple[Any, Callable[[int], Any]]:
    cell, u = CELLS[request.param]
    return cell().double(), u


def rows(tree: Any, index: Any) -> Any:
    return map_tree(lambda leaf: leaf[index], tree)


def random_like(tree: Any) -> Any:
    return map_tree(torch.randn_like, tree)


# -- the contract of a cell


def test_cell_keeps_tree_shape_and_dtype(case: Any) -> None:
    cell, make = case
    for dtype in (torch.float64, torch.float32):
        cell, u = cell.to(dtype), map_tree(lambda leaf, to=dtype: leaf.to(to), make(3))
        z = cell.initial_state(u)
        assert all(leaf.dtype == dtype and not leaf.any() for leaf in leaves(z))
        out = cell(random_like(z), u)
        assert type(out) is type(z)
        assert [(o.shape, o.dtype) for o in leaves(out)] == [(leaf.shape, leaf.dtype) for leaf in leaves(z)]


def test_cell_has_an_equilibrium_reached_from_two_starts(case: Any) -> None:
    cell, make = case
    u = make(3)
    fine = {"tolerance": jiio.Tolerance(1e-9, 1e-9), "max_steps": 300, "on_failure": "raise"}
    first = jiio.equilibrium(cell, u, cell.initial_state(u), **fine).z
    assert gap(first, cell(first, u)) < 1e-7
    second = jiio.equilibrium(cell, u, random_like(first), **fine).z
    assert gap(first, second) < 1e-6


def test_cell_treats_samples_apart(case: Any) -> None:
    cell, make = case
    u = make(5)
    z = random_like(cell.initial_state(u))
    whole = cell(z, u)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert gap(rows(whole, order), cell(rows(z, order), rows(u, order))) < 1e-12
    for i in range(5):
        assert gap(rows(whole, slice(i, i + 1)), cell(rows(z, slice(i, i + 1)), rows(u, slice(i, i + 1)))) < 1e-12


def test_cell_is_a_pure_function(case: Any) -> None:
    cell, make = case
    u = make(2)
    z = random_like(cell.initial_state(u))
    before = [leaf.clone() for leaf in (*leaves(z), *leaves(u), *cell.state_dict().values())]
    attributes = dict(vars(cell))
    first, second = cell(z, u), cell(z, u)
    assert gap(first, second) == 0.0
    after = (*leaves(z), *leaves(u), *cell.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert vars(cell) == attributes


@pytest.mark.parametrize("name", ["dense", "dense-weight", "monotone", "conv", "multiscale-all"])
def test_cell_is_twice_differentiable_in_z_and_u(name: str) -> None:
    make_cell, make = CELLS[name]
    cell, u = make_cell().double(), make(1)
    z = random_like(cell.initial_state(u))
    n = len(leaves(z))
    mix = [torch.randn_like(leaf) for leaf in leaves(z)]

    def scalar(*parts: Tensor) -> Tensor:
        out = cell(parts[0], parts[1]) if n == 1 else cell(parts[:n], parts[n:])
        return torch.stack([(m * o).sum() for m, o in zip(mix, leaves(out), strict=True)]).sum()

    parts = [leaf.detach().requires_grad_() for leaf in (*leaves(z), *leaves(u))]
    direction = [torch.randn_like(p) for p in parts]
    grads = torch.autograd.grad(scalar(*parts), parts, create_graph=True)
    slope = torch.stack([(g * d).sum() for g, d in zip(grads, direction, strict=True)]).sum()
    hvp = torch.autograd.grad(slope, parts)
    h = 1e-5

    def shifted(sign: float) -> tuple[Tensor, ...]:
        moved = [(p + sign * h * d).detach().requires_grad_() for p, d in zip(parts, direction, strict=True)]
        return torch.autograd.grad(scalar(*moved), moved)

    for exact, up, down in zip(hvp, shifted(1.0), shifted(-1.0), strict=True):
        assert torch.allclose(exact, (up - down) / (2 * h), rtol=1e-5, atol=1e-6)


# -- the model


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_and_the_input_get_gradients(name: str, training: bool) -> None:
    model = models.classifier(CONFIGS[name], image=(1, 8, 8), classes=3).train(training)
    x = torch.rand(4, 1, 8, 8, requires_grad=True)
    loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert x.grad is not None
    assert float(x.grad.abs().amax((1, 2, 3)).min()) > 0
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert float(parameter.grad.abs().max()) > 0, key


@pytest.mark.parametrize("name", ["dense", "multiscale"])
def test_gradient_is_that_of_the_equilibrium(name: str) -> None:
    config = models.DenseConfig(8, scaling="weight") if name == "dense" else SMALL
    fine = {"tolerance": jiio.Tolerance(1e-11, 1e-11), "max_steps": 300}
    adjoint = jiio.Implicit(tolerance=jiio.Tolerance(1e-11, 1e-11), max_steps=300)
    model = models.classifier(config, image=(1, 4, 4), classes=2, adjoint=adjoint, **fine).double()
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = next(p for key, p in model.cell.named_parameters() if key.endswith("weight.original1"))

    def loss() -> Tensor:
        return model(x).square().sum()

    grads = torch.autograd.grad(loss(), [x, weight])
    for tensor, grad in zip((x, weight), grads, strict=True):
        direction, h = torch.randn_like(tensor), 1e-5
        with torch.no_grad():
            tensor.add_(direction, alpha=h)
            up = loss()
            tensor.add_(direction, alpha=-2 * h)
            down = loss()
            tensor.add_(direction, alpha=h)
        assert float((grad * direction).sum()) == pytest.approx(float((up - down) / (2 * h)), rel=1e-5, abs=1e-7)


def test_solve_takes_overrides_and_refuses_unknown_ones() -> None:
    model = models.classifier(models.DenseConfig(8), image=(4,), classes=2, max_steps=50)
    x = torch.randn(3, 4)
    usual = model.solve(x)
    assert usual.x is x
    again = model.solve(x, z0=usual.z.detach(), trace=True, solver=jiio.Picard(), max_steps=5, on_failure="ignore")
    assert again.evaluations.cell < usual.evaluations.cell
    assert again.trace is not None
    assert model.max_steps == 50
    with pytest.raises(jiio.ArgumentTypeError, match="nonsense"):
        model.solve(x, nonsense=3)


def test_settings_are_attributes_of_one_record() -> None:
    model = models.classifier(models.DenseConfig(8), image=(4,), classes=2, max_steps=50, solver=jiio.Picard())
    assert model.settings == jiio.SolveSettings(solver=jiio.Picard(), max_steps=50)
    model.tolerance = never = jiio.Tolerance(0.0, 1e-300)
    model.on_failure = "ignore"
    assert model.settings == jiio.SolveSettings(jiio.Picard(), tolerance=never, max_steps=50, on_failure="ignore")

    model.settings = model.settings.merged(max_steps=7)
    assert model.max_steps == 7 and int(model.solve(torch.randn(2, 4)).steps.max()) <= 7
    with pytest.raises(jiio.JiioError, match="max_steps"):
        model.max_steps = 1
    assert model.max_steps == 7


def test_the_injection_runs_once_per_forward_pass() -> None:
    model = models.classifier(models.DenseConfig(8), image=(4,), classes=2)
    calls: list[int] = []
    model.inject.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(torch.randn(3, 4))
    assert len(calls) == 1


def test_problem_optimises_the_input_of_a_decoder() -> None:
    model = models.decoder(SMALL, image=(1, 8, 8), latent=4, squash="sigmoid")
    with torch.no_grad():
        target = model(torch.randn(3, 4))
    problem = model.problem(lambda image, x: (image - target).square().flatten(1).sum(1) + 1e-4 * x.square().sum(1))
    assert problem.cell.module is model  # type: ignore[union-attr]
    start = torch.zeros(3, 4)
    with torch.no_grad():
        before = problem.objective(model.solve(start).z, start)
        solution = jiio.solve(problem, start, max_steps=100, on_failure="ignore")
        after = problem.objective(model.solve(solution.x).z, solution.x)
    assert bool((after < 0.01 * before).all())
    assert torch.allclose(after, solution.value, rtol=1e-2, atol=1e-5)


def test_problem_keeps_an_attack_inside_its_ball() -> None:
    model = models.classifier(models.DenseConfig(12), image=(1, 4, 4), classes=3)
    x, y = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    loss = lambda scores, _: -nn.functional.cross_entropy(scores, y, reduction="none")  # noqa: E731
    problem = model.problem(loss, jiio.L2Ball(0.5, center=x))
    solution = jiio.solve(problem, x, on_failure="ignore")
    with torch.no_grad():
        clean, attacked = loss(model(x), x), loss(model(solution.x.detach()), x)
    assert bool((attacked < clean).all())
    assert float((solution.x - x).flatten(1).norm(dim=1).max()) <= 0.5 * (1 + 1e-6)
    solution.value.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def dropout_model() -> models.EquilibriumModel:
    return models.classifier(models.ConvConfig(8, groups=2, dropout=0.5), image=(1, 8, 8), classes=3)


def test_dropout_masks_are_drawn_once_per_problem_and_stay() -> None:
    model, x = dropout_model().train(), torch.rand(4, 1, 8, 8)
    first, second = (model.problem(lambda scores, _: scores.sum(1)).cell for _ in range(2))
    z = first.initial_state(x)  # type: ignore[union-attr]
    z = torch.randn_like(z)
    assert gap(first(z, x), first(z, x)) == 0.0
    assert gap(first(z, x), second(z, x)) > 1e-3
    mask = first.masks(z)  # type: ignore[union-attr]
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(mask[0], mask[1])
    model.eval()  # what was bound in train mode stays as it was
    assert torch.equal(first.masks(z), mask)  # type: ignore[union-attr]


def test_dropout_is_seeded_by_torch_and_absent_in_eval_mode() -> None:
    model, x = dropout_model(), torch.rand(4, 1, 8, 8)
    attributes = {key: value for key, value in vars(model).items() if not key.startswith("_")}
    with torch.no_grad():
        model.train()
        torch.manual_seed(5)
        first, other = model(x), model(x)
        torch.manual_seed(5)
        assert torch.equal(first, model(x))
        assert gap(first, other) > 1e-3
        model.eval()
        state = torch.get_rng_state()
        assert torch.equal(model(x), model(x))
        assert torch.equal(state, torch.get_rng_state())
    now = {key: value for key, value in vars(model).items() if not key.startswith("_")}
    assert {**attributes, "training": False} == now


def test_a_plain_module_serves_as_a_cell() -> None:
    model = models.EquilibriumModel(nn.Linear(3, 5), Plain(), nn.Linear(5, 2))
    model(torch.randn(4, 3)).sum().backward()
    assert model.inject.weight.grad is not None
