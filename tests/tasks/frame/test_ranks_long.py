"""Trainings by several processes, at length: for every recipe the weights of one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from rank_cases import RECIPES, apart, begin, chained, said, write_recipe

pytestmark = pytest.mark.slow
STEPS = 50


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Every recipe by one process, in double precision."""
    folder = tmp_path_factory.mktemp("alone")
    train_all(folder, 1)
    return folder


def train_all(folder: Path, count: int, *more: str) -> None:
    """Every recipe by so many processes."""
    # Of the steps of `meta` each makes rounding errors larger by far: a few show whether the parts add up.
    files = [write_recipe(name, folder, 5 if name == "meta" else STEPS).name for name in RECIPES]
    commands = [["train", file, "--output", file.removesuffix(".yaml"), *more] for file in files]
    with begin(count, chained(commands), folder, IN_DOUBLE="1") as started:
        assert started.finish(1500) == [0] * count, said(folder)


@pytest.mark.parametrize(("count", "more"), [(2, ()), (4, ()), (1, ("--accumulate", "3")), (2, ("--accumulate", "2"))])
def test_every_recipe_ends_in_the_weights_of_one_process(count: int, more: tuple[str, ...], alone, tmp_path) -> None:
    train_all(tmp_path, count, *more)
    found = {
        name: apart(alone / name / "weights.safetensors", tmp_path / name / "weights.safetensors") for name in RECIPES
    }
    print(found)
    assert max(found.values()) < 1e-6
