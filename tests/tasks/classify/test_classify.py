"""The task ``classify``: data, networks, defences one by one and together, exact resuming, and what it measures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import jiio
from helpers import central, relative
from jiio import attacks
from jiio.attacks import Target, ThreatModel
from jiio.checks import JiioError
from jiio.tasks.classify.adversarial import Divergence, JointTraining, PGDTraining, divergence
from jiio.tasks.classify.data import ClassifyDataConfig, in_batches, labelled_batch, load_labelled
from jiio.tasks.classify.defences import Attacked, Batch
from jiio.tasks.classify.measured import clean_row, quick
from jiio.tasks.classify.task import Classify, ClassifyConfig, ThreatConfig
from jiio.tasks.classify.threat import TrainingThreat, near
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.load import build
from jiio.tasks.frame.loop import train, training_step
from jiio.tasks.solving.networks import ReferenceConfig, reference

SMALL = {"data": {"size": 8, "batch_size": 12}, "model": {"cell": {"name": "Dense", "options": {"features": 10}}}}
JOINT = {"name": "JointTraining", "options": {"radius": 0.5, "max_steps": 8, "settle": 2}}
PGD = {"name": "PGDTraining", "options": {"radius": 0.5, "steps": 3}}
DEFENCES = {
    "none": [],
    "clean": [{"name": "Clean"}],
    "pgd": [PGD],
    "joint": [JOINT],
    "trades": [{"name": "TRADES", "options": {"radius": 0.5, "steps": 2}}],
    "jacobian": [{"name": "JacobianPenalty"}],
    "all": [{"name": "Clean"}, PGD, JOINT, {"name": "TRADES", "options": {"steps": 2}}, {"name": "JacobianPenalty"}],
}


def configuration(**over) -> ClassifyConfig:
    return build(ClassifyConfig, {"steps": 4, "checkpoint_every": 2, **SMALL, **over})


def task_and_model(**over) -> tuple[Classify, nn.Module]:
    task = Classify(configuration(**over))
    torch.manual_seed(0)
    return task, task.model()


# Data


def test_faces_are_balanced_and_split_for_good():
    data = load_labelled(ClassifyDataConfig())
    assert data.train.shape == (140, 1, 24, 24) and data.test.shape == (60, 1, 24, 24)
    assert int(data.train_labels.sum()) == 70 and int(data.test_labels.sum()) == 30
    assert data.train.min() >= 0 and data.train.max() <= 1 and data.train.dtype == torch.float32
    few = load_labelled(ClassifyDataConfig(train_limit=10, test_limit=4))
    assert few.train_labels.tolist() == [1, 0] * 5 and torch.equal(few.test, data.test[:4])
    everything = torch.cat([data.train, data.test]).flatten(1)
    apart = torch.cdist(everything[:140], everything[140:])
    assert float(apart.min()) > 0.05  # no test picture is a training picture


def test_digits_and_small_pictures(data_root):
    digits = load_labelled(ClassifyDataConfig("mnist", 28, train_limit=50, test_limit=20), data_root=data_root)
    assert digits.train.shape == (50, 1, 28, 28) and digits.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    colour = ClassifyDataConfig("cifar10", 32, 3, train_limit=5, test_limit=6)
    pictures = load_labelled(colour, data_root=data_root)
    assert pictures.train.shape == (5, 3, 32, 32) and pictures.test_labels.tolist() == [3, 8, 8, 0, 6, 6]


def test_a_batch_is_a_function_of_seed_and_step_and_keeps_its_labels():
    config = ClassifyDataConfig(size=8, batch_size=20)
    data = load_labelled(config)
    x, y = labelled_batch(data, config, seed=3, step=5)
    again = labelled_batch(data, config, seed=3, step=5)
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    assert not torch.equal(x, labelled_batch(data, config, seed=3, step=6)[0])
    for image, label in zip(x, y, strict=True):
        where = (data.train == image).flatten(1).all(1)
        assert bool(where.any()) and set(data.train_labels[where].tolist()) == {int(label)}


def test_parts_of_the_test_images_are_all_of_them():
    data = load_labelled(ClassifyDataConfig(size=8))
    parts = in_batches(data, 25, torch.device("cpu"))
    assert [len(x) for x, _ in parts] == [25, 25, 10]
    assert torch.equal(torch.cat([x for x, _ in parts]), data.test)


# Networks


@pytest.mark.parametrize("parameters", [5_000, 50_000, 400_000])
def test_the_reference_network_has_about_the_size_asked_for(parameters):
    network = reference(ReferenceConfig(parameters), 3, 10)
    size = sum(p.numel() for p in network.parameters())
    assert abs(size - parameters) < 0.3 * parameters
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize(
    "cell",
    [
        {"name": "Dense", "options": {"features": 8}},
        {"name": "Monotone", "options": {"features": 8}},
        {"name": "Conv", "options": {"channels": 4}},
        {
            "name": "Multiscale",
            "options": {"channels": [4, 4], "groups": 4, "head_channels": [2, 2], "final_channels": 4},
        },
        {"name": "Reference", "options": {"parameters": 2000}},
    ],
    ids=lambda cell: cell["name"],
)
def test_every_cell_becomes_a_classifier_that_learns(cell):
    task, model = task_and_model(model={"cell": cell}, data={"size": 8, "batch_size": 6})
    loss, figures = task.loss(model, 0)
    assert loss.shape == () and bool(torch.isfinite(loss))
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert any(g is not None and bool(g.abs().sum() > 0) for g in gradients)
    vjps = figures["vjps"]
    assert callable(vjps)
    assert (vjps() > 0) == isinstance(model, jiio.EquilibriumModel)


def test_settings_of_the_solve_reach_the_model():
    over = {"model": {**SMALL["model"], "rtol": 1e-2, "max_steps": 7, "adjoint": {"name": "Phantom"}}}
    _, model = task_and_model(**over)
    assert isinstance(model, jiio.EquilibriumModel)
    assert model.max_steps == 7 and model.tolerance.rtol == 1e-2 and isinstance(model.adjoint, jiio.Phantom)
    _, model = task_and_model(model={**SMALL["model"], "rtol": 1e-2})
    assert isinstance(model, jiio.EquilibriumModel) and isinstance(model.adjoint, jiio.Implicit)
    assert model.adjoint.tolerance == model.tolerance


# The projection of a training


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 3.0), st.floats(0.0, 2.0))
def test_the_quick_projection_is_allowed_and_near_the_exact_one(seed, radius, far):
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 1, 3, 3, generator=source).round(decimals=1)
    point = x + far * torch.randn(x.shape, generator=source)
    quick_one, exact = TrainingThreat("l2", radius), ThreatModel("l2", radius)
    found = quick_one.project(point, x)
    assert bool((exact.violation(found, x) <= exact.slack(x)).all())
    away, best = ((p - point).flatten(1).norm(dim=1) for p in (found, exact.project(point, x)))
    assert bool((away <= best * 1.02 + 1e-5).all())
    inside = quick_one.prox(x)(point)
    assert isinstance(inside, Tensor) and torch.allclose(inside, found, atol=1e-6)


def test_the_quick_projection_leaves_alone_what_is_allowed():
    center = torch.full((2, 5), 0.5)
    point = center + 0.01
    assert torch.allclose(near(point, center, 1.0, 0.0, 1.0), point)
    assert torch.equal(near(center, center, 1.0, 0.0, 1.0), center)
    flat = ThreatModel("linf", 0.1)
    x, moved = torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2)
    assert torch.equal(TrainingThreat("linf", 0.1).project(moved, x), flat.project(moved, x))


# Defences


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("kind", [PGDTraining, JointTraining])
def test_adversarial_images_are_allowed_and_raise_the_loss(norm, kind):
    task, model = task_and_model()
    for step in range(15):  # so that there is something to attack
        loss, _ = task.loss(model, step)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.5 * p.grad if p.grad is not None else 0.0
    x, y = labelled_batch(task.data, task.config.data, seed=0, step=0)
    radius = {"l2": 0.5, "linf": 0.1, "l1": 2.0}[norm]
    defence = kind(norm, radius)
    found = defence.images(Batch(Target(model), x, y, 0, 0)).x
    threat = ThreatModel(norm, radius)
    assert bool((threat.violation(found, x) <= threat.slack(x)).all()) and not found.requires_grad
    with torch.no_grad():
        before, after = F.cross_entropy(model(x), y), F.cross_entropy(model(found), y)
    assert after > before + 0.02
    again = defence.images(Batch(Target(model), x, y, 0, 0)).x
    assert torch.equal(found, again)


def test_the_joint_attack_is_as_strong_as_pgd_at_fewer_calls():
    task, model = task_and_model(steps=30)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(30):
        training_step(task.config, task, model, optimiser, step)
    x, y = task.data.test, task.data.test_labels
    scores, calls = [], []
    for defence in (PGDTraining("l2", 0.5), JointTraining("l2", 0.5)):
        target = Target(model)
        found = defence.images(Batch(target, x, y, 0, 0))
        assert isinstance(found, Attacked)
        calls.append(target.counts.evaluations + target.counts.vjps)
        with torch.no_grad():
            scores.append(float(F.cross_entropy(model(found.x), y)))
    assert scores[1] > 0.97 * scores[0] and calls[1] < calls[0] / 3


def test_trades_adds_the_divergence_of_attacked_images():
    torch.manual_seed(0)
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    p = a.softmax(1)
    assert torch.allclose(divergence(a, b), (p * (p / b.softmax(1)).log()).sum(1), atol=1e-6)
    assert float(divergence(a, a).abs().max()) < 1e-6
    assert torch.equal(Divergence(a)(b, torch.zeros(5, dtype=torch.int64)), divergence(a, b))
    plain, _ = task_and_model()[0].loss(task_and_model()[1], 0)
    task, model = task_and_model(defence=DEFENCES["trades"])
    assert task.loss(model, 0)[0] > plain


def test_the_loss_is_the_mean_over_makers_and_each_maker_counts_once():
    once = task_and_model(defence=[{"name": "Clean"}])
    twice = task_and_model(defence=[{"name": "Clean"}, {"name": "Clean"}])
    assert torch.equal(once[0].loss(once[1], 0)[0], twice[0].loss(twice[1], 0)[0])
    bare, attacked, both = (task_and_model(defence=d) for d in ([], [JOINT], [{"name": "Clean"}, JOINT]))
    told = [float(task.loss(model, 0)[0].detach()) for task, model in (bare, attacked, both)]
    assert told[2] == pytest.approx((told[0] + told[1]) / 2, rel=1e-5)


def test_the_jacobian_penalty_adds_its_weight_times_the_squared_jacobian():
    task, model = task_and_model(defence=[{"name": "JacobianPenalty", "options": {"weight": 2.0, "probes": 400}}])
    bare = task_and_model()
    added = float((task.loss(model, 0)[0] - bare[0].loss(bare[1], 0)[0]).detach())
    assert isinstance(model, jiio.EquilibriumModel)
    x, _ = labelled_batch(task.data, task.config.data, seed=0, step=0)
    with torch.no_grad():
        z = model.solve(x).z
        slope = 1 - z.square()  # of tanh at the equilibrium
        exact = (slope[:, :, None] * model.cell.weight).square().sum((1, 2)).mean() / z.shape[1]
    assert added == pytest.approx(2.0 * float(exact), rel=0.1)


def test_the_gradient_of_the_loss_agrees_with_finite_differences():
    task, model = task_and_model(model={**SMALL["model"], "atol": 1e-12, "rtol": 1e-12, "max_steps": 200})
    model = model.double()
    task.data = dataclasses.replace(task.data, train=task.data.train.double())
    task.loss(model, 0)[0].backward()
    assert isinstance(model, jiio.EquilibriumModel)
    weight = model.get_parameter("inject.linear.weight")
    assert weight.grad is not None
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start, told = weight.detach().clone(), float((weight.grad * direction).sum())

    def value(at: Tensor) -> Tensor:
        weight.copy_(at)
        return task.loss(model, 0)[0]

    assert relative(told, central(value, start, direction, 1e-4)) < 1e-6


def test_warm_steps_train_an_ordinary_network_of_the_same_weights_on_clean_images():
    warm = {"steps": 2, "layers": 3}
    task, model = task_and_model(defence=[JOINT], warm=warm)
    assert isinstance(model, jiio.EquilibriumModel)
    x, y = labelled_batch(task.data, task.config.data, seed=0, step=1)
    u = model.inject(x)
    z = torch.zeros(len(x), 10)
    for _ in range(3):
        z = model.cell(z, u)
    expected = F.cross_entropy(model.head(z), y)
    loss, figures = task.loss(model, 1)
    torch.testing.assert_close(loss, expected)
    weight = model.get_parameter("inject.linear.weight")
    torch.testing.assert_close(torch.autograd.grad(loss, weight), torch.autograd.grad(expected, weight))
    counted = figures["evaluations"]
    assert callable(counted) and counted() == 4  # the last one only measures a residual; no attack
    cold, same = task_and_model(defence=[JOINT])
    assert torch.equal(task.loss(model, 2)[0], cold.loss(same, 2)[0])  # afterwards as without a warm beginning


# Training


@pytest.mark.parametrize("name", ["none", "all"])
def test_a_killed_training_ends_in_the_same_weights(name, tmp_path):
    whole = configuration(defence=DEFENCES[name], output=str(tmp_path / "whole"))
    parted = dataclasses.replace(whole, output=str(tmp_path / "parted"))
    first = train(whole, report=lambda line: None)
    train(parted, report=lambda line: None)
    for path in [*Path(parted.output).glob("step-*4.safetensors"), Path(parted.output) / "weights.safetensors"]:
        path.unlink()  # as if it had been killed after step 2
    second = train(parted, resume=True, report=lambda line: None)
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(value, second.tensors[key]) for key, value in first.tensors.items())
    lines = [json.loads(line) for line in (Path(parted.output) / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(4))
    assert all(line["evaluations"] > 0 and line["vjps"] > 0 and line["epoch_seconds"] > 0 for line in lines)


def test_the_log_counts_every_call_of_the_cell():
    task, model = task_and_model(defence=[JOINT])
    assert isinstance(model, jiio.EquilibriumModel)
    called = [0]
    model.cell.register_forward_hook(lambda *_: called.__setitem__(0, called[0] + 1))
    loss, figures = task.loss(model, 0)
    loss.backward()
    told = figures["evaluations"]
    assert callable(told)
    # The tape for the gradient of an equilibrium is one more call, which a count of solver work leaves out or not.
    assert abs(told() - called[0]) <= 2


def test_a_training_makes_a_classifier_and_the_evaluation_tells_the_truth(tmp_path):
    over = {"steps": 30, "checkpoint_every": 30, "optimiser": {"rate": 0.01}, "threat": {"norm": "l2", "radius": 0.3}}
    over |= {"data": {"size": 8, "batch_size": 12, "test_limit": 30}}
    config = configuration(output=str(tmp_path / "run"), **over)
    done = train(config, report=lambda line: None)
    task, model = Classify(config), Classify.trained(load(done.path)).eval()
    rows = task.evaluate(model)
    with torch.no_grad():
        right = float((model(task.data.test).argmax(1) == task.data.test_labels).float().mean())
    assert rows[0]["accuracy"] == pytest.approx(right) and right > 0.8
    assert float(rows[0]["low"]) < right < float(rows[0]["high"]) and rows[0]["converged"] == 1.0
    assert rows[1]["images"] == "attacked, l2 0.3" and 0 < float(rows[1]["accuracy"]) < right
    assert 2 <= float(rows[0]["evaluations"]) <= 60
    assert [type(a) for a in quick(model)] == [attacks.JointAttack, attacks.PGD]
    plain = reference(ReferenceConfig(2000), 1, 2)
    assert "converged" not in clean_row(Target(plain), in_batches(task.data, 60, torch.device("cpu")))
    assert [type(a) for a in quick(plain)] == [attacks.PGD]


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ({"data": {"family": "celeba"}}, "data.family: expected a family of labelled images, got str 'celeba'."),
        ({"data": {"family": "mnits"}}, "Did you mean 'mnist'?"),
        ({"data": {"channels": 2}}, "data.channels: expected 1 (grey) or 3 (colour), got int 2."),
        ({"data": {"test_share": 0.5}}, "data.test_share: no such key in data."),
        ({"model": {"cell": {"name": "Dens"}}}, "model.cell.name: no network is called 'Dens'. Did you mean 'Dense'?"),
        ({"model": {"max_steps": 1}}, "model.max_steps: expected a whole number of at least 2"),
        ({"model": {"cell": {"name": "Multiscale"}}, "data": {"size": 25}}, "multiples of 2"),
        ({"defence": [{"name": "PGDTrainin"}]}, "Did you mean 'PGDTraining'?"),
        ({"defence": [{}]}, "defence[0].name: no defence is called ''."),
        ({"defence": {"name": "Clean"}}, "defence: expected a list"),
        ({"defence": [{"name": "PGDTraining", "options": {"radius": 0}}]}, "radius: expected a number above 0"),
        ({"defence": [{"name": "PGDTraining", "options": {"norm": "l3"}}]}, "norm: expected one of 'linf', 'l2', 'l1'"),
        ({"defence": [{"name": "PGDTraining", "options": {"steps": 0}}]}, "steps: expected a whole number"),
        ({"defence": [{"name": "PGDTraining", "options": {"adjoint": "kkt"}}]}, "adjoint.name: no adjoint is called"),
        ({"defence": [{"name": "PGDTraining", "options": {"adjoint": 3}}]}, "adjoint: expected an instance of"),
        ({"defence": [{"name": "JointTraining", "options": {"max_steps": 1}}]}, "steps: expected a whole number"),
        ({"defence": [{"name": "TRADES", "options": {"beta": 0}}]}, "TRADES.beta: expected a number above 0"),
        ({"defence": [{"name": "JacobianPenalty", "options": {"weight": -1}}]}, "weight: expected a number above 0"),
        ({"threat": {"norm": "l3"}}, "threat.norm: expected one of"),
        ({"threat": {"norm": "l2", "radius": -1.0}}, "threat.radius: expected a number above 0"),
        (
            {"model": {"cell": {"name": "Reference"}}, "defence": [{"name": "JointTraining"}]},
            "defence: JointTraining needs an equilibrium, got model.cell Reference.",
        ),
        (
            {"model": {"cell": {"name": "Reference"}}, "warm": {"steps": 2}},
            "warm.steps: expected 0 for model.cell Reference, got int 2.",
        ),
        ({"warm": {"steps": 2, "layers": 0}}, "warm.layers: expected a whole number of at least 1"),
    ],
)
def test_a_mistake_in_the_configuration_is_a_sentence(over, sentence):
    with pytest.raises(JiioError) as error:
        build(ClassifyConfig, over)
    assert sentence in str(error.value)


def test_no_threat_means_no_attack():
    assert ThreatConfig().model() is None
    threat = ThreatConfig("linf", 0.1).model()
    assert threat is not None and threat.norm == "linf"
