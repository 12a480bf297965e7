"""Models that fool an evaluator are told by the finding that fits, with its remedy; honest ones raise no error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attack_models import convolutional
from jiio.attacks import PGD, AbstractAttack, Audit, JointAttack, Margin, Report, Square, Target, ThreatModel, evaluate
from trapped_models import HONEST, KNOWN, LABELS, TRAPPED, Around, at_the_label, infinite

AUDIT = Audit(samples=10, steps=4, queries=15)
STRONG = [PGD(steps=8, objective=Margin())]


def report(
    model: nn.Module, attacks: list[AbstractAttack] | None = None, count: int = 14, audit: Audit | None = AUDIT
) -> Report:
    batches, threat = [(KNOWN[:count], LABELS[:count])], ThreatModel("linf", 0.08)
    draws = torch.Generator().manual_seed(0)
    return evaluate(model, batches, threat, attacks or STRONG, generator=draws, audit=audit)


@pytest.mark.parametrize("name", TRAPPED)
def test_a_trap_is_told(name: str) -> None:
    make, finding = TRAPPED[name]
    torch.manual_seed(0)
    found = {f["name"]: f["sentence"] for f in report(make()).findings}
    assert finding in found, found
    assert len(found[finding].split(". ")) > 1 or ":" in found[finding] or ";" in found[finding]


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_raises_no_error(name: str) -> None:
    found = report(HONEST[name]())
    assert found.trusted, found.findings


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_an_honest_compiled_model_raises_no_error() -> None:
    found = report(torch.compile(convolutional(), backend="eager"))  # type: ignore[arg-type]
    assert found.trusted, found.findings


@pytest.mark.parametrize("answer", [at_the_label, infinite])
def test_what_is_no_number_is_never_robust(answer) -> None:
    """Arg max finds the NaN, and calls it right."""
    model = Around(answer).eval()
    found = report(model, [PGD(steps=1), Square(queries=3)], audit=None)
    assert found.robust.count == 0
    with torch.no_grad():
        raw = model(KNOWN + 0.01).argmax(1)
    told = Target(model).predict(KNOWN + 0.01).label
    assert bool((raw == LABELS).all()) == (answer is at_the_label) and bool((told[raw == LABELS] == -1).all())


def test_the_deployed_model_is_the_one_that_is_judged() -> None:
    """Whatever inject, cell and head alone would say."""
    for name in ("forward of its own", "hooked"):
        model = TRAPPED[name][0]()
        found = report(model, [PGD(steps=2), JointAttack(steps=6)], audit=None)
        with torch.no_grad():
            right = int((model(KNOWN[:14]).argmax(1) == LABELS[:14]).sum())
        assert found.clean.count == right and found.certified is None
