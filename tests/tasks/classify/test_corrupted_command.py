"""``jiio attack --corruptions`` on one's own model: the figures of Python, a baseline, and mistakes as sentences."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent))
import own_models

from jiio.attacks import evaluate_corruptions
from jiio.tasks.cli import main

LINE = "--model own_models:Net --data npz:d.npz --corruptions fog shot_noise"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    labels = np.arange(12) % 2
    images = np.random.default_rng(0).integers(90, 130, (12, 6, 6))
    for i, label in enumerate(labels):
        images[i, :, 3 * label : 3 * label + 3] += 3 * i
    np.savez("d.npz", images=images.astype(np.uint8), labels=labels)
    return tmp_path


def test_the_command_gives_the_figures_of_python(capsys: pytest.CaptureFixture) -> None:
    assert main(["attack", *shlex.split(f"{LINE} --seed 2 --json a.json --report a.html --batch 5")]) == 0
    file = np.load("d.npz")
    x, y = torch.from_numpy(file["images"]).float()[:, None] / 255, torch.from_numpy(file["labels"])
    wanted = evaluate_corruptions(own_models.Net().eval(), [(x, y)], ["fog", "shot_noise"], seed=2)
    found = json.loads(Path("a.json").read_text())
    assert found["errors"] == wanted.errors and found["clean"] == wanted.clean and wanted.mean_error > 0
    assert "own_models:Net under common corruptions</title>" in Path("a.html").read_text()
    assert "no baseline" in capsys.readouterr().out.lower()

    # Against itself every ratio is one; the file of the baseline stays what it is.
    again = f"{LINE} --seed 2 --baseline a.json --json b.json"
    assert main(["attack", *shlex.split(again)]) == 0
    assert json.loads(Path("b.json").read_text())["mce"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (f"{LINE} rain", "--corruptions: expected all, or some of gaussian_noise"),
        (f"{LINE} --radius 0.1", "--radius: expected nothing of attacks beside --corruptions"),
        (f"{LINE} --attack PGD", "--attack: expected nothing of attacks"),
        (f"{LINE} --save a.npz", "--save: expected nothing of attacks"),
        (f"{LINE} --state s", "--state: expected nothing of attacks"),
        (f"{LINE} --no-audit", "--no-audit: expected nothing of attacks"),
        (f"{LINE} --baseline missing.json", "--baseline"),
        (f"{LINE} --baseline d.npz", "--baseline, d.npz is no report of corruptions"),
        (
            "--model own_models:Net --data npz:d.npz --norm linf --radius 0.1 --baseline d.npz",
            "--baseline: expected --c",
        ),
        (f"{LINE} --bounds 0 100", "inside the bounds [0, 100]"),
        (f"{LINE} --json d.npz", "does not end in .npz"),
    ],
)
def test_a_mistake_is_a_sentence(line: str, sentence: str, capsys: pytest.CaptureFixture) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["attack", *shlex.split(line)]) == 2
    told, news = capsys.readouterr()
    assert sentence in news.splitlines()[-1] and "Traceback" not in news and not told
    assert sorted(Path().rglob("*")) == before
