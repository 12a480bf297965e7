"""A training on one's own: pictures in folders, an operator without an adjoint, one that is not linear; then the
trained model on files and on tensors, by the command line and by one call."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jiio.outputs.seeds import generator
from jiio.tasks import Restorer
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.load import build
from jiio.tasks.frame.task import build_task
from jiio.tasks.maps.noise import Poisson
from jiio.tasks.maps.physics import Circulant
from jiio.tasks.restore.latent import RestoreConfig

YAML = """\
task: restore
steps: 20
checkpoint_every: 10
validate_every: 10
average: 0.9
data: {family: "folder:pics", size: 16, batch_size: 8}
model: {cell: {name: Dense, options: {features: 24, gain: 0.5, scaling: spectral}}, latent: 8}
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A folder outside jiio with 40 pictures of two lights, in folders inside folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "outside"))
    rows, columns = np.mgrid[0:16, 0:16] / 15
    for i in range(40):
        light = 0.5 + 0.4 * np.sin(0.3 * i + 2 * rows) * np.cos(0.2 * i + 2 * columns)
        path = Path(f"pics/{i % 3}/{i % 2}/{i:02d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * light).round().astype(np.uint8)).save(path)
    Path("mine.yaml").write_text(YAML)
    return tmp_path


@pytest.mark.parametrize("name", ["RowBlur", "Film"])
def test_from_a_folder_and_a_function_to_files_and_tensors(own, name, capsys):
    train = ["train", "mine.yaml", "--corruption.name", f"mine.parts:{name}", "--output", "runs/own"]
    assert main([*train, "--steps", "20"]) == 0
    assert main([*train, "--resume"]) == 0  # nothing is left to do
    assert load(Path("runs/own"), allow=["mine"]).path.name == "best.safetensors"
    capsys.readouterr()

    assert main(["evaluate", "runs/own", "--allow", "mine"]) == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["joint (jiio)"]["PSNR"] > rows["mean image"]["PSNR"]
    assert main(["evaluate", "runs/own"]) == 2  # a stranger's file is not followed

    # On a picture: nothing is said of it, so it is what the training was against.
    words = "restore pics/0/0/00.png --weights runs/own --allow mine --sigma 12 --output out.png"
    assert main(words.split()) == 0
    with Image.open("out.png") as picture:
        assert picture.size == (16, 16)

    # On a tensor, by one call: with no word of the physics, and with one.
    restorer = Restorer.load("runs/own", allow=["mine"])
    config = restorer.restorer.corruption
    x = torch.rand(2, 1, 16, 16, generator=generator(0)) * 0.2 + 0.4
    operator = config.map(x, generator=generator(1))
    y = operator.measure(x, generator(2))
    done = restorer(y, operator)
    assert done.image.shape == x.shape
    assert torch.equal(restorer(y, sigma=0.05).image, done.image) and torch.equal(restorer(y).image, done.image)
    assert restorer(y, lambda x: x * (x > -1), sigma=0.05).image.shape == x.shape


def test_what_a_function_says_of_itself_is_found(own):
    task = build_task(build(RestoreConfig, {"task": "restore", "corruption": {"name": "mine.parts:RowBlur"}}))
    operator = task.draw(task.images.train[:2], "train", 0)  # type: ignore[attr-defined]
    assert isinstance(operator, Circulant) and operator.sigma == 0.05
    film = build_task(build(RestoreConfig, {"task": "restore", "corruption": {"name": "mine.parts:Film"}}))
    assert film.draw(task.images.train[:2], "train", 0).noise == Poisson(1 / 200)  # type: ignore[attr-defined]


def test_a_picture_of_another_size_is_one_sentence(own, capsys):
    assert (
        main(["train", "mine.yaml", "--steps", "2", "--output", "runs/own", "--corruption.name", "GaussianBlur"]) == 0
    )
    Image.fromarray(np.zeros((20, 24), np.uint8)).save("large.png")
    assert main(["restore", "large.png", "--weights", "runs/own", "--sigma", "5"]) == 2
    assert "16 x 16, which the weights are for" in capsys.readouterr().err
