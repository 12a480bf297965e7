"""What ``benchmarks.attacks.lyapunov_trajectories`` counts, on small cells whose answers are known."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from jiio.layout import Spec
from jiio.models import (
    ConvexPotential,
    DenseCell,
    DenseConfig,
    LyapunovCell,
    MultiscaleCell,
    MultiscaleConfig,
    classifier,
    lyapunov_model,
)

SMALL = MultiscaleConfig(
    channels=(2, 2), expansion=1, groups=1, fusion_groups=1, head_channels=(1, 1), final_channels=4
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
    return importlib.import_module("benchmarks.attacks.lyapunov_trajectories")


def stable(kind: str, alpha: float = 0.1) -> tuple[LyapunovCell, Any, Tensor]:
    """A cell, a state of its shape for three samples, and what is injected."""
    torch.manual_seed(0)
    if kind == "dense":
        inner: Any = DenseCell(6, gain=0.5)
        u = torch.randn(3, 6, dtype=torch.float64)
    else:
        inner, u = MultiscaleCell(SMALL), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    spec = Spec.of(inner.initial_state(u))
    z = spec.unpack(2.0 * torch.randn(3, spec.size, dtype=torch.float64))
    return LyapunovCell(inner.double(), ConvexPotential(spec.size, widths=(5,)).double(), alpha=alpha), z, u


@pytest.mark.parametrize("kind", ["dense", "multiscale"])
def test_a_flow_in_parts_is_the_flow(bench: ModuleType, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts leave when they have arrived: what is counted is what one long trajectory of all of them shows."""
    monkeypatch.setattr(bench, "PART", 7)
    monkeypatch.setattr(bench, "ARRIVED", 1e-2)
    cell, z, u = stable(kind)
    whole, values, sizes = cell.trajectory(z, u, steps=38, length=bench.LENGTH)
    went = bench.flow(cell, z, u, 0, 38)

    moving = sizes[:-1] > 1e-2
    up = (values[1:] > values[:-1]) & moving
    assert went.moves == int(moving.sum()) and went.rises == int(up.sum()) and torch.equal(went.rose, up.any(0))
    # Who has arrived rests from the end of a part on, and is near the end of the long way.
    spec = Spec.of(z)
    assert torch.allclose(went.end, spec.pack(whole), atol=0.1)
    late = sizes[[7, 14, 21, 28, 35]].amin(0) > 1e-2
    assert torch.equal(went.end[late], spec.pack(whole)[late])
    assert bool(late.all()) or not torch.equal(went.end[~late], spec.pack(whole)[~late])
    assert (kind == "multiscale") == bool(late.any())


def test_rises_are_counted_where_there_are_some(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are far too long for a field that is pushed hard; who has risen once stays in the list."""
    monkeypatch.setattr(bench, "PART", 1)
    cell, z, u = stable("dense", alpha=8.0)
    went = bench.flow(cell, z, u, 0, 7)
    values, sizes = cell.trajectory(z, u, steps=7, length=bench.LENGTH)[1:]
    up = (values[1:] > values[:-1]) & (sizes[:-1] > bench.ARRIVED)
    assert went.rises == int(up.sum()) > 0 and torch.equal(went.rose, up.any(0))
    assert bool((up.any(0) & ~up[-1]).any())


def test_a_start_at_the_equilibrium_does_not_move(bench: ModuleType) -> None:
    cell, _, u = stable("dense")
    solution, _ = bench.solved(cell, u, 0)
    went = bench.flow(cell, solution.z, u, 10, 20)
    assert went.moves == 0 and went.rises == 0 and not bool(went.rose.any())
    assert torch.allclose(went.end, solution.z, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "multiscale"])
def test_starts_are_three_times_as_large_as_the_equilibria(bench: ModuleType, kind: str) -> None:
    cell, z, u = stable(kind)
    (solution, start), (_, other) = (bench.solved(cell, u, seed) for seed in (0, 1))
    spec = Spec.of(z)
    assert Spec.of(start) == spec and bool(solution.converged.all())
    size = spec.pack(solution.z).square().mean(1).sqrt()
    drawn = spec.pack(start) / size[:, None]
    assert drawn.dtype == torch.float64 and 2.0 < float(drawn.std()) < 4.5
    assert not torch.equal(spec.pack(start), spec.pack(other))


def test_who_has_arrived_and_where(bench: ModuleType) -> None:
    """Three starts: one at its equilibrium, one on the way, and one whose equilibrium the solver did not vouch for."""
    cell, z, u = stable("dense")
    solution, start = bench.solved(cell, u, 0)
    end = solution.z.clone()
    end[1] += 0.1
    vouched = argparse.Namespace(z=solution.z, converged=torch.tensor([True, True, False]))
    went = bench.Flow(end, torch.tensor([True, False, True]), 7, 11)
    row = bench.counted(cell, u, start, went, vouched)
    figures = ("starts", "rises", "of steps", "starts with a rise", "arrived", "same equilibrium", "solver converged")
    assert [row[name] for name in figures] == [3, 7, 11, 2, 2, 1, 2]
    assert row["largest |F|"] > 1e-3 and row["corrected at the start"] == 0  # a contraction needs no help

    # Another equilibrium than the solver's is an arrival, and not the same.
    elsewhere = argparse.Namespace(z=solution.z + 1.0, converged=torch.ones(3, dtype=torch.bool))
    assert bench.counted(cell, u, start, went, elsewhere)["same equilibrium"] == 0
    fast, z, u = stable("dense", alpha=8.0)
    assert bench.counted(fast, u, z, went, solution)["corrected at the start"] == 3


def test_the_spectral_radius_is_that_of_the_weights_at_rest(bench: ModuleType) -> None:
    torch.manual_seed(0)
    inner = DenseCell(6, gain=1.5).double()
    rest = torch.zeros(3, 6, dtype=torch.float64)
    with torch.no_grad():
        for bias in (p for name, p in inner.named_parameters() if name.endswith("bias")):
            bias.zero_()
    cell = LyapunovCell(inner, ConvexPotential(6, widths=(3,)).double())
    some = argparse.Namespace(z=rest, converged=torch.tensor([False, True, True]))
    expected = float(torch.linalg.eigvals(inner.weight.detach()).abs().max())
    assert bench.radius(cell, some, rest) == pytest.approx(expected, rel=1e-5)
    assert math.isnan(bench.radius(cell, argparse.Namespace(z=rest, converged=torch.zeros(3, dtype=torch.bool)), rest))


@pytest.mark.parametrize("name", ["contracting", "free, plain steps", "multiscale, alpha 1"])
def test_a_row_of_every_kind(bench: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = bench.CASES[name]
    torch.manual_seed(0)
    config: Any = SMALL
    if case.kind != "multiscale":
        config = DenseConfig(6, gain=0.7, scaling="spectral" if case.kind == "contracting" else "none")
    plain = classifier(config, image=(1, 4, 4), classes=3)
    model = lyapunov_model(plain, torch.zeros(1, 1, 4, 4), widths=(5,)).double().eval()
    x = torch.rand(4, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        labels = model(x).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    monkeypatch.setattr(bench, "trained", lambda kind, seed, options: (model, x, labels))

    row = bench.follow(name, 5, argparse.Namespace(fast=False, limit=30))
    assert (row["cell"], row["seed"], row["starts"], row["right, %"]) == (name, 5, 4, 75.0)
    assert model.cell.alpha == case.alpha and row[bench.ORTHOGONAL] < 1e-5  # type: ignore[union-attr]
    assert ("spectral norm of W" in row) == (case.kind != "multiscale") and row["spectral radius"] > 0
    assert row["of steps"] <= 4 * 30 and row["solver converged"] > 0


def test_networks_are_chosen_and_seeds_share_a_line(
    bench: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(name: str, seed: int, options: Any) -> dict[str, Any]:
        return {"seed": seed, "cell": name, "rises": 10 * seed}

    monkeypatch.setattr(bench, "follow", follow)
    assert bench.command(["--cells", "free", "multiscale", "--seeds", "2"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "(0 to 10)" in line]
    told = [next(name for name in sorted(bench.CASES, key=len, reverse=True) if name in line) for line in lines]
    assert told == [name for name, case in bench.CASES.items() if case.kind != "contracting"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cells", "sparse"], "sparse"),
        (["--starts", "0"], "above zero"),
        (["--limit", "-1"], "above zero"),
        (["--steps", "1.5"], "above zero"),
        (["--seeds", "many"], "above zero"),
    ],
)
def test_what_it_cannot_do_is_a_sentence(
    bench: ModuleType, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        bench.command(words)
    assert end.value.code == 2 and told in capsys.readouterr().err
