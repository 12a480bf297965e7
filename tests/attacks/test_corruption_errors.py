"""Errors under corruptions and what is counted from them: by another loop, by hand, and against baselines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import jiio
from attack_models import blobs, convolutional, equilibrium
from jiio.attacks import CorruptionBoard, CorruptionReport, corrupt, evaluate_corruptions
from jiio.attacks.corruptions.families import FAMILIES, SEVERITIES
from jiio.checks import ArgumentError, CheckpointError
from trapped_models import TRAPPED

X, Y = blobs(24, seed=4)
FEW = ["contrast", "gaussian_noise", "fog"]


def error(model: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return int((model(x).argmax(1) != Y).sum())


def test_errors_are_those_of_the_corrupted_pictures() -> None:
    """However the pictures are cut into batches, and in whatever units the model wants them."""
    batches = [(X[:10], Y[:10]), (X[10:], Y[10:])]
    found = evaluate_corruptions(convolutional(), batches, FEW, seed=3)
    wanted = {f: [error(convolutional(), corrupt(X, f, s, seed=3)) for s in SEVERITIES] for f in FEW}
    assert found.errors == wanted and found.clean == error(convolutional(), X) and found.total == 24
    assert max(max(counts) for counts in wanted.values()) > 3  # there is something to be counted
    assert found.findings == [] and found.trusted

    class Bytes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return convolutional()(x / 255)

    assert evaluate_corruptions(Bytes(), [(255 * X, Y)], FEW, bounds=(0, 255), seed=3).errors == wanted


def report(clean: int, **errors: list[int]) -> CorruptionReport:
    return CorruptionReport({"name": f"errs {clean}"}, 0, 10, clean, errors, provenance={"data": "digest d"})


def test_mean_corruption_error_by_hand() -> None:
    """CE = 10/20 and 6/8; relative: (10 - 5) / (20 - 10) and (6 - 5) / (8 - 10), of which the last is not defined."""
    own, other = report(1, fog=[0, 1, 2, 3, 4], snow=[0, 1, 1, 2, 2]), report(2, fog=[4] * 5, snow=[0, 2, 2, 2, 2])
    assert own.mean_error == pytest.approx((0.2 + 0.12) / 2) and own.mce is None and own.relative_mce is None
    found = own.against(other)
    assert found.mce == pytest.approx((0.5 + 0.75) / 2) and found.relative_mce is None
    fog = report(1, fog=[0, 1, 2, 3, 4]).against(other)
    assert fog.relative_mce == pytest.approx(0.5)
    assert other.against(other).mce == pytest.approx(1.0)
    assert own.against(report(0, fog=[0] * 5, snow=[1] * 5)).mce is None
    assert "not the mCE" in str(own) and "mCE" in str(found) and "62.5%" in str(found)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    fog, about = ["fog"], {"model": "mine", "data": "blobs"}
    found = evaluate_corruptions(convolutional(), [(X, Y)], fog, about=about)
    found.save(tmp_path / "found.json")
    again = CorruptionReport.read(tmp_path / "found.json")
    assert again == found and json.loads(again.to_json())["mean_error"] == found.mean_error
    with_base = evaluate_corruptions(convolutional(), [(X, Y)], fog, baseline=again)
    assert with_base.mce == pytest.approx(1.0) and "against mine" in str(with_base)
    found.save(tmp_path / "found.html")
    assert "under common corruptions</title>" in (tmp_path / "found.html").read_text()

    for wrong in ("{", "[]", '{"kind": "corruptions"}', found.to_json().replace('"total": 24', '"total": 1')):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(CheckpointError, match=r"wrong\.json is "):
            CorruptionReport.read(tmp_path / "wrong.json")


def test_several_models_in_one_table() -> None:
    good, bad = report(1, fog=[1] * 5, contrast=[2] * 5), report(2, fog=[5] * 5, contrast=[1] * 5)
    board = CorruptionBoard((bad, good, replace(good, model={"name": "liar"}, findings=[{"severity": "error"}])))
    assert [one.model["name"] for one in board.ranked] == ["errs 1", "errs 2", "liar"]
    assert [row["weather"] for row in board.rows()] == ["10.0%", "50.0%", "10.0%"]
    with pytest.raises(ArgumentError, match="same corruptions"):
        CorruptionBoard((good, report(1, fog=[1] * 5)))


@pytest.mark.parametrize(("trap", "finding"), [("noisy", "random"), ("batch mean", "batch-dependent")])
def test_answers_that_are_no_function_of_the_picture(trap: str, finding: str) -> None:
    torch.manual_seed(0)
    found = evaluate_corruptions(TRAPPED[trap][0](), [(X, Y)], ["contrast"])
    assert finding in {f["name"] for f in found.findings} and not found.trusted
    assert "NOT TO BE TRUSTED" in str(found)


def test_what_has_no_equilibrium_is_an_error() -> None:
    whole = equilibrium()
    parts = (whole.inject, whole.cell, whole.head)
    model = jiio.EquilibriumModel(*parts, solver=jiio.Picard(damping=0.1), max_steps=2, on_failure="ignore").eval()
    found = evaluate_corruptions(model, [(X, Y)], ["contrast"])
    assert found.unconverged == 6 * 24 and found.clean == 24 and found.mean_error == 1.0
    assert "without an equilibrium" in str(found)


BASE = report(1, fog=[1] * 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"families": []}, "families"),
        ({"families": "fog"}, "in a list"),
        ({"families": ["rain"]}, "rain"),
        ({"bounds": (1, 0)}, "black below white"),
        ({"bounds": 1}, "a pair"),
        ({"seed": -1}, "seed"),
        ({"families": ["snow"], "baseline": BASE}, "a report that has snow"),
        ({"families": ["fog"], "baseline": BASE, "seed": 1}, "with seed 1"),
        ({"families": ["fog"], "baseline": BASE}, "same 24 pictures"),
        ({"families": ["fog"], "bounds": (0.5, 1.0)}, "from 0 to 1"),
    ],
)
def test_bad_input_in_a_sentence(settings: dict, words: str) -> None:
    with pytest.raises((ArgumentError, TypeError), match=words):
        evaluate_corruptions(convolutional(), [(X, Y)], **settings)
    assert len(FAMILIES) == 15
