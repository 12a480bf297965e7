"""A release: one version and one date wherever they stand, and model cards that are about the files beside them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import jiio
from jiio.tasks.frame.checkpoint import load

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
NEWEST = re.search(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
# A heading of a model card: ## name (size, parameters)
CARD = re.compile(r"^## ([\w-]+) \(([\d.,]+) (KiB|MB), ([\d,]+) parameters\)$", re.MULTILINE)
CARDS = [
    pytest.param(page.parent, *found, id=found[0])
    for page in sorted((ROOT / "tasks").glob("*/weights/README.md"))
    for found in CARD.findall(page.read_text(encoding="utf-8"))
]


def test_one_version_and_one_date() -> None:
    assert NEWEST is not None
    assert {PROJECT["version"], jiio.__version__, CITATION["version"]} == {NEWEST[1]}
    assert str(CITATION["date-released"]) == NEWEST[2]
    assert CITATION["license"] == PROJECT["license"]


def test_every_file_of_weights_has_a_card_and_every_card_a_file() -> None:
    files = {path.stem for path in (ROOT / "tasks").glob("*/weights/*.safetensors")}
    assert sorted(str(card.values[1]) for card in CARDS) == sorted(files)


@pytest.mark.parametrize(("folder", "name", "size", "unit", "parameters"), CARDS)
def test_a_card_tells_size_and_parameters_of_its_file(
    folder: Path, name: str, size: str, unit: str, parameters: str
) -> None:
    path = folder / f"{name}.safetensors"
    there = path.stat().st_size / (1024 if unit == "KiB" else 1e6)
    assert there == pytest.approx(float(size.replace(",", "")), rel=0.05)
    checkpoint = load(name)
    assert checkpoint.path.name == path.name
    # A mean image and statistics of codes, which are buffers, are in the file besides.
    count, told = sum(t.numel() for t in checkpoint.named("model.").values()), int(parameters.replace(",", ""))
    assert told <= count < 1.03 * told


def test_shipped_weights_stay_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "tasks").glob("*/weights/*.safetensors")]
    assert max(sizes) < 6e6 and sum(sizes) < 16e6
