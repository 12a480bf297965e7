"""Who is broken leaves the batch: an oracle knows who was asked about, what that changes, and what it spares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attack_models import blobs, convolutional, equilibrium
from jiio.attacks import (
    APGD,
    DLR,
    PGD,
    AbstractAttack,
    AdjointEnsemble,
    Margin,
    Square,
    Strongest,
    Success,
    SurrogateAttack,
    Target,
    TargetedMargin,
    ThreatModel,
    evaluate,
)
from jiio.attacks.climbing import part
from jiio.attacks.runs import Starts
from jiio.checks import ArgumentError

X, Y = blobs(8, seed=5)
COUNT, PIXELS = 6, 5
WIDE = (-50.0, 50.0)
THREAT = ThreatModel("linf", 0.4, WIDE)


class Register(nn.Module):
    """Three classes by the first three numbers of an image. The last number is the name of the image, 10 apart, which
    no attack moves far; ``asked`` keeps per call the names, whether a gradient was wanted, and who was misclassified.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[list[int], bool, list[int]]] = []

    def forward(self, x: Tensor) -> Tensor:
        scores = x[:, :3]
        names = [round(float(v) / 10) for v in x[:, -1].detach()]
        wrong = [name for name, row in zip(names, scores.detach(), strict=True) if float(row[1:].max() - row[0]) > 1e-3]
        self.asked.append((names, x.requires_grad, wrong))
        return scores

    @property
    def slopes(self) -> list[tuple[list[int], list[int]]]:
        """The calls for a gradient: who, and who was wrong."""
        return [(names, wrong) for names, gradient, wrong in self.asked if gradient]


def images() -> tuple[Tensor, Tensor]:
    """Of class 0; image i has to move by 0.1 (i + 1) / 2 towards class 1, so that half fall at 0.4 at the latest."""
    x = torch.zeros(COUNT, PIXELS)
    x[:, 0], x[:, -1] = 0.19 * (torch.arange(COUNT) + 1.0), 10.0 * torch.arange(COUNT)
    x[:, 2] = -5.0
    return x, torch.zeros(COUNT, dtype=torch.int64)


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ATTACKS = [
    pytest.param(PGD(steps=12), id="PGD"),
    pytest.param(PGD(steps=6, restarts=3, objective=Margin()), id="PGD restarts"),
    pytest.param(APGD(steps=16), id="APGD"),
    pytest.param(APGD(steps=16, objective=TargetedMargin(), targets=2), id="APGD targeted"),
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nobody_is_asked_again_after_a_break(attack: AbstractAttack) -> None:
    model, (x, y) = Register(), images()
    found = attack.until_broken()(model, x, y, THREAT, generator=seeded())
    assert found.success.tolist() == [True] * 4 + [False] * 2

    gone: set[int] = set()
    for names, wrong in model.slopes:
        assert not gone & set(names)
        gone |= set(wrong)
    assert gone >= {0, 1} and model.slopes[-1][0] == [4, 5]

    # On its own an attack goes on to the strongest image of all.
    alone = Register()
    strongest = attack(alone, x, y, THREAT, generator=seeded())
    assert torch.equal(strongest.success, found.success)
    assert bool((strongest.margin >= found.margin - 1e-6).all()) and float(strongest.margin[0]) > float(found.margin[0])
    assert sum(len(names) for names, _ in model.slopes) < sum(len(names) for names, _ in alone.slopes)


def test_the_search_asks_only_about_those_that_stand() -> None:
    model, (x, y) = Register(), images()
    found = Square(queries=60)(model, x, y, THREAT, generator=seeded())
    gone: set[int] = set()
    for names, _, wrong in model.asked[1:-1]:  # between the clean prediction and the verdict
        assert not gone & set(names)
        gone |= set(wrong)
    assert gone == {i for i in range(COUNT) if found.success[i]} and 0 < len(gone) < COUNT


@pytest.mark.parametrize("attack", [PGD(steps=50), APGD(steps=50), Square(queries=50)])
def test_where_all_are_done_the_attack_ends(attack: AbstractAttack) -> None:
    model, (x, y) = Register(), images()
    found = attack.until_broken()(model, x, y, ThreatModel("linf", 3.0, WIDE), generator=seeded())
    assert bool(found.success.all()) and found.cost["forward"] < 30


def test_a_suite_leaves_alone_what_is_broken() -> None:
    model, (x, y) = Register(), images()
    suite = [PGD(steps=4, random_start=False), APGD(steps=6), PGD(steps=3, objective=DLR())]
    report = evaluate(model, [(x, y)], THREAT, suite, audit=None, pictures=0)
    assert [line["tried"] for line in report.attacks] == [6, 2, 2] and report.robust.count == 2

    gone: set[int] = set()
    for names, wrong in model.slopes:
        assert not gone & set(names)
        gone |= set(wrong)


# -- what leaving must not change


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("attack", [p.values[0] for p in ATTACKS[1:]])
def test_the_same_samples_fall(attack: AbstractAttack, norm: str) -> None:
    threat = ThreatModel(norm, {"linf": 0.05, "l2": 0.25, "l1": 1.2}[norm])
    whole = attack(convolutional(), X, Y, threat, generator=seeded())
    short = attack.until_broken()(convolutional(), X, Y, threat, generator=seeded())
    assert torch.equal(whole.success, short.success) and 0 < int(short.success.sum()) < len(X)
    still = ~short.success
    assert torch.allclose(whole.x[still], short.x[still], atol=1e-5)
    assert short.cost["backward"] <= whole.cost["backward"]


def test_the_ensemble_of_adjoints_as_well() -> None:
    threat, attack = ThreatModel("linf", 0.075), AdjointEnsemble(steps=8, objective=DLR())
    whole, short = (a(equilibrium(), X, Y, threat, generator=seeded()) for a in (attack, attack.until_broken()))
    assert torch.equal(whole.success, short.success) and 0 < int(short.success.sum()) < len(X)


@pytest.mark.parametrize("attack", [p.values[0] for p in ATTACKS])
def test_alone_and_in_any_company(attack: AbstractAttack) -> None:
    """Who left, and who was there, is the same to those that stay, random starts included."""
    threat, one = ThreatModel("linf", 0.05), attack.until_broken()
    whole = one(convolutional(), X, Y, threat, generator=seeded())
    for i in (0, 3, 6):
        alone = one(convolutional(), X[i : i + 1], Y[i : i + 1], threat, generator=seeded())
        assert torch.allclose(alone.x, whole.x[i : i + 1], atol=1e-5)
    order = torch.tensor([4, 2, 7, 0, 1, 3, 6, 5])
    mixed = one(convolutional(), X[order], Y[order], threat, generator=seeded())
    assert torch.allclose(mixed.x, whole.x[order], atol=1e-5)


def test_starts_belong_to_the_image_the_run_and_the_seed() -> None:
    threat = ThreatModel("l2", torch.linspace(0.2, 0.9, len(X)))
    starts = Starts(seeded())
    whole, some = starts(X, threat), torch.tensor([5, 1])
    assert torch.equal(starts(X[some], threat.select(some)), whole[some])
    assert not bool((threat.violation(whole, X) > threat.slack(X)).any())
    others = [Starts(seeded(4))(X, threat), starts(X, threat, 1), starts(X.roll(1, 0), threat)]
    for other in others:
        assert float((other - whole).abs().flatten(1).amax(1).min()) > 1e-3
    assert torch.equal(Starts(seeded())(X, threat), whole)


# -- when a sample is through


def test_a_break_has_to_be_clear_of_rounding() -> None:
    logits = torch.tensor([[1.0, 1.0 + 1e-6], [1.0, 1.001], [1.0, 0.9], [float("nan"), 1.0]])
    y = torch.zeros(4, dtype=torch.int64)
    assert Success().reached(logits, y).tolist() == [False, True, False, False]
    assert Success().reached(1e4 * logits, y).tolist() == [False, True, False, False]
    assert not bool(Strongest().reached(logits, y).any())


class Lags(Target):
    """Wrong wherever its solve starts at a state."""

    def forward(self, x: Tensor, z0: object = None):
        logits, reached = super().forward(x)
        return (logits, reached) if z0 is None else (logits.roll(1, 1), reached)

    def variant(self, **settings: object) -> Target:
        return self


@pytest.mark.parametrize("attack", [PGD(steps=5, warm=True), APGD(steps=5, warm=True)])
def test_only_a_fresh_start_lets_a_sample_go(attack: AbstractAttack) -> None:
    target, right = Lags(equilibrium()), equilibrium()(X).argmax(1)
    found = attack.until_broken()(target, X, right, ThreatModel("linf", 1e-4), generator=seeded())
    assert not bool(found.success.any()) and found.cost["backward"] == 5


def test_who_keeps_all_steps_and_whose_name_stays() -> None:
    last, plain = PGD(best=False), PGD(steps=7)
    assert last.until_broken() is last and plain.until_broken().name == plain.name
    foreign = SurrogateAttack(convolutional(), plain)
    assert foreign.until_broken() is foreign  # what breaks another model is no break of this one
    with pytest.raises(ArgumentError, match=r"PGD\.aim"):
        PGD(best=False, aim=Success())


def test_parts_of_records_and_threats() -> None:
    threat = ThreatModel("linf", torch.tensor([0.1, 0.2, 0.3]), (torch.zeros(3), torch.ones(3)))
    chosen = part((threat, {"a": torch.arange(3)}, None, 2), torch.tensor([2, 0]))
    assert chosen[0].radius.tolist() == pytest.approx([0.3, 0.1]) and chosen[0].bounds[0].shape == (3,)
    assert chosen[1]["a"].tolist() == [2, 0] and chosen[2:] == (None, 2)
