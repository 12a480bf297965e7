"""Evaluation: worst case per sample, intervals, curve, honest books on unconverged samples, resuming, the report."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import scipy.stats
import torch
from torch import Tensor

from attack_models import blobs, convolutional, equilibrium, hasty, linear, monotone, undated
from jiio.attacks import (
    PGD,
    AbstractAttack,
    Audit,
    JointAttack,
    Margin,
    Report,
    Square,
    Target,
    ThreatModel,
    evaluate,
    interval,
)

X, Y = blobs(24, seed=2)
BATCHES = [(X[:16], Y[:16]), (X[16:], Y[16:])]
ATTACKS = [Square(queries=20), PGD(steps=4, random_start=False), PGD(steps=4, objective=Margin())]
SMALL = Audit(samples=8, steps=10, queries=20)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(model=None, threat: ThreatModel | None = None, attacks=None, **options) -> Report:
    settings = {"generator": seeded(), "audit": None} | options
    model, threat = model or convolutional(), threat or ThreatModel("linf", 0.06)
    return evaluate(model, settings.pop("batches", BATCHES), threat, attacks or ATTACKS, **settings)


def test_a_sample_is_robust_if_it_resists_every_attack() -> None:
    report = run()
    model, threat = convolutional(), ThreatModel("linf", 0.06)
    left = torch.arange(len(X))
    with torch.no_grad():
        left = left[model(X).argmax(1) == Y]
    assert report.clean.count == len(left)
    calm = PGD(steps=4, random_start=False)(model, X, Y, threat)
    broken = [i for i, how in enumerate(report.samples["broken_by"]) if how == calm_name()]
    assert set(broken) == set(torch.nonzero(calm.success)[:, 0].tolist()) & set(left.tolist())
    assert report.robust.count == report.samples["status"].count("robust")
    assert [line["name"] for line in report.attacks][-1] == "Square(queries=20)"  # gradient-free attacks come last
    seen = report.attacks[0]["tried"]
    for line in report.attacks:
        assert line["tried"] == seen
        seen -= line["broken"]
    assert seen == report.robust.count


def calm_name() -> str:
    return PGD(steps=4, random_start=False).name


def test_the_worst_examples_are_the_ones_reported() -> None:
    """On a linear classifier the reported margins can be checked by hand."""
    weight = torch.randn(3, 36, generator=seeded(), dtype=torch.float32)
    model = linear(weight, torch.zeros(3))
    with torch.no_grad():
        y = model(X).argmax(1)
    report = run(model, ThreatModel("linf", 0.01), [PGD(steps=20, objective=Margin())], batches=[(X, y)])
    with torch.no_grad():
        scores = model(X)
    gap = scores - scores.gather(1, y[:, None])
    worst = gap + 0.01 * (weight[None] - weight[y][:, None]).abs().sum(2)
    worst = worst.scatter(1, y[:, None], float("-inf")).amax(1)
    # The box takes some of it away where a pixel is at its end; nothing may come on top.
    assert all(m <= w + 1e-4 for m, w in zip(report.samples["margin"], worst.tolist(), strict=True))
    assert max(report.samples["distance"]) <= 0.01 + 1e-6


def test_the_curve_falls_and_the_main_radius_is_on_it() -> None:
    report = run(equilibrium(), curve=(0.25, 0.5, 2.0), attacks=[PGD(steps=5)])
    shares = [point["robust"]["share"] for point in report.curve]
    assert [point["factor"] for point in report.curve] == [0.25, 0.5, 1.0, 2.0]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1]
    assert report.curve[2]["robust"]["count"] == report.robust.count
    assert set(report.solver) == {"clean", "attacked"} and report.solver["clean"]["converged"] == 1.0


def test_unconverged_samples_are_never_robust() -> None:
    report = run(hasty(), ThreatModel("linf", 1e-4))
    assert report.clean.count > 20 and report.robust.count == 0
    assert report.unconverged == report.samples["status"].count("unconverged") > 20
    assert "no equilibrium" in str(report)


def test_certified_accuracy_is_below_attacked_accuracy() -> None:
    attacks = [PGD(steps=8, objective=Margin()), JointAttack(steps=20)]
    report = run(monotone(), ThreatModel("l2", 0.15), attacks, batches=BATCHES[:1])
    assert report.certified is not None and report.certified.count > 2
    assert report.certified.count <= report.robust.count
    for radius, status in zip(report.samples["certified_radius"], report.samples["status"], strict=True):
        assert status == "robust" or radius <= 0.15


def test_radii_per_sample_and_one_sample_batches() -> None:
    radius = torch.linspace(0.01, 0.1, 4)
    report = run(batches=[(X[:4], Y[:4])], threat=ThreatModel("linf", radius), curve=(0.5,))
    assert all(d <= r + 1e-6 for d, r in zip(report.samples["distance"], radius.tolist(), strict=True))
    assert run(batches=[(X[:1], Y[:1])]).total == 1


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 10), (713, 1000), (1, 10_000)])
def test_intervals_are_those_of_clopper_and_pearson(k: int, n: int) -> None:
    expected = scipy.stats.binomtest(k, n).proportion_ci(0.95, "exact")
    assert interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


# -- resuming


@dataclass(frozen=True)
class Mortal(AbstractAttack):
    """PGD that dies at its third call, unless told not to."""

    inner: PGD = PGD(steps=3)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        CALLS.append(len(x))
        if len(CALLS) == LIFE[0]:
            raise KeyboardInterrupt
        return self.inner.run(model, x, y, threat, generator)


CALLS: list[int] = []
LIFE = [0]


def mortal(**options) -> Report:
    batches = [(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:], Y[16:])]
    return run(batches=batches, attacks=[Mortal(), Square(queries=5)], curve=(0.5,), audit=SMALL, **options)


@pytest.mark.parametrize("life", [1, 2, 3, 4])
def test_a_killed_evaluation_resumes_to_the_identical_report(life: int, tmp_path: Path) -> None:
    LIFE[0] = 0
    whole = mortal()
    CALLS.clear()
    LIFE[0] = life
    with pytest.raises(KeyboardInterrupt):
        mortal(state_path=tmp_path / "state")
    done = len(list((tmp_path / "state").glob("batch-*.safetensors")))
    assert done == (life - 1) // 2 and not list((tmp_path / "state").glob(".*"))
    CALLS.clear()
    LIFE[0] = 0
    again = mortal(state_path=tmp_path / "state")
    assert undated(again) == undated(whole) != again.to_json()
    if life == 3:  # the page is drawn from the same figures
        assert re.sub(r"\d+:\d+:\d+ UTC", "", again.to_html()) == re.sub(r"\d+:\d+:\d+ UTC", "", whole.to_html())
    CALLS.clear()
    cached = mortal(state_path=tmp_path / "state")
    assert not CALLS and cached.to_json() == again.to_json()  # the date is that of the beginning


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_evaluate as t
class Slow(t.PGD):
    def run(self, *args):
        time.sleep(0.05)
        return super().run(*args)
batches = [(t.X[i : i + 2], t.Y[i : i + 2]) for i in range(0, 24, 2)]
attacks = [Slow(steps=3, random_start=True)]
report = t.run(batches=batches, attacks=attacks, state_path=Path({state!r}) if {state!r} else None)
print(t.undated(report))
"""


@pytest.mark.slow
def test_kill_minus_nine(tmp_path: Path) -> None:
    """Killed again and again, wherever it happens to be."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", SCRIPT.format(tests=here, state="")]
    whole = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(here).parent).stdout
    command[-1] = SCRIPT.format(tests=here, state=str(tmp_path / "state"))
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=Path(here).parent)
        try:
            process.wait(timeout=3.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(here).parent)
    assert done.stdout == whole


# -- the report


def test_the_report_as_json_text_and_page(tmp_path: Path) -> None:
    report = run(equilibrium(), curve=(0.5, 2.0), audit=SMALL, pictures=4)
    report.save(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["robust"]["share"] == report.robust.share and len(content["samples"]["status"]) == 24
    assert content["threat"] == {"norm": "linf", "radius": 0.06, "bounds": [0.0, 1.0]}
    text = str(report)
    assert "robust accuracy" in text and "PGD(steps=4" in text and f"[{report.clean.low:.1%}" in text
    report.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 2 and all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    assert ("http" not in page and "Nothing speaks against" in page) or not report.trusted
    assert len(report.pictures.clean) == 4


def test_progress_is_told() -> None:
    said: list[str] = []
    run(progress=said.append)
    assert len(said) == 2 and said[-1].startswith("batch 2: ")


def test_equal_seeds_give_equal_reports_whatever_ran_before() -> None:
    first = run(attacks=[PGD(steps=2)])
    generator = seeded()
    torch.rand(7, generator=generator)
    assert run(attacks=[PGD(steps=2)], generator=generator).robust == first.robust
