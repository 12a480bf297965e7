"""Several views: the fused equilibrium, TSA and ETEA, and one ball per view."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.attacks import (
    PGD,
    AbstractAttack,
    Audit,
    JointAttack,
    MultiViewInjection,
    MultiViewThreat,
    SingleViewAttack,
    ThreatModel,
    TwoStageAttack,
    certify,
    evaluate,
    multi_view_classifier,
)
from jiio.models import DenseCell, MonotoneCell

SIZES, CLASSES = (6, 9, 4), 3
WIDE = (-10.0, 10.0)


def views(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three noisy linear images of a class centre, one after the other, (count, 19)."""
    fixed, draw = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=draw)
    parts = []
    for size in SIZES:
        centres = torch.randn(CLASSES, size, generator=fixed)
        parts.append(centres[y] + 0.7 * torch.randn(count, size, generator=draw))
    return torch.cat(parts, dim=1).clamp(*WIDE), y


def fit(model: nn.Module, columns: slice, steps: int = 40) -> nn.Module:
    x, y = views(150, seed=5)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(x[:, columns]), y).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model.eval()


OPTIONS = {"tolerance": jiio.Tolerance(1e-5, 1e-4), "on_failure": "ignore"}


@functools.cache
def fused() -> jiio.EquilibriumModel:
    torch.manual_seed(0)
    model = multi_view_classifier(SIZES, CLASSES, features=12, **OPTIONS)  # type: ignore[arg-type]
    return fit(model, slice(None))  # type: ignore[return-value]


@functools.cache
def singles() -> tuple[nn.Module, ...]:
    torch.manual_seed(0)
    found, start = [], 0
    for size in SIZES:
        model = multi_view_classifier((size,), CLASSES, features=12, **OPTIONS)  # type: ignore[arg-type]
        found.append(fit(model, slice(start, start + size)))
        start += size
    return tuple(found)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("fusion", ["sum", "mean"])
def test_views_are_fused_into_one_equilibrium(fusion: str) -> None:
    inject = MultiViewInjection(SIZES, 5, fusion=fusion).double()
    x = torch.randn(4, sum(SIZES), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = [view(p) for view, p in zip(inject.views, x.split(SIZES, dim=1), strict=True)]
    total = torch.stack(parts).sum(0)
    assert torch.allclose(inject(x), total / len(parts) if fusion == "mean" else total)
    draw = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moved = (inject(x + draw) - inject(x)).norm(dim=1)
    assert bool((moved <= inject.lipschitz * draw.norm(dim=1) * (1 + 1e-12)).all())


@pytest.mark.slow
def test_more_views_know_more() -> None:
    x, y = views(200, seed=8)
    alone = [accuracy(m, p, y) for m, p in zip(singles(), x.split(SIZES, dim=1), strict=True)]
    assert accuracy(fused(), x, y) > max(alone)


@pytest.mark.slow
def test_both_attacks_lower_the_accuracy_and_the_end_to_end_one_more() -> None:
    x, y = views(60, seed=9)
    model, threat = fused(), MultiViewThreat("l2", 1.3, WIDE, sizes=SIZES)
    broken = {}
    for name, attack in {
        "two stages": TwoStageAttack(singles(), PGD(steps=10)),
        "end to end, PGD": PGD(steps=10),
        "end to end, joint": JointAttack(steps=40),
        "one view": SingleViewAttack(PGD(steps=10)),
    }.items():
        result = attack(model, x, y, threat)
        broken[name] = float(result.success.float().mean())
        assert bool((threat.violation(result.x, x) <= threat.slack(x)).all())
    clean = 1.0 - accuracy(model, x, y)
    assert clean < broken["two stages"] < broken["end to end, PGD"]
    assert clean < broken["one view"] < broken["end to end, PGD"]
    assert broken["end to end, joint"] >= broken["end to end, PGD"] - 0.02


def test_one_view_at_a_time_touches_one_view() -> None:
    x, y = views(20, seed=9)
    threat = MultiViewThreat("linf", (0.5, 0.5, 0.0), WIDE, sizes=SIZES)  # type: ignore[arg-type]
    result = SingleViewAttack(PGD(steps=5))(fused(), x, y, threat)
    touched = torch.stack([(d.abs().amax(1) > 0) for d in (result.x - x).split(SIZES, dim=1)], dim=1)
    assert int(touched.sum(1).max()) == 1 and not bool(touched[:, 2].any())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_joint_attack_in_a_product_of_balls(norm: str) -> None:
    x, y = views(30, seed=9)
    radius = {"linf": 0.25, "l2": 0.6, "l1": 1.0}[norm]
    threat = MultiViewThreat(norm, (radius, 0.0, 2 * radius), WIDE, sizes=SIZES)  # type: ignore[arg-type]
    result = JointAttack(steps=40)(fused(), x, y, threat)
    parts = (result.x - x).split(SIZES, dim=1)
    assert bool((parts[1] == 0).all()) and bool((parts[0] != 0).any()) and bool((parts[2] != 0).any())
    assert bool((threat.violation(result.x, x) <= threat.slack(x)).all())
    assert result.success.sum() >= PGD(steps=10)(fused(), x, y, threat).success.sum() - 1


def test_an_evaluation_of_a_multi_view_model() -> None:
    x, y = views(40, seed=10)
    threat = MultiViewThreat("l2", 0.3, WIDE, sizes=SIZES)
    attacks: list[AbstractAttack] = [PGD(steps=10), TwoStageAttack(singles(), PGD(steps=5)), JointAttack(steps=30)]
    report = evaluate(
        fused(), [(x, y)], threat, attacks, generator=torch.Generator(), curve=(0.5,), audit=Audit(samples=16, steps=20)
    )
    assert report.findings == []
    assert report.curve[0]["robust"]["count"] >= report.robust.count > 0
    assert report.threat["sizes"] == list(SIZES) and "one per view" in str(report).splitlines()[0]
    assert len(report.to_html()) > 1000


def test_a_certificate_for_all_views_in_one_ball() -> None:
    torch.manual_seed(0)
    cell = MonotoneCell(12, m=2.0)
    model = fit(multi_view_classifier(SIZES, CLASSES, features=12, cell=cell, **OPTIONS), slice(None), 15)  # type: ignore[arg-type]
    x, y = views(20, seed=12)
    found = certify(model, x, y, ThreatModel("l2", 0.1, WIDE))
    assert found is not None and float(found.radius.max()) > 0.05
    held = found.radius > 1e-3
    threat = ThreatModel("l2", found.radius[held].float(), WIDE)
    assert not bool(JointAttack(steps=30)(model, x[held], y[held], threat).success.any())
    assert certify(model, x, y, MultiViewThreat("l2", 0.1, WIDE, sizes=SIZES)) is None
    assert isinstance(fused().cell, DenseCell)


def test_the_six_views_of_mfeat(data_root: Path) -> None:
    """Fused against single views at an equal radius, on real features, standardised."""
    file = data_root / "mfeat" / "mfeat.npz"
    if not file.exists():
        pytest.skip("needs mfeat/mfeat.npz in JIIO_DATA")
    content = np.load(file)
    parts = [torch.from_numpy(content[name]).float() for name in ("fou", "fac", "kar", "pix", "zer", "mor")]
    parts = [((p - p.mean(0)) / p.std(0)).clamp(-8, 8) for p in parts]
    y = torch.from_numpy(content["label"]).long()
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    x, y = torch.cat(parts, dim=1)[order], y[order]
    sizes = tuple(p.shape[1] for p in parts)
    torch.manual_seed(0)
    model = multi_view_classifier(sizes, 10, features=32, **OPTIONS)  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(60):
        batch = slice(200 * (step % 8), 200 * (step % 8) + 200)
        optimiser.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()
    optimiser.zero_grad()
    x, y = x[1600:1700], y[1600:1700]
    clean = accuracy(model.eval(), x, y)
    threat = MultiViewThreat("l2", 1.5, (-8.0, 8.0), sizes=sizes)
    result = PGD(steps=10)(model, x, y, threat)
    assert clean > 0.9 and 1.0 - float(result.success.float().mean()) < clean - 0.2
