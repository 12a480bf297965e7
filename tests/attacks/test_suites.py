"""torchattacks and AutoAttack through our face against the same tools called by hand, sample by sample."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import jiio
from attack_models import blobs, convolutional, equilibrium
from jiio import attacks
from jiio.attacks import PGD, SUITES, AbstractAttack, AutoAttack, Target, ThreatModel, TorchAttack
from jiio.attacks.runs import Run

X, Y = blobs(12, seed=7)


def torchattacks():
    return pytest.importorskip("torchattacks", reason="needs the extra: pip install jiio[attacks]")


def pyautoattack():
    return pytest.importorskip("pyautoattack", reason="needs the extra: pip install jiio[attacks]")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_our_pgd_is_that_of_torchattacks_step_for_step(norm: str) -> None:
    kind = torchattacks().PGD if norm == "linf" else torchattacks().PGDL2
    radius, model = {"linf": 0.08, "l2": 0.4}[norm], convolutional()
    for steps in (1, 2, 10):
        torch.manual_seed(5)
        tool = kind(model, eps=radius, alpha=radius / 4, steps=steps)
        tool.eps_for_division = 0.0  # 1e-10 by default: it shortens the steps where the model is very sure of itself
        theirs = tool(X, Y)
        threat = ThreatModel(norm, radius)
        start = threat.random_start(X, torch.Generator().manual_seed(5))  # as theirs draws it, for the whole batch
        ours = PGD(steps=steps, step=0.25, exact=False, best=False)
        found = ours._once(Run(Target(model), X, Y, threat, point=start))
        assert float((found - theirs).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("name", "norm"), [("MIFGSM", "linf"), ("APGD", "linf"), ("PGDL2", "l2"), ("DeepFool", "l2"), ("Square", "l2")]
)
def test_torchattacks_through_the_face(name: str, norm: str) -> None:
    tools, model, radius = torchattacks(), convolutional(), {"linf": 0.08, "l2": 0.5}[norm]
    options = {"MIFGSM": {"steps": 4}, "APGD": {"steps": 5}, "PGDL2": {"steps": 4}, "Square": {"n_queries": 20}}
    given = options.get(name, {"steps": 10})
    result = TorchAttack(name, given, seed=3)(model, X, Y, ThreatModel(norm, radius))
    mine = {"eps": radius} if name != "DeepFool" else {}
    mine |= {"norm": "L2" if norm == "l2" else "Linf"} if name in ("APGD", "Square") else {}
    mine |= {"seed": 3} if name in ("APGD", "Square") else {}
    torch.manual_seed(3)
    with torch.random.fork_rng():
        theirs = getattr(tools, name)(model, **mine, **given)(X, Y)
    with torch.no_grad():
        wrong = model(theirs).argmax(1) != Y
        inside = (theirs - X).flatten(1).norm(dim=1, p=2 if norm == "l2" else float("inf")) <= radius + 1e-6
    assert torch.equal(result.success & inside, wrong & inside)
    assert bool(inside.all()) or name == "DeepFool"


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.slow)])
def test_autoattack_is_that_of_pyautoattack_sample_by_sample(norm: str) -> None:
    tool, model, radius = pyautoattack(), convolutional(), {"linf": 0.06, "l2": 0.3}[norm]
    state = torch.get_rng_state()
    ours = AutoAttack(queries=50, seed=9)(model, X, Y, ThreatModel(norm, radius))
    assert torch.equal(torch.get_rng_state(), state)
    theirs = tool.AutoAttack(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=radius, seed=9, version="standard")
    theirs.apgd_targeted.n_target_classes = theirs.fab.n_target_classes = 3
    theirs.square.n_queries, theirs.verbose = 50, False
    with torch.random.fork_rng():
        found, labels = theirs.run_standard_evaluation(X, Y, batch_size=len(X))
    assert torch.equal(ours.success, labels != Y)
    assert torch.equal(ours.x[ours.success], found[ours.success])
    assert 0 < int(ours.success.sum()) < len(X)


class Shifted(nn.Module):
    """The network for images in [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return convolutional()((x + 1.0) / 2.0)


SLOWLY = pytest.param(AutoAttack(queries=20, seed=2), marks=pytest.mark.slow)


@pytest.mark.parametrize("attack", [TorchAttack("PGD", {"steps": 5}, seed=2), SLOWLY])
def test_other_bounds_and_normalisation(attack: AbstractAttack) -> None:
    """[-1, 1] with twice the radius is the same problem, and so is a normalisation undone by the model."""
    torchattacks()
    pyautoattack()
    plain = attack(convolutional(), X, Y, ThreatModel("linf", 0.06))
    wide = attack(Shifted(), 2 * X - 1, Y, ThreatModel("linf", 0.12, (-1.0, 1.0)))
    assert torch.equal(plain.success, wide.success)
    assert float(((wide.x + 1) / 2 - plain.x).abs().max()) < 1e-5
    normal = attack(Target(Shifted(), mean=0.5, std=0.5), X, Y, ThreatModel("linf", 0.06))
    assert torch.equal(plain.success, normal.success)


@pytest.mark.parametrize("attack", [TorchAttack("PGD", {"steps": 4, "alpha": 0.05}), TorchAttack("FAB", {"steps": 4})])
def test_equilibrium_models_in_train_mode(attack: AbstractAttack) -> None:
    torchattacks()
    model = equilibrium()
    model.train()
    try:
        result = attack(model, X, Y, ThreatModel("linf", 0.08))
        assert model.training and model.cell.training and result.cost["vjps"] > 0
    finally:
        model.eval()
    assert int(result.success.sum()) > 0


def test_few_classes_and_tracing_survive_autoattack() -> None:
    pyautoattack()
    two = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    x, y = X, (Y > 1).long()

    def trace(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        result = AutoAttack(queries=10)(two, x, y, ThreatModel("linf", 0.1))
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert bool((result.distance <= 0.1 + 1e-5).all())


def test_the_suites() -> None:
    assert set(SUITES) == {"standard", "autoattack", "deq"}
    for make in SUITES.values():
        names = [attack.name for attack in make()]
        assert names and len(set(names)) == len(names)
    assert any(attack.gradient_free for attack in SUITES["standard"]())


def test_every_attack_and_suite_has_a_name_for_configurations() -> None:
    """ATTACKS is all of them and nothing else; the names stand where they say."""
    public = {name: getattr(attacks, name) for name in vars(attacks)["__all__"]}
    kinds = {n: c for n, c in public.items() if isinstance(c, type) and issubclass(c, AbstractAttack)}
    assert set(attacks.ATTACKS) == set(kinds) - {"AbstractAttack"}
    for name, path in attacks.CHOICES["attack"].items():
        module, _, word = path.partition(":")
        assert getattr(importlib.import_module(module, "jiio.attacks"), word) is kinds[name]
    assert set(attacks.SUITE_NAMES) == set(SUITES)


def test_the_names_of_attacks_cost_no_torch() -> None:
    script = "import sys; from jiio import attacks; assert attacks.ATTACKS['PGD'] and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("package", ["torchattacks", "pyautoattack"])
def test_a_missing_extra_is_a_sentence(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    attack = TorchAttack("PGD") if package == "torchattacks" else AutoAttack()
    with pytest.raises(jiio.ArgumentError, match=rf"the package {package}.*jiio\[attacks\]"):
        attack(convolutional(), X, Y, ThreatModel("linf", 0.1))
