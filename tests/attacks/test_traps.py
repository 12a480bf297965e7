"""Models that fool an evaluator are told by the finding that fits, with its remedy; honest ones raise no error."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from attack_models import convolutional
from jiio.attacks import PGD, AbstractAttack, Audit, JointAttack, Margin, Report, Square, Target, ThreatModel, evaluate
from jiio.checks import CellError
from trapped_answers import KNOWN, LABELS, Around, at_the_label, infinite, same_memory
from trapped_models import HONEST, TRAPPED

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
    with torch.enable_grad():  # a trap may leave them off
        told = report(make()).findings
    found = {f["name"]: f["sentence"] for f in told}
    assert finding in found, found
    assert len(found[finding].split(". ")) > 1 or ":" in found[finding] or ";" in found[finding]


def test_a_model_that_goes_by_addresses_is_never_believed() -> None:
    """Which of its faults shows hangs on where memory happens to be free."""
    found = report(Around(same_memory).eval())
    errors = {f["name"] for f in found.findings if f["severity"] == "error"}
    assert not found.trusted and errors & {"memory", "wrong-gradient", "random", "batch-dependent"}


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


@pytest.mark.parametrize("name", ["static buffer", "writes into its images"])
def test_memory_that_a_model_writes_to_changes_no_figure(name: str) -> None:
    before = KNOWN.clone()
    found = report(HONEST[name](), count=len(KNOWN))
    shift = 0.02 if name == "writes into its images" else 0.0
    with torch.no_grad():
        right = convolutional()(before - shift).argmax(1) == LABELS
        broken = convolutional()(found.adversarial.images - shift).argmax(1) != LABELS  # type: ignore[union-attr]
    assert torch.equal(KNOWN, before)
    assert found.clean.count == int(right.sum()) and found.robust.count == int((right & ~broken).sum())


class Odd(nn.Module):
    """Breaks the contract of a classifier in one way."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.model, self.way = convolutional(), way

    def forward(self, x: Tensor) -> object:
        found = self.model(x)
        if self.way == "fixed batch":
            return self.model(x.view(14, 1, 6, 6))
        if self.way == "no singles" and len(x) == 1:
            raise ValueError("Expected more than 1 value per channel")
        ways = {"elsewhere": lambda: found.to("meta"), "turned": lambda: found.T, "dict": lambda: {"logits": found}}
        return ways.get(self.way, lambda: found)()


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("fixed batch", "in batches of any size"),
        ("no singles", "Expected more than 1 value"),
        ("elsewhere", "scores on cpu, like x, got scores on meta"),
        ("turned", "with at least 2 classes"),
        ("dict", "returns the scores alone"),
    ],
)
def test_what_is_no_classifier_is_refused_before_anything_is_attacked(way: str, words: str) -> None:
    with pytest.raises(CellError, match=words):
        report(Odd(way), [Never()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_type_in_a_sentence(dtype: torch.dtype) -> None:
    with pytest.raises(CellError, match="Its weights are torch"):
        report(copy.deepcopy(convolutional()).to(dtype), [Never()])


class Never(AbstractAttack):
    """Must not be asked."""

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        raise AssertionError("something ran")
