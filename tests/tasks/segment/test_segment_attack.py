"""``jiio attack`` on a checkpoint of the task ``segment``: the figures of Python, and mistakes as sentences."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import cast

import pytest
import torch

from jiio.attacks import DenseTarget, evaluate_dense
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.load import build
from jiio.tasks.frame.loop import train
from jiio.tasks.segment.task import Segment, SegmentConfig

CELL = {
    "name": "Multiscale",
    "options": {"channels": [4, 8], "expansion": 1, "groups": 2, "fusion_groups": 2, "head_channels": [2, 2]},
}
SMALL = {
    "data": {"size": [12, 16], "batch_size": 4, "train_limit": 8, "test_limit": 3},
    "model": {"cell": CELL, "max_steps": 30, "rtol": 1e-2},
}
BALL = "--norm linf --radius 2/255"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = str(tmp_path_factory.mktemp("seg") / "run")
    config = build(SegmentConfig, {"steps": 2, "output": folder, **SMALL})
    return train(config, report=lambda line: None).path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from jiio.attacks import PGD, PixelAttack
    from jiio.attacks.dense import evaluate

    monkeypatch.setattr(evaluate, "standard_pixels", lambda: [PixelAttack(PGD(steps=2))])
    monkeypatch.chdir(tmp_path)


def test_the_command_gives_the_figures_of_python(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    line = f"{checkpoint} {BALL} --samples 2 --json a.json --report a.html"
    assert main(["attack", *shlex.split(line)]) == 0
    found = json.loads(Path("a.json").read_text())
    assert "mean IoU" in capsys.readouterr().out and "under attack</title>" in Path("a.html").read_text()

    read = load(checkpoint)
    x, masks = Segment(cast(SegmentConfig, read.config)).masked()
    target = DenseTarget(Segment.trained(read))
    wanted = evaluate_dense(target, [(x[:2], masks[:2])], "linf", 2 / 255)
    assert found["robust"]["accuracy"] == wanted.robust.accuracy and found["clean"]["iou"] == wanted.clean.iou
    assert found["images"] == 2 and found["provenance"]["weights"] == wanted.provenance["weights"]
    assert torch.equal(target.predict(x).label, target.model(x).pixels.argmax(1))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--norm linf", "--radius: expected a norm and a radius"),
        (f"{BALL} --suite standard", "--suite: expected a classifier of whole images"),
        ("--corruptions all", "--corruptions: expected a classifier of whole images"),
        (f"{BALL} --save a.npz", "--save: expected a classifier"),
        (f"{BALL} --data npz:a.npz", "--data: expected a classifier"),
    ],
)
def test_a_mistake_is_a_sentence(checkpoint: Path, words: str, sentence: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["attack", str(checkpoint), *shlex.split(words)]) == 2
    told, news = capsys.readouterr()
    assert sentence in news.splitlines()[-1] and "Traceback" not in news and not told
