"""Recipes and commands on a pretended GPU; and which device a run is on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jiio.checks import JiioError
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.loop import train
from jiio.tasks.frame.machine import check_device
from jiio.tasks.frame.shipped import all_shipped
from pretended import pretending

ROOT = Path(__file__).parents[3]
QUICK = ["classify-faces", "restore-faces", "prior-grey"]  # the others are in the slow run


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small recipes, which the benchmark of a GPU begins with too."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    return importlib.import_module("benchmarks.gpu.recipes")


@pytest.mark.parametrize("name", QUICK)
def test_a_recipe_trains_on_a_gpu(recipes: Any, name: str, tmp_path: Path, gpu: torch.device) -> None:
    config = recipes.recipe(name, small=True, steps=1, output=str(tmp_path / "run"), device="auto")
    checkpoint = train(config, report=lambda line: None)
    assert check_device(config.device).type == gpu.type
    assert checkpoint.step == 1 and all(not t.is_cuda for t in checkpoint.tensors.values())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log\n" * 40, encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(all_shipped("configs", ".yaml")))
def test_every_recipe_trains_and_is_measured_on_a_gpu(
    recipes: Any, name: str, tmp_path: Path, text: Path, gpu: torch.device
) -> None:
    data = {"data": {"family": f"file:{text}", "held_out": 0.1}} if name.startswith("language") else {}
    config = recipes.recipe(name, small=True, steps=2, output=str(tmp_path / "run"), device="cuda", **data)
    checkpoint = train(config, report=lambda line: None)
    if config.task not in ("prior", "direct"):
        assert evaluate(checkpoint)


def test_every_recipe_is_small_somewhere(recipes: Any) -> None:
    assert set(recipes.SMALL) == set(all_shipped("configs", ".yaml"))


@pytest.mark.parametrize("name", sorted(all_shipped("configs", ".yaml")))
def test_a_small_recipe_can_begin(recipes: Any, name: str, tmp_path: Path) -> None:
    """Its values fit each other, and its batch its parts: what a recipe says for a large machine may not stay."""
    config = recipes.recipe(name, small=True, steps=1, output=str(tmp_path / "run"))
    assert 1 <= config.accumulate <= config.data.batch_size


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check_device("auto") == torch.device("cpu")
    with pretending():
        assert check_device("auto").type == "cuda"


def test_mps_is_refused_in_a_sentence_that_says_why() -> None:
    with pytest.raises(JiioError, match=r"device: .* got 'mps', which has no float64, .* Say cuda or cpu\."):
        check_device("mps")
