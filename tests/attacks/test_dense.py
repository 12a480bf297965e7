"""Dense prediction under attack: losses by hand, an attack with a known answer, figures by another loop, traps."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.attacks import (
    APGD,
    PGD,
    BalancedPixels,
    DenseTarget,
    Margin,
    PixelAttack,
    PixelCrossEntropy,
    Success,
    ThreatModel,
    evaluate_dense,
)
from jiio.checks import ArgumentError, CellError
from jiio.models import SceneScores

DRAWS = torch.Generator().manual_seed(0)
X = 0.1 + 0.8 * torch.rand(3, 1, 5, 6, generator=DRAWS)
Y = (X[:, 0] > 0.5).long()
QUICK = [PixelAttack(PGD(steps=6), BalancedPixels()), PixelAttack(APGD(steps=6))]


class Threshold(nn.Module):
    """Class 1 where a pixel is brighter than 0.5: right everywhere, and exactly what lies within the radius falls."""

    def forward(self, x: Tensor) -> Tensor:
        value = 10.0 * (x[:, 0] - 0.5)
        return torch.stack([-value, value], 1)


@pytest.mark.parametrize("attack", QUICK)
def test_every_pixel_that_can_fall_falls_and_no_other(attack: PixelAttack) -> None:
    threat, target = ThreatModel("linf", 0.1), DenseTarget(Threshold())
    found = attack.run(target, X, Y, threat, torch.Generator().manual_seed(0))
    wrong = target.predict(found).label != Y
    near = (X[:, 0] - 0.5).abs()
    assert torch.equal(wrong, near < 0.1) and 0.1 < float(wrong.float().mean()) < 0.5
    assert float((found - X).abs().max()) <= 0.1 + 1e-6 and float(found.min()) >= 0.0


def test_figures_by_hand() -> None:
    ignored = Y.clone()
    ignored[:, 0] = 255
    found = evaluate_dense(Threshold(), [(X[:2], ignored[:2]), (X[2:], ignored[2:])], "linf", 0.1, QUICK)
    there = ignored != 255
    told = torch.where((X[:, 0] - 0.5).abs() < 0.1, 1 - Y, Y)
    iou = [float(((told == k) & (k == Y) & there).sum() / (((told == k) | (k == Y)) & there).sum()) for k in range(2)]
    assert found.pixels == int(there.sum()) and found.images == 3
    assert found.clean.accuracy == found.clean.iou == 1.0
    assert found.robust.accuracy == pytest.approx(float((told == Y)[there].float().mean()))
    assert found.robust.iou == pytest.approx(sum(iou) / 2)
    assert found.robust.iou_within[0] <= found.robust.iou <= found.robust.iou_within[1]
    assert found.findings == [] and found.worst is not None
    again = DenseTarget(Threshold()).predict(found.worst).label
    assert float((again == Y)[there].float().mean()) == pytest.approx(found.robust.accuracy)


def test_the_worst_image_is_kept() -> None:
    """Whichever attack found it: one with a step too short to break anything comes last."""
    idle = PixelAttack(PGD(steps=1, step=1e-6, random_start=False))
    both, alone = (evaluate_dense(Threshold(), [(X, Y)], "linf", 0.1, a) for a in ([QUICK[0], idle], QUICK[:1]))
    assert both.robust == alone.robust and both.attacks[1]["accuracy"] == 1.0 > both.robust.accuracy
    assert torch.equal(both.worst, alone.worst)  # type: ignore[arg-type]


def test_losses_by_hand() -> None:
    scores = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    y[0, :2] = 255
    y[1, 0, 0] = -1
    for i in range(2):
        there = (y[i] >= 0) & (y[i] < 3)
        each = torch.tensor([float(-scores[i].log_softmax(0)[y[i, a, b], a, b]) for a, b in there.nonzero().tolist()])
        right = (scores[i].argmax(0) == y[i])[there]
        assert float(PixelCrossEntropy()(scores, y, 0.7)[i]) == pytest.approx(float(each.mean()), rel=1e-6)
        for progress in (0.0, 0.6, 1.0):
            share = progress / 2  # SegPGD, equation 5
            wanted = ((1 - share) * each[right].sum() + share * each[~right].sum()) / len(each)
            assert float(BalancedPixels()(scores, y, progress)[i]) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("wrap", [lambda s: {"out": s, "aux": s}, lambda s: SceneScores(s.mean((2, 3)), s)])
def test_scores_are_found_in_what_models_return(wrap) -> None:
    class Wrapped(Threshold):
        def forward(self, x: Tensor):
            return wrap(super().forward(x))

    plain, other = (evaluate_dense(m, [(X, Y)], "linf", 0.1, QUICK[:1]) for m in (Threshold(), Wrapped()))
    assert plain.robust == other.robust


class Around(nn.Module):
    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.bias = answer, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(Threshold()(x) + self.bias, x)


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (lambda s, x: s.detach() + 0.0 * s, "zero-gradient"),
        (lambda s, x: 2 * s.detach() - s, "wrong-gradient"),
        (lambda s, x: s + 0.5 * torch.randn_like(s), "random"),
        (lambda s, x: s - s.mean(0, keepdim=True), "batch-dependent"),
        (lambda s, x: torch.where(torch.isin(x, X), s, torch.nan), "nan-scores"),
    ],
)
def test_a_trap_is_told(answer, finding: str) -> None:
    torch.manual_seed(0)
    found = evaluate_dense(Around(answer).eval(), [(X, Y)], "linf", 0.1, QUICK[:1])
    assert finding in {f["name"] for f in found.findings} and "NOT TO BE TRUSTED" in str(found)
    assert finding != "nan-scores" or found.robust.accuracy == 0.0


@pytest.mark.parametrize(
    ("change", "words", "error"),
    [
        ({"model": Around(lambda s, x: s[:, :, ::2])}, "Interpolate them", CellError),
        ({"model": Around(lambda s, x: s[:, :1])}, "at least 2 classes", CellError),
        ({"model": Around(lambda s, x: [s])}, "scores of the pixels alone", CellError),
        ({"batches": [(X, Y[:, 1:])]}, "a class for every pixel", ArgumentError),
        ({"batches": [(X, Y.float())]}, "int64 or uint8", TypeError),
        ({"batches": [(X, Y + 1)]}, "labels from 0 to 1, or 255", ArgumentError),
        ({"batches": [(X[:, 0], Y)]}, "floating-point tensor", TypeError),
        ({"batches": []}, "at least one batch", ArgumentError),
        ({"batches": [(X[:0], Y[:0])]}, "at least one image", ArgumentError),
        ({"batches": [(X, torch.full_like(Y, 255))]}, "at least one pixel with a class", ArgumentError),
        ({"attacks": [PGD()]}, "PixelAttack", TypeError),
        ({"attacks": QUICK[0]}, "a list", TypeError),
        ({"radius": None}, "radius", ArgumentError),
    ],
)
def test_bad_input_in_a_sentence(change: dict, words: str, error: type[Exception]) -> None:
    settings = {"model": Threshold(), "batches": [(X, Y)], "threat": "linf", "radius": 0.1, "attacks": QUICK} | change
    with pytest.raises(error, match=words):
        evaluate_dense(**settings)
    with pytest.raises(ArgumentError, match=r"Set PixelAttack\.objective"):
        PixelAttack(PGD(objective=Margin()))


@pytest.mark.parametrize("setting", [{"targets": 3}, {"warm": True}, {"tolerance": 3e-2}, {"aim": Success()}], ids=str)
def test_what_a_climb_over_pixels_does_not_know_is_refused(setting: dict) -> None:
    with pytest.raises(ArgumentError, match=f"PixelAttack.climber.{next(iter(setting))}: expected its default"):
        PixelAttack(PGD(**setting))


def test_an_equilibrium_and_its_missed_samples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = equilibrium_of_pixels()
    found = evaluate_dense(model, [(X, Y)], "linf", 0.02, QUICK[:1])
    assert found.unconverged == 0 and found.attacks[0]["cost"]["evaluations"] > 0
    found.save(tmp_path / "a.json")
    found.save(tmp_path / "a.html")
    assert json.loads((tmp_path / "a.json").read_text())["robust"]["accuracy"] == found.robust.accuracy

    hasty = copy.deepcopy(model)
    hasty.max_steps = 2
    found = evaluate_dense(hasty, [(X, Y)], "linf", 0.02, QUICK[:1])
    assert found.unconverged == 3 and found.robust.accuracy == found.clean.accuracy == 0.0
    assert "whose equilibrium was not reached" in str(found)


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.scores(z)


def equilibrium_of_pixels() -> jiio.EquilibriumModel:
    lift, mix = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    with torch.no_grad():
        mix.weight.mul_(0.2)
    return jiio.EquilibriumModel.of(
        lift, lambda z, u: torch.tanh(F.conv2d(z, mix.weight, padding=1) + u), Pixels(), on_failure="ignore"
    ).eval()
