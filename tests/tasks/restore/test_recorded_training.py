"""A training step of the prior as one launch: the weights of the eager one, and one record for each length."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jiio.recording import forget_records, recorded_loss, recorded_steps
from jiio.recording.store import STORE, RecordedStep
from jiio.tasks.frame.loop import train
from jiio.tasks.frame.task import build_task


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    forget_records()
    yield
    forget_records()


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small recipes, which the benchmark of a GPU begins with too."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[3])])
    return importlib.import_module("benchmarks.gpu.recipes").recipe


def weights(recipe: Any, folder: Path, name: str, **changes: Any) -> dict[str, Tensor]:
    config = recipe(
        name, small=True, steps=4, output=str(folder), device="cpu", unroll={"low": 1, "high": 2}, **changes
    )
    checkpoint = train(config, report=lambda line: None)
    model = build_task(config).model()
    checkpoint.restore_model(model)
    return model.state_dict()


@pytest.mark.parametrize(("name", "precision"), [("prior-grey", "float32"), ("direct-grey", "bfloat16")])
def test_a_recorded_training_ends_in_the_same_weights(
    recipe: Any, name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[Any, RecordedStep]] = []  # the store itself drops them with the model
    monkeypatch.setattr(STORE, "keep", lambda key, record, owners: kept.append((key, record)))
    monkeypatch.setattr(STORE, "find", lambda key: next((r for k, r in kept if k == key), None))
    eager = weights(recipe, tmp_path / "eager", name, precision=precision)
    with recorded_steps():
        recorded = weights(recipe, tmp_path / "recorded", name, precision=precision)
    assert not STORE.refused
    assert {key[1][1] for key, _ in kept} == {1, 2} and sum(record.used for _, record in kept) == 4
    for key, value in eager.items():
        assert torch.allclose(value, recorded[key], rtol=1e-4, atol=1e-6), key


def test_a_part_of_a_batch_is_eager(recipe: Any, tmp_path: Path) -> None:
    """The mean square of all states is asked for in the middle of the loss."""
    with recorded_steps():
        weights(recipe, tmp_path / "parts", "prior-grey", accumulate=2)
    assert not STORE.records and not STORE.seen


def test_the_gradients_are_those_of_the_weights_that_count() -> None:
    """Of a loss by hand: a weight without a gradient keeps none, and the slope of what follows is respected."""
    module: Any = nn.ModuleDict({"used": nn.Linear(2, 1, bias=False), "idle": nn.Linear(2, 1)})
    x = torch.tensor([[1.0, 2.0]])
    with recorded_steps():
        for round_ in range(3):
            module.zero_grad()
            loss, seen = recorded_loss(lambda x: [module["used"](x).sum() ** 2, x.sum()], module, [x * (round_ + 1)])
            (3.0 * loss).backward()
            value = float(module["used"](x * (round_ + 1)).detach())
            used, idle = module["used"].weight.grad, module["idle"].weight.grad
            assert idle is None and used is not None
            assert torch.allclose(used, 6.0 * value * x * (round_ + 1), rtol=1e-5)
            assert float(loss.detach()) == pytest.approx(value**2) and float(seen) == 3.0 * (round_ + 1)
            with torch.no_grad():
                module["used"].weight.add_(0.1)
    (record,) = STORE.records.values()
    assert record.used == 3


def test_a_loss_that_looks_at_numbers_is_eager() -> None:
    module = nn.Linear(2, 1)
    with recorded_steps():
        for _ in range(2):
            (loss,) = recorded_loss(
                lambda x: [module(x).sum() * (2.0 if bool(x.sum() > 0) else 1.0)], module, [torch.ones(1, 2)]
            )
            loss.backward()
    assert not STORE.records and len(STORE.refused) == 1 and module.weight.grad is not None
