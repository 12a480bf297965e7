"""Amortised starts: what they propose, how they are taught, and that a bad one does no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import jiio
from helpers import central, gap, relative
from jiio.checks import CheckpointError, JiioError
from jiio.models import DenseConfig, ModelConfig
from jiio.models import build as build_model
from jiio.outputs.digest import of_model
from jiio.tasks.generate import inference
from jiio.tasks.generate.generator import EXACT, LatentGenerator
from jiio.tasks.maps.base import Inpaint
from jiio.tasks.meta import adaptation
from jiio.tasks.meta.learner import FewShotLearner, LearnerConfig
from jiio.tasks.solving.amortised import AmortisedStart, Sizes, load_start, save_start, support_observation
from jiio.tasks.solving.learning import Finished, finish, regression_loss, train_on_objective, train_start
from jiio.tasks.solving.starts import Plain
from problems import DOUBLE, Case, make

TIGHT: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-10, 1e-10), "max_steps": 600, "on_failure": "ignore"}
LONG: dict[str, Any] = TIGHT | {"max_steps": 3000}


class Begun:
    """The cell of a case that knows where to begin."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        return self.case.cell(z, x)

    def initial_state(self, x: Tensor) -> Tensor:
        return self.case.z0


def posed(case: Case, seed: int = 0, batch: int = 8, prox: jiio.AbstractProx | None = None):
    """(problem, x0, observation): the case with fresh targets y, which are all that a start sees."""
    y = torch.randn(batch, case.C.shape[0], dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    case = case.with_(y=y)
    return jiio.Problem(Begun(case), case.objective, prox or jiio.Identity()), case.x0, y


def taught(case: Case, *, count: int = 64) -> tuple[AmortisedStart, Finished]:
    done = finish([posed(case, 100, count)], **TIGHT)
    return train_start(done), done


def bad(sizes: Sizes, size: float, seed: int, propose: str = "xzmu") -> AmortisedStart:
    """A start with random weights of a size."""
    start = AmortisedStart(sizes, hidden=4, propose=propose).double()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=draw, dtype=DOUBLE))
    return start.requires_grad_(False)


def small_generator(seed: int = 0) -> LatentGenerator:
    """Images of 3 x 3 pixels from 2 numbers."""
    torch.manual_seed(seed)
    plan = ModelConfig(DenseConfig(6, gain=0.5), (2,), "image", (1, 3, 3), "none")
    model = LatentGenerator(build_model(plan), torch.full((1, 3, 3), 0.4), prior=0.3).double()
    return model.eval()


def pictures(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def small_learner() -> FewShotLearner:
    torch.manual_seed(0)
    made = FewShotLearner(LearnerConfig(channels=(4,), features=5, task=3, prior=0.5, gain=0.5), channels=1, size=6)
    with torch.no_grad():
        made.log_scale.fill_(0.0)
    return made.double()


# ----------------------------------------------------------------------------------------------------------------------
# Where the answer is known


def test_a_linear_start_solves_a_linear_quadratic_problem():
    """There x*, z* and mu* are affine in y: ridge regression on 64 solves finds the map, and nothing is left to do."""
    case = make(1)
    start, _ = taught(case)
    problem, x0, y = posed(case, 5)
    z, mu, x = case.with_(y=y).kkt()
    said = start.proposal(problem, x0, y)
    assert said.z is not None and said.multiplier is not None
    assert max(gap(said.x, x), gap(said.z, z), gap(said.multiplier, mu)) < 1e-4
    loose: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-5, 1e-3)}
    from_plain, from_there = jiio.solve(problem, x0, **loose), said.solve(problem, **loose)
    assert int(from_there.steps.max()) == 2 and int(from_plain.steps.min()) > 8
    assert gap(from_there.x, x) < 1e-3


# ----------------------------------------------------------------------------------------------------------------------
# The network


def tree_case(batch: int = 4) -> tuple[jiio.Problem, dict[str, Tensor], Tensor]:
    """A state of two leaves and an input of two leaves."""

    class Cell:
        def __call__(self, z, x):
            a = torch.tanh(0.3 * z[0] + x["a"])
            return a, 0.3 * z[1] + x["b"][:, :, None] + 0.1 * z[0][:, :1, None]

        def initial_state(self, x):
            return x["a"].new_zeros(len(x["a"]), 3), x["a"].new_zeros(len(x["a"]), 2, 2)

    y = torch.rand(batch, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))

    def objective(z, x):
        own = x["a"].square().sum(1) + x["b"].square().sum(1)
        return (z[0] - y).square().sum(1) + (z[1] - 0.2).square().flatten(1).sum(1) + 0.1 * own

    return jiio.Problem(Cell(), objective), {"a": y.new_zeros(batch, 3), "b": y.new_zeros(batch, 2)}, y


def test_states_and_inputs_may_be_trees():
    problem, x0, y = tree_case(40)
    done = finish([(problem, x0, y)], **TIGHT)
    assert done.sizes == Sizes(3, 5, 7) and done.z.shape == (40, 1, 7)
    begin = train_start(done, steps=20, hidden=4).begin(problem, x0, y)
    assert begin.z is not None and begin.multiplier is not None
    assert begin.z[0].shape == (40, 3) and begin.multiplier[1].shape == (40, 2, 2) and begin.x["b"].shape == (40, 2)
    assert gap(begin.solve(problem, **TIGHT).x, jiio.solve(problem, x0, **TIGHT).x) < 1e-6


@pytest.mark.parametrize("sets", [False, True])
def test_neither_batch_mates_nor_the_order_of_a_set_matter(sets):
    start = bad(Sizes(3, 2, 4, sets), 0.5, 0)
    seen = torch.rand(5, *([4] if sets else []), 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    x, z, mu = start(seen)
    order = torch.tensor([3, 0, 4, 1, 2])
    count = 4 if sets else 1
    assert torch.allclose(start(seen[order])[0], x[order])
    assert torch.allclose(start(seen[1:2])[1], z.unflatten(0, (5, count))[1])
    if sets:
        turned = start(seen.flip(1))
        assert torch.allclose(turned[0], x)
        assert torch.allclose(turned[2].unflatten(0, (5, 4)).flip(1), mu.unflatten(0, (5, 4)))
        assert start(seen[:, :2])[1].shape == (10, 4)  # fewer elements


@pytest.mark.parametrize("hidden", [0, 4])
def test_before_training_a_start_is_the_mean(hidden):
    start = AmortisedStart(Sizes(3, 2, 4), hidden=hidden).double()
    start.get_buffer("x_mean").fill_(1.5)
    x, z, _ = start(torch.rand(6, 3, dtype=DOUBLE))
    assert not bool(x.any()) and not bool(z.any())
    assert torch.equal(start.natural("x", x), torch.full((6, 2), 1.5, dtype=DOUBLE))


# ----------------------------------------------------------------------------------------------------------------------
# Training


def test_the_gradient_of_the_loss_equals_finite_differences():
    _, done = taught(make(2, act="tanh"), count=16)
    start = bad(done.sizes, 0.3, 1).requires_grad_(True)
    for block in ("x", "z", "mu"):
        start.get_buffer(f"{block}_scale").fill_(0.7)
    weights = list(start.parameters())
    at = torch.cat([p.detach().flatten() for p in weights])

    def loss(vector: Tensor) -> Tensor:
        with torch.no_grad():
            for p, part in zip(weights, vector.split([p.numel() for p in weights]), strict=True):
                p.copy_(part.view_as(p))
        return regression_loss(start, done).sum()

    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss(at), weights)])
    direction = torch.randn(at.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
    assert relative(float(gradient @ direction), central(loss, at, direction)) < 1e-7


def test_the_loss_counts_variances_whatever_the_units():
    _, done = taught(make(2, act="tanh"))
    moved = Finished(done.observation, 1e3 * done.x + 7, 1e-3 * done.z, 50 * done.mu, done.scaling, done.sizes)
    one, other = (regression_loss(train_start(d, steps=8, hidden=8), d) for d in (done, moved))
    assert torch.allclose(one, other, rtol=1e-5)
    mean = AmortisedStart(done.sizes).double()
    for block in ("x", "z", "mu"):
        every = getattr(done, block).flatten(0, -2)
        mean.get_buffer(f"{block}_mean").copy_(every.mean(0))
        mean.get_buffer(f"{block}_scale").copy_((every - every.mean(0)).square().mean().sqrt())
    assert torch.allclose(regression_loss(mean, done), torch.ones(3, dtype=DOUBLE))


@pytest.mark.slow
def test_a_network_learns_what_a_linear_map_cannot():
    case = make(2, act="tanh", ridge=0.3).with_(b=torch.full((10,), 0.8, dtype=DOUBLE))
    done = finish([posed(case, 7, 300)], **TIGHT)
    _, held = done.split(0)
    linear, network = (train_start(done, steps=300, hidden=hidden) for hidden in (0, 32))
    assert float(regression_loss(network, held).sum()) < 0.8 * float(regression_loss(linear, held).sum())


def test_training_on_the_objective_lowers_it_after_a_few_steps():
    case = make(2, act="tanh", ridge=0.3)
    start, _ = taught(case, count=12)
    start = bad(start.sizes, 0.02, 3)
    better = train_on_objective(start, lambda step: posed(case, 200 + step, 16), joint_steps=3, steps=25, rate=1e-2)
    problem, x0, y = posed(case, 999, 32)
    few: dict[str, Any] = {"max_steps": 3, "on_failure": "ignore", "adjoint": jiio.Detached()}
    before, after = (s.proposal(problem, x0, y).solve(problem, **few).value.mean() for s in (start, better))
    assert float(after) < 0.9 * float(before)


# ----------------------------------------------------------------------------------------------------------------------
# The safeguard


@settings(max_examples=15, deadline=None)
@given(
    size=st.sampled_from([0.0, 0.1, 3.0, 1e4, 1e200, float("nan")]),
    seed=st.integers(0, 1000),
    propose=st.sampled_from(["x", "xz", "xzmu"]),
    bounded=st.booleans(),
)
@example(size=0.1, seed=30, propose="xzmu", bounded=True)  # dropped, and solved with the scales that it had said
def test_a_bad_start_changes_nothing_and_costs_three_calls(size, seed, propose, bounded):
    case = make(2, ridge=0.5)  # convex: one minimum, wherever the solve begins
    problem, x0, y = posed(case, seed, prox=jiio.Box(-0.4, 0.4) if bounded else None)
    start = bad(Sizes(6, 4, 10), size, seed, propose)
    begin = start.begin(problem, x0, y)
    assert begin.calls == (3 if propose == "xzmu" else 2)
    assert begin.kept is not None and begin.kept.shape == (8,)
    if size != size or (size >= 1e4 and not bounded):  # a corner of the box may be better than its middle
        assert not bool(begin.kept.any())
        assert torch.equal(begin.x, x0)
    ours, plain = begin.solve(problem, **TIGHT), jiio.solve(problem, x0, **TIGHT)
    assert bool(ours.converged.all())
    assert gap(ours.x, plain.x) < 1e-6 and gap(ours.value, plain.value) < 1e-6
    if not bool(begin.kept.any()):
        assert begin.measures
        assert int(ours.steps.max()) <= 1.3 * int(plain.steps.max()) + 5


def test_each_sample_is_judged_for_itself():
    case = make(1)
    start, _ = taught(case)
    problem, x0, y = posed(case, 5)
    spoilt = y.clone()
    spoilt[::2] *= -30
    kept = start.begin(problem, x0, spoilt).kept
    assert kept is not None and kept.tolist() == [False, True] * 4
    alone = start.begin(*posed_rows(case, 5, 1))
    assert alone.kept is not None and bool(alone.kept.all())
    assert gap(alone.x, start.begin(problem, x0, spoilt).x[1:2]) < 1e-12


def posed_rows(case: Case, seed: int, row: int):
    """One sample of :func:`posed`."""
    _, _, y = posed(case, seed)
    alone = case.with_(y=y[row : row + 1])
    return jiio.Problem(Begun(alone), alone.objective), alone.x0, alone.y


# ----------------------------------------------------------------------------------------------------------------------
# In the tasks


@pytest.mark.slow
def test_generators_fit_the_same_codes_in_fewer_calls():
    model = small_generator()

    def case(seed: int) -> Any:
        y = pictures(16, seed)
        return model.problem(y, EXACT), model.start(y), model.observation(y, EXACT)

    start = train_start(finish((case(100 + i) for i in range(8)), **TIGHT), steps=300, hidden=16)
    how, y = inference.JointInference(atol=1e-7, rtol=1e-6, max_steps=300), pictures()
    plain, ours = how.infer(model, y), how.infer(model, y, start=start)
    assert gap(plain.x, ours.x) < 1e-4 and ours.calls < 0.8 * plain.calls
    weights = list(model.decoder.parameters())
    a, b = (torch.cat([g.flatten() for g in torch.autograd.grad(r.loss.sum(), weights)]) for r in (plain, ours))
    assert float((a - b).norm() / a.norm()) < 1e-4  # the envelope gradient is that of the objective, not of the scaled


def test_restorers_restore_the_same_images():
    model = small_generator()
    mask = torch.ones(6, 1, 3, 3, dtype=DOUBLE)
    mask[:, :, 1, 1] = 0
    operator = Inpaint(mask)
    y = operator.A(pictures())
    seen = model.observation(y, operator)
    assert seen.shape == (6, 18) and torch.equal(seen[:, 9:], mask.flatten(1))
    assert torch.allclose(seen[:, :9], (mask * (pictures() - 0.4)).flatten(1))
    start = bad(Sizes(18, 2, 6), 0.05, 0)
    plain, ours = (model.restore(y, operator, start=s, **TIGHT)[0] for s in (Plain(), start))
    assert gap(plain, ours) < 1e-6


@pytest.mark.parametrize("shots", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_few_shot_learners_adapt_to_the_same_variable_with_the_same_meta_gradient(shots):
    model = small_learner()
    how = adaptation.JointAdaptation(atol=1e-11, rtol=1e-10, max_steps=600, adjoint_rtol=1e-10, adjoint_steps=300)

    def case(seed: int) -> Any:
        draw = torch.Generator().manual_seed(seed)
        support = model.images(torch.rand(6, 3 * shots, 1, 6, 6, generator=draw, dtype=DOUBLE))
        return model.problem(support, 3), model.start(6), support_observation(support.u.detach(), 3)

    with torch.no_grad():
        start = train_start(finish((case(50 + i) for i in range(4)), **TIGHT), steps=20, hidden=8)
    problem, x0, seen = case(0)
    assert seen.shape == (6, 3 * shots, 10)
    begin = start.begin(problem, x0, seen)
    assert begin.multiplier is not None and begin.multiplier.shape == (6, 3 * shots, 5)
    plain, ours = how.adapt(problem, x0), how.adapt(problem, x0, begin)
    assert gap(plain.x, ours.x) < 1e-6 and bool(ours.converged.all())
    weights = [model.film.weight, model.log_scale]
    a, b = (
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(r.x.sum() + r.z.square().sum(), weights, retain_graph=True)]
        )
        for r in (plain, ours)
    )
    assert float((a - b).norm() / a.norm()) < 1e-4


# ----------------------------------------------------------------------------------------------------------------------
# Files, and what is refused


def test_a_start_comes_back_from_its_file(tmp_path: Path):
    start = bad(Sizes(3, 2, 4, True), 0.5, 0, "xz")
    start.get_buffer("scaling").copy_(torch.tensor([3.0, 0.5]))
    path = tmp_path / "start.safetensors"
    save_start(path, start, "0123456789abcdef")
    again = load_start(path, "0123456789abcdef")
    assert again.sizes == start.sizes and again.propose == "xz" and again.hidden == 4
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), start.state_dict().values(), strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["start.safetensors"]


def test_a_start_for_another_model_is_refused_and_so_is_what_is_none(tmp_path: Path):
    path = tmp_path / "start.safetensors"
    save_start(path, bad(Sizes(3, 2, 4), 0.5, 0), "0123456789abcdef")
    with pytest.raises(CheckpointError, match=r"a start for the model fedcba9876543210.* Train a start"):
        load_start(path, "fedcba9876543210")
    data = path.read_bytes()
    for damaged in (data[:-40], b"\x80\x04 a pickle", b"nothing", data.replace(b"jiio-start", b"jiio-stard")):
        path.write_bytes(damaged)
        with pytest.raises(JiioError, match=r"start: .*(damaged or not an amortised start|a pickle)"):
            load_start(path, "0123456789abcdef")
    with pytest.raises(JiioError, match="cannot be opened"):
        load_start(tmp_path / "none", "")


def test_the_fingerprint_is_of_every_weight_and_setting():
    model = small_generator()
    before = of_model(model, model.prior)
    assert before == of_model(small_generator(), 0.3) and len(before) == 16
    assert before != of_model(model, 0.31)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-12
    assert before != of_model(model, model.prior)
    assert before != of_model(model.bfloat16(), model.prior)  # a number format that NumPy has not


def test_what_does_not_fit_is_refused_in_a_sentence():
    case = make(1)
    start, _ = taught(case)
    problem, x0, y = posed(case)
    with pytest.raises(JiioError, match=r"problem: expected the shapes that this start was trained on"):
        start.begin(problem, x0[:, :2], y)
    with pytest.raises(JiioError, match="shapes that this start was trained on"):
        start.begin(problem, x0, y[:, :4])
    with pytest.raises(JiioError, match=r"observation: expected a tensor \(B, 6\)"):
        start(y[:, :4])
    with pytest.raises(JiioError, match="at least ten samples whose solve converges"):
        finish([posed(case, batch=4)])
    with pytest.raises(JiioError, match="cases: "):
        finish([posed(case)], max_steps=3)
    with pytest.raises(JiioError, match="propose"):
        AmortisedStart(Sizes(1, 1, 1), propose="mu")
    with pytest.raises(JiioError, match="hidden"):
        AmortisedStart(Sizes(1, 1, 1), hidden=-1)
