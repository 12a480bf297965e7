"""Equilibria inside other modules: found, seen, set, attacked; and the whole model is what is judged."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import jiio
from attack_models import CLASSES, blobs, equilibrium, hasty
from jiio.attacks import (
    PGD,
    AbstractAttack,
    Audit,
    IntermediateAttack,
    JointAttack,
    SimultaneousAttack,
    Target,
    ThreatModel,
    certify,
    evaluate,
)

X, Y = blobs(8, seed=5)
THREAT = ThreatModel("linf", 0.08)


class Normalise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.1) / 1.2


class Own(nn.Module):
    """A wrapper of somebody's own, with a layer before and one behind."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.last = model, nn.Linear(CLASSES, CLASSES, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(torch.eye(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.model(Normalise()(x)))


class Overridden(jiio.EquilibriumModel):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Normalise()(x))


def overridden() -> jiio.EquilibriumModel:
    parts = copy.deepcopy(equilibrium())
    options = {"tolerance": parts.tolerance, "on_failure": "ignore"}
    return Overridden(parts.inject, parts.cell, parts.head, **options).eval()


def hooked() -> jiio.EquilibriumModel:
    model = copy.deepcopy(equilibrium())
    model.register_forward_pre_hook(lambda _, inputs: (Normalise()(inputs[0]),))
    return model


WRAPPED = {
    "sequential": lambda: nn.Sequential(Normalise(), equilibrium()),
    "layers behind": lambda: nn.Sequential(Normalise(), equilibrium(), nn.Identity()),
    "own": lambda: Own(equilibrium()).eval(),
    "data parallel": lambda: nn.DataParallel(nn.Sequential(Normalise(), equilibrium())),
    "averaged": lambda: AveragedModel(nn.Sequential(Normalise(), equilibrium())).eval(),
    "overridden": overridden,
    "hooked": hooked,
}
ATTACKS = [
    PGD(steps=4),
    PGD(steps=4, warm=True, adjoint=jiio.Phantom()),
    JointAttack(steps=12),
    IntermediateAttack(steps=2, states=(0, 3), unrolled=(1,)),
    SimultaneousAttack(steps=3),
]


# Every attack on three of them, one attack on all.
PAIRS = [
    pytest.param(name, attack, id=f"{name}-{attack.name}")
    for name in WRAPPED
    for attack in (ATTACKS if name in ("sequential", "own", "hooked") else ATTACKS[2:3])
]


@pytest.mark.parametrize(("name", "attack"), PAIRS)
def test_a_wrapped_equilibrium_is_the_same_as_a_normalised_target(name: str, attack: AbstractAttack) -> None:
    """All of them mean one model; attacks find the same in it, whoever normalises."""
    bare, wrapped = Target(equilibrium(), mean=0.1, std=1.2), Target(WRAPPED[name]())
    assert wrapped.implicit and wrapped.options["max_steps"] == bare.options["max_steps"]
    expected, found = (attack(target, X, Y, THREAT) for target in (bare, wrapped))
    assert float((expected.x - found.x).abs().max()) < 2e-3 and torch.equal(expected.success, found.success)
    assert found.cost["evaluations"] > 0 and bool(found.converged.all())


@pytest.mark.parametrize("name", ["sequential", "data parallel", "averaged", "own"])
def test_what_has_not_converged_is_not_robust(name: str) -> None:
    model = WRAPPED[name]()
    inner = Target(model).inner[0]
    own = inner.settings
    inner.settings = own.merged(max_steps=2, solver=jiio.Picard(damping=0.3))
    try:
        draws = torch.Generator().manual_seed(0)
        report = evaluate(model, [(X, Y)], THREAT, [PGD(steps=3)], generator=draws, audit=Audit(samples=6, steps=3))
    finally:
        inner.settings = own
    names = {finding["name"] for finding in report.findings}
    assert report.robust.count == 0 and report.unconverged > 0 and "unconverged" in names
    assert report.solver["clean"]["converged"] == 0.0


# Dynamo looks at .grad of whatever it wraps, and is told off by torch itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_model_is_seen() -> None:
    model = torch.compile(nn.Sequential(Normalise(), equilibrium()), backend="eager")
    target = Target(model)  # type: ignore[arg-type]
    assert target.implicit
    bare = Target(equilibrium(), mean=0.1, std=1.2)
    for attack in (PGD(steps=2), JointAttack(steps=6)):
        expected, found = (attack(one, X, Y, THREAT) for one in (bare, target))
        assert float((expected.x - found.x).abs().max()) < 2e-3
        assert expected.cost["vjps"] == found.cost["vjps"] > 0
    assert "solve" not in vars(target.inner[0])


class Mean(nn.Module):
    """The mean of its members' scores, each asked for so many views."""

    def __init__(self, *members: nn.Module, views: int = 1) -> None:
        super().__init__()
        self.members, self.views = nn.ModuleList(members), views

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.stack([member(x.repeat(self.views, 1, 1, 1)) for member in self.members]).mean(0)
        return scores.view(self.views, len(x), -1).mean(0)


@pytest.mark.slow
def test_ensembles_settle_when_all_members_do() -> None:
    good = Target(Mean(equilibrium(), copy.deepcopy(equilibrium())))
    both = good.predict(X)
    assert bool(both.converged.all()) and both.state is None
    assert bool((both.steps > Target(equilibrium()).predict(X).steps).all())
    assert not bool(Target(Mean(equilibrium(), hasty())).predict(X).converged.any())
    assert bool(Target(Mean(equilibrium(), views=2)).predict(X).converged.all())
    assert not bool(Target(Mean(hasty(), views=2)).predict(X).converged.any())
    assert int(PGD(steps=5)(good.model, X, Y, ThreatModel("linf", 0.3)).success.sum()) >= 6
    with pytest.raises(jiio.ArgumentError, match=r"^model: expected one EquilibriumModel, .* got 2 of them"):
        JointAttack()(good, X, Y, THREAT)


def test_an_equilibrium_that_is_asked_twice_has_no_way_in() -> None:
    class Twice(Own):
        def forward(self, x: Tensor) -> Tensor:
            return self.model(x) + self.model(1.0 - x)

    with pytest.raises(jiio.CellError, match=r"^model: expected one call of solve .* got 2 of them"):
        JointAttack(steps=3)(Twice(equilibrium()), X, Y, THREAT)


def test_settings_reach_the_inside() -> None:
    model = nn.Sequential(Normalise(), equilibrium())
    short = Target(model, max_steps=2).predict(X)
    assert int(short.steps.max()) == 2 and not bool(short.converged.any())
    assert int(Target(model).predict(X).steps.max()) > 2


def test_no_certificate_for_what_stands_around_the_equilibrium() -> None:
    """The bound speaks of inject, cell and head alone."""
    assert certify(equilibrium(), X, Y, THREAT) is not None
    for name in ("sequential", "overridden", "hooked"):
        assert certify(WRAPPED[name](), X, Y, THREAT) is None


def test_the_books_do_not_grow() -> None:
    target = Target(equilibrium())
    for _ in range(300):
        target.counts.record(jiio.Evaluations(cell=2, vjp=1, adjoint_vjp=3))
    assert len(target.counts.solves) <= 256
    assert target.counts.evaluations == 600 and target.counts.vjps == 1200
    target.counts.add({"forward": 1, "backward": 2, "evaluations": 3, "vjps": 4})
    assert target.counts.plain() == {"forward": 1, "backward": 2, "evaluations": 603, "vjps": 1204}
