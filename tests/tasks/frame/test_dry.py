"""A dry run: one step on two samples, and nothing written; and the recipes of the papers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jiio.models import TransformerModel
from jiio.tasks.classify.task import Classify
from jiio.tasks.cli import main
from jiio.tasks.frame.load import build, read_yaml
from jiio.tasks.frame.registry import config_class
from jiio.tasks.frame.shipped import all_shipped

SMALL = ["--data.size", "8", "--model.cell.name", "Dense", "--model.cell.options", "{features: 6}"]
PAPERS = sorted(name for name in all_shipped("configs", ".yaml") if name.startswith("paper"))
# recipe -> parameters in the paper. By the sizes in the authors' code the tiny model is 6.5 % below its 170,000.
COUNTS = {
    "paper-mdeq-cifar10": 10e6,
    "paper-mdeq-imagenet-small": 18e6,
    "paper-mdeq-imagenet-large": 63e6,
    "paper-language-wikitext103": 98e6,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(name: str) -> Any:
    values = read_yaml("CONFIG", all_shipped("configs", ".yaml")[name])
    return build(config_class(values), values)


def parameters(name: str) -> int:
    """Of the model of a recipe, without memory and data."""
    config = recipe(name)
    with torch.device("meta"):
        model = (
            TransformerModel(config.model.plan(config.data.vocabulary))
            if config.task == "language"
            else config.model.build(config.data)
        )
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_as_many_parameters_as_the_paper_within_2_per_cent(name: str) -> None:
    assert parameters(name) == pytest.approx(COUNTS[name], rel=0.02)


def test_the_tiny_model_has_the_sizes_of_the_authors_code() -> None:
    """Stem, blocks, fusion and head by hand: 3x3 and 1x1 convolutions with their norms."""
    stem = 9 * 24 * (3 + 24) + 4 * 24
    block = 2 * 9 * 24 * 120 + 120 + 24 + 2 * (120 + 24 + 24)
    fusion = (9 * 24 * 24 + 24 + 48) + (24 * 24 + 24 + 48) + 2 * (24 * 24 + 24)
    head = sum(24 * h + 9 * h * h + 4 * h * h + 4 * 24 * h + 2 * (h + h + 4 * h + 4 * h) for h in (8, 16))
    head += 9 * 32 * 64 + 2 * 64 + 64 * 200 + 2 * 200 + 200 * 10 + 10
    assert parameters("paper-mdeq-cifar10-tiny") == stem + 2 * block + fusion + head
    assert parameters("paper-jiio-cifar10") == parameters("paper-mdeq-cifar10-tiny")


def test_a_dry_run_takes_one_step_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "classify-faces", "--dry-run", *SMALL]) == 0
    told = capsys.readouterr().err
    found = re.search(
        r"([\d,]+) parameters; one step on 2 samples: loss [\d.]+, gradient [\d.]+, \d+ evaluations", told
    )
    assert found is not None and list(here.iterdir()) == []
    size = 64 * 6 + 6 + 6 * 6 + 6 * 2 + 2  # injection with an offset, cell, head
    assert int(found[1].replace(",", "")) == size


def test_a_dry_run_is_of_two_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    batch = Classify.batch

    def watched(self: Classify, model: Any, step: int) -> Any:
        seen.append(len(batch(self, model, step).x))
        return batch(self, model, step)

    monkeypatch.setattr(Classify, "batch", watched)
    assert main(["train", "classify-faces", "--dry-run", *SMALL]) == 0
    assert seen == [2]


def test_a_dry_run_is_past_the_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Three layers are three evaluations and one that measures; an equilibrium to this tolerance takes more."""
    options = ["--warm.steps", "5", "--model.rtol", "1e-6", "--model.atol", "1e-9"]
    assert main(["train", "classify-faces", "--dry-run", *SMALL, *options]) == 0
    found = re.search(r"(\d+) evaluations", capsys.readouterr().err)
    assert found is not None and int(found[1]) > 5


MISTAKES = {
    "classify-faces --dry-run --resume": "--dry-run: expected a training that begins",
    "classify-faces --dry-runn": "--dry-runn: no such option",
    "prior-grey --dry-run --data.batch_size 0": "data.batch_size: expected a whole number of at least 1",
    "clean-mnist --dry-run --data-root nowhere": "the four MNIST files",
    "paper-mdeq-cifar10 --dry-run --data-root nowhere": "the six files of CIFAR-10 in binary",
    "paper-mdeq-imagenet-small --dry-run --data-root nowhere": "ImageNet's folders",
    "paper-language-wikitext103 --dry-run --data-root nowhere": "the text wikitext-103",
    "paper-segment-cityscapes --dry-run --data-root nowhere": "cityscapes",
    "paper-nothing --dry-run": "no file is called 'paper-nothing'",
    "classify-faces --dry-run --optimiser.method adagrad": "optimiser.method: expected one of",
    "classify-faces --dry-run --optimiser.momentum 0.5": "optimiser.method: expected sgd",
    "classify-faces --dry-run --optimiser.method sgd --optimiser.momentum 1": "above 0 and below 1",
    "classify-faces --dry-run --optimiser.schedule line": "optimiser.schedule: expected one of",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_sentence(line: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *line.split()]) == 2
    errors = capsys.readouterr().err
    assert MISTAKES[line] in errors and len(errors.splitlines()) == 1 and list(here.iterdir()) == []


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "classify-faces", "--dry-run"]) == 2
    assert "--dry-run: expected one process" in capsys.readouterr().err


# -- one step of every paper's recipe, on made-up data and small crops


def made_up(root: Path) -> None:
    """Two samples and more of everything, where the recipes look for it."""
    draw = np.random.default_rng(0)
    cifar = root / "cifar-10-batches-bin"
    cifar.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = draw.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (cifar / f"{name}.bin").write_bytes(records.tobytes())
    for part in ("imagenet/train/a", "imagenet/train/b", "imagenet/val/a", "imagenet/val/b", "celeba_1000/img"):
        (root / part).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(root / part / f"{i}.png")
    for kind, size in (("leftImg8bit", (32, 64, 3)), ("gtFine", (32, 64))):
        for split in ("train", "val"):
            folder = root / "cityscapes" / kind / split / "aachen"
            folder.mkdir(parents=True)
            ends = (
                ["leftImg8bit"] if kind == "leftImg8bit" else ["gtFine_labelIds", "gtFine_instanceIds", "gtFine_color"]
            )
            for i in range(3):
                for end in ends:
                    Image.fromarray(draw.integers(7, 9, size, dtype=np.uint8)).save(
                        folder / f"aachen_{i:06d}_000019_{end}.png"
                    )
    text = root / "text" / "wikitext-103"
    text.mkdir(parents=True)
    for part in ("train", "valid", "test"):
        (text / f"wiki.{part}.tokens").write_text("the cat sat on the mat and the dog sat on the log\n" * 60)


CROPS = {
    "paper-mdeq-imagenet-small": "--data.size 32 --data.shift 1",
    "paper-mdeq-imagenet-large": "--data.size 32 --data.shift 1",
    "paper-segment-cityscapes": "--data.size [32,64]",
    "paper-language-wikitext103": "--data.segment 12 --data.vocabulary 12 --model.cutoffs [] --model.memory 12",
    "paper-jiio-celeba": "--data.size 16 --data.family folder:celeba_1000/img",
    "paper-jiio-omniglot": "--data.family glyphs",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_every_recipe_of_a_paper_takes_a_step(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(here)
    before = sorted(here.rglob("*"))
    words = ["--data-root", str(here), "--threads", "1", *CROPS.get(name, "").split()]
    assert main(["train", name, "--dry-run", *words]) == 0, capsys.readouterr().err
    told = capsys.readouterr().err
    assert "one step on 2 samples: loss" in told and "nan" not in told and sorted(here.rglob("*")) == before
