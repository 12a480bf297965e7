"""foolbox through our face: feasible, reproducible, the same as by hand, random states left alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import jiio
from attack_models import blobs, convolutional, equilibrium
from jiio.attacks import FoolboxAttack, ThreatModel

X, Y = blobs(6, seed=7)
RADIUS = {"linf": 0.15, "l2": 0.9, "l1": 4.0}
CASES = [
    ("LinfPGD", {"steps": 5}, "linf"),
    ("LinfDeepFoolAttack", {"steps": 10}, "linf"),
    ("L2CarliniWagnerAttack", {"steps": 20, "binary_search_steps": 2}, "l2"),
    ("DDNAttack", {"steps": 15}, "l2"),
    ("BoundaryAttack", {"steps": 30}, "l2"),
    ("HopSkipJumpAttack", {"steps": 2, "max_gradient_eval_steps": 50}, "l2"),
    ("EADAttack", {"steps": 20, "binary_search_steps": 2}, "l1"),
    ("L0FMNAttack", {"steps": 20}, "l1"),
    ("SaltAndPepperNoiseAttack", {"steps": 50}, "l2"),
]


def numpy_state() -> np.ndarray:
    return np.array(np.random.get_state(legacy=True)[1])  # pyright: ignore[reportArgumentType]


def foolbox():
    return pytest.importorskip("foolbox", reason="needs the extra: pip install jiio[foolbox]")


@pytest.mark.parametrize(("name", "options", "norm"), CASES, ids=[name for name, _, _ in CASES])
def test_what_it_finds_is_verified(name: str, options: dict, norm: str) -> None:
    foolbox()
    convolutional()  # its training draws
    threat, states = ThreatModel(norm, RADIUS[norm]), (torch.get_rng_state(), numpy_state())
    one, two = (FoolboxAttack(name, options, seed=3)(convolutional(), X, Y, threat) for _ in range(2))
    assert torch.equal(one.x, two.x) and bool((one.distance <= RADIUS[norm] * (1 + 1e-5)).all())
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(numpy_state(), states[1])
    with torch.no_grad():
        assert torch.equal(one.success, convolutional()(one.x).argmax(1) != Y)
    assert one.cost["forward"] > 3


def test_it_is_that_of_foolbox() -> None:
    tools = foolbox()
    found = FoolboxAttack("LinfPGD", {"steps": 5, "random_start": False})(
        convolutional(), X, Y, ThreatModel("linf", 0.1)
    )
    by_hand = tools.PyTorchModel(convolutional(), bounds=(0, 1), device="cpu")
    _, theirs, _ = tools.attacks.LinfPGD(steps=5, random_start=False)(by_hand, X, Y, epsilons=[0.1])
    with torch.no_grad():
        assert torch.equal(found.success, convolutional()(theirs[0]).argmax(1) != Y)
    assert torch.equal(found.x[found.success], theirs[0][found.success])


def test_equilibria_and_other_bounds() -> None:
    foolbox()
    attack = FoolboxAttack("LinfPGD", {"steps": 10, "rel_stepsize": 0.2})
    found = attack(equilibrium(), X, Y, ThreatModel("linf", 0.4, (-1.0, 1.0)))
    assert found.cost["vjps"] > 0 and int(found.success.sum()) >= 4


def test_decisions_ask_for_no_gradient() -> None:
    assert FoolboxAttack("BoundaryAttack").gradient_free and not FoolboxAttack("LinfPGD").gradient_free


BAD = {
    "name": (lambda: FoolboxAttack("Magic"), "FoolboxAttack.attack: expected"),
    "options": (
        lambda: FoolboxAttack("LinfPGD", {"nonsense": 1}),
        "FoolboxAttack.options: expected options of",
    ),
    "norm": (lambda: FoolboxAttack("L2PGD"), "threat.norm: expected 'l2' for L2PGD"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be(name: str) -> None:
    foolbox()
    make, words = BAD[name]
    with pytest.raises(jiio.ArgumentError, match="^" + words.replace(".", r"\.")):
        make()(convolutional(), X, Y, ThreatModel("linf", 0.1))


def test_a_missing_extra_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(jiio.ArgumentError, match=r"the package foolbox.*jiio\[foolbox\]"):
        FoolboxAttack("LinfPGD")(convolutional(), X, Y, ThreatModel("linf", 0.1))
