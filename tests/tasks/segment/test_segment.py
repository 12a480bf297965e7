"""The task ``segment``: two heads on one equilibrium, its training with exact resuming, and its command."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import jiio
from helpers import along
from jiio import models
from jiio.checks import JiioError
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.load import build
from jiio.tasks.frame.loop import train
from jiio.tasks.segment.folders import IGNORED
from jiio.tasks.segment.networks import plain_segmenter
from jiio.tasks.segment.task import Segment, SegmentConfig, painted, see
from jiio.tasks.solving.networks import ReferenceConfig
from segment_cases import write_folder

TINY = {"channels": [4, 8], "expansion": 1, "groups": 2, "fusion_groups": 2, "head_channels": [2, 2]}
CELL = {"name": "Multiscale", "options": {**TINY, "final_channels": 8}}
SMALL = {
    "data": {"size": [12, 16], "batch_size": 4, "train_limit": 20, "test_limit": 12},
    "model": {"cell": CELL, "max_steps": 30, "rtol": 1e-2},
}


def configuration(**over) -> SegmentConfig:
    return build(SegmentConfig, {"steps": 4, "checkpoint_every": 2, **SMALL, **over})


def two_heads(**over) -> jiio.EquilibriumModel:
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in CELL["options"].items()}
    cell = models.MultiscaleConfig(**{**options, **over})
    return models.build(models.ModelConfig(cell, (3, 8, 16), "both", (5, 7)), on_failure="ignore")


def quiet(line: str) -> None:
    pass


# Heads


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_two_heads_see_one_equilibrium(halvings):
    torch.manual_seed(0)
    model, x = two_heads(halvings=halvings), torch.rand(3, 3, 8, 16)
    with torch.no_grad():
        seen = model(x)
        z = model.solve(x).z
    assert isinstance(seen, models.SceneScores)
    assert seen.image.shape == (3, 5) and seen.pixels.shape == (3, 7, 8, 16)
    assert isinstance(model.head, models.TwoHeads)
    with torch.no_grad():
        assert torch.equal(seen.image, model.head.image(z)) and torch.equal(seen.pixels, model.head.pixels(z))


def test_images_of_a_batch_do_not_meet():
    torch.manual_seed(0)
    model, x, order = two_heads(), torch.rand(4, 3, 8, 16), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        seen, turned, alone = model(x), model(x[order]), model(x[1:2])
    for together, moved, single in zip(seen, turned, alone, strict=True):
        assert torch.allclose(together[order], moved, atol=1e-5)
        assert torch.allclose(together[1:2], single, atol=1e-4)


def test_the_map_is_read_off_all_scales_side_by_side():
    """Every scale up-sampled to the finest, concatenated, 1x1 convolutions: what the head computes in another order."""
    torch.manual_seed(0)
    head = models.DenseHead((4, 8), 3)
    z = (torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4))
    side_by_side = torch.cat([z[0], F.interpolate(z[1], scale_factor=2, mode="nearest")], 1)
    weight = torch.cat([conv.weight for conv in head.merge.convs], 1)  # type: ignore[attr-defined]
    merged = F.conv2d(side_by_side, weight)  # type: ignore[arg-type]
    assert torch.allclose(head(z), head.score(torch.relu(head.norm(merged))), atol=1e-5)


def test_a_model_of_two_heads_is_saved_whole(tmp_path):
    torch.manual_seed(0)
    model, x = two_heads(), torch.rand(2, 3, 8, 16)
    models.save(model, tmp_path / "model.safetensors")
    again = models.load(tmp_path / "model.safetensors", on_failure="ignore")
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model.eval()(x), again(x), strict=True))


def test_what_two_heads_cannot_be_made_of():
    with pytest.raises(JiioError, match="vector state"):
        models.ModelConfig(models.DenseConfig(8), (1, 8, 8), "both", (2, 2))
    with pytest.raises(JiioError, match="output: expected a tuple of 2 whole numbers"):
        models.ModelConfig(models.ConvConfig(8), (1, 8, 8), "both", (2,))
    with pytest.raises(JiioError, match="pixels: expected an instance of Module"):
        models.TwoHeads(nn.Identity(), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("adjoint", ["implicit", "unrolled"])
def test_the_gradient_of_both_losses_agrees_with_finite_differences(adjoint):
    """With softplus, which has no kinks; the loss of the task itself, in double precision."""
    cell = {"name": "Multiscale", "options": {**CELL["options"], "activation": "softplus"}}
    data = {"size": [8, 8], "batch_size": 2, "train_limit": 4, "test_limit": 2}
    task = Segment(configuration(data=data, model={"cell": cell, "atol": 1e-12, "rtol": 1e-12, "max_steps": 200}))
    torch.manual_seed(0)
    model = task.model().double()
    assert isinstance(model, jiio.EquilibriumModel)
    if adjoint == "unrolled":
        model.adjoint = jiio.Unrolled()
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss, figures = task.loss(model, 0)
    assert figures["converged"] == 1.0
    loss.backward()
    measured, direction = along(lambda: (task.loss(model, 0)[0],), parameters, 1e-5)
    told = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True) if p.grad is not None)
    assert told == pytest.approx(measured, rel=1e-6)


def test_the_gradient_is_that_of_the_unrolled_iteration_in_every_number():
    cell = {"name": "Multiscale", "options": {**CELL["options"], "activation": "softplus"}}
    task = Segment(configuration(model={"cell": cell, "atol": 1e-11, "rtol": 1e-11, "max_steps": 200}))
    torch.manual_seed(0)
    model = task.model().double()
    assert isinstance(model, jiio.EquilibriumModel)
    task.loss(model, 0)[0].backward()
    other = copy.deepcopy(model)
    other.zero_grad()
    other.adjoint = jiio.Unrolled()
    task.loss(other, 0)[0].backward()
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-8), name


def test_joint_optimisation_reaches_a_map():
    """An input is moved until its pixels look like a class: jiio.solve through both heads."""
    torch.manual_seed(0)
    model = two_heads(activation="softplus").eval()
    x = torch.rand(2, 3, 8, 16)
    wanted = torch.zeros(2, 8, 16, dtype=torch.int64)

    def objective(seen, x: Tensor) -> Tensor:
        return F.cross_entropy(seen.pixels, wanted, reduction="none").flatten(1).sum(1)

    problem = model.problem(objective, jiio.Box(0.0, 1.0))
    solution = jiio.solve(problem, x, max_steps=40, on_failure="ignore")
    with torch.no_grad():
        before, after = objective(model(x), x), objective(model(solution.x), x)
    assert bool((after < 0.95 * before).all()) and bool(((solution.x >= 0) & (solution.x <= 1)).all())


# Training


def test_a_killed_training_ends_in_the_same_weights(tmp_path):
    whole = configuration(output=str(tmp_path / "whole"))
    parted = dataclasses.replace(whole, output=str(tmp_path / "parted"))
    first = train(whole, report=quiet)
    train(parted, report=quiet)
    left = ("weights.safetensors", "segments.png")
    for path in [*Path(parted.output).glob("step-*4.safetensors"), *(Path(parted.output) / name for name in left)]:
        path.unlink()  # as if it had been killed after step 2
    second = train(parted, resume=True, report=quiet)
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(value, second.tensors[key]) for key, value in first.tensors.items())
    lines = [json.loads(line) for line in (Path(parted.output) / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(4))
    assert all(line["evaluations"] > 0 and line["vjps"] > 0 and 0 <= line["mean_iou"] <= 1 for line in lines)
    with Image.open(Path(parted.output) / "segments.png") as sheet:
        assert sheet.width > 10 * 16 and sheet.height > 4 * 12


def test_a_training_learns_and_the_evaluation_tells_the_truth(tmp_path):
    folder = write_folder(tmp_path / "mine", 12)
    data = {"family": f"folder:{folder}", "size": [12, 16], "classes": 2, "ignore": 9, "batch_size": 4}
    over = {"steps": 25, "checkpoint_every": 25, "optimiser": {"rate": 0.02}, "data": data}
    config = configuration(output=str(tmp_path / "run"), **over)
    done = train(config, report=quiet)
    task = Segment(config)
    model = task.model().eval()
    load(done.path).restore_model(model)
    rows = task.evaluate(model)
    with torch.no_grad():
        said = see(model, task.data.test.float() / 255).scores.pixels.argmax(1)
    counted = task.data.test_masks != IGNORED
    right = float((said == task.data.test_masks)[counted].float().mean())
    assert rows[0]["pixel accuracy"] == pytest.approx(right) and right > 0.9 and rows[0]["accuracy"] == 1.0
    assert [row["images"] for row in rows[1:3]] == ["most frequent class", "colour alone"]
    assert float(rows[1]["mean IoU"]) == pytest.approx(0.25) and float(rows[2]["mean IoU"]) > 0.9
    assert [row["images"] for row in rows[3:]] == ["class 0", "class 1"]
    each = [float(row["IoU"]) for row in rows[3:]]
    assert float(rows[0]["mean IoU"]) == pytest.approx(sum(each) / 2)


def test_the_plain_network_has_the_size_asked_for_and_both_heads(tmp_path):
    network = plain_segmenter(ReferenceConfig(50_000), 3, 6)
    assert abs(sum(p.numel() for p in network.parameters()) - 50_000) < 15_000
    model = {"cell": {"name": "Reference", "options": {"parameters": 3000}}}
    config = configuration(output=str(tmp_path / "plain"), model=model)
    train(config, report=quiet)
    row = Segment(config).evaluate(Segment(config).model().eval())[0]
    assert "converged" not in row and "mean IoU" in row
    line = json.loads((tmp_path / "plain" / "log.jsonl").read_text().splitlines()[0])
    assert "evaluations" not in line and line["converged"] == 1.0


def test_weights_of_the_losses_add_up():
    losses = {}
    for weight in (0.0, 1.0, 2.0):
        task = Segment(configuration(weight=weight))
        torch.manual_seed(0)
        losses[weight], told = task.loss(task.model(), 0)
    parts = [float(value.detach()) for value in losses.values()]
    assert parts[2] - parts[1] == pytest.approx(parts[1] - parts[0], rel=1e-4)
    assert parts[0] == pytest.approx(told["pixel_cross_entropy"], rel=1e-5)  # type: ignore[arg-type]


def test_painted_masks_tell_classes_apart():
    colours = painted(torch.tensor([[[*range(19), IGNORED]]]), 19)[0, :, 0].T
    assert colours.shape == (20, 3) and float(torch.pdist(colours).min()) > 0.05


# The command line


def test_train_and_evaluate_with_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = json.dumps({"task": "segment", "output": "runs", "steps": 2, **SMALL})
    Path("mine.yaml").write_text(text)
    assert main(["train", "mine.yaml"]) == 0
    assert main(["evaluate", "runs", "--json", "figures.json", "--pictures", "seen", "--data.test_limit", "5"]) == 0
    rows = json.loads(Path("figures.json").read_text())["rows"]
    assert rows[0]["images"] == "test" and rows[3]["images"] == "background"
    assert Path("seen/segments.png").read_bytes()[:4] == b"\x89PNG"
    assert "mean IoU" in capsys.readouterr().err
    assert main(["evaluate", "runs", "--pictures", "mine.yaml"]) == 2
    assert "--pictures: expected a folder" in capsys.readouterr().err
    assert main(["attack", "runs"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        (
            {"data": {"family": "scene"}},
            "data.family: expected a family of images with masks, got str 'scene'. Did you",
        ),
        ({"data": {"family": "folder:here"}}, "data.classes: expected a number for a folder, got none. Say how many"),
        ({"data": {"classes": 4}}, "data.classes: expected none for scenes, got 4."),
        ({"data": {"family": "folder:here", "classes": 1}}, "data.classes: expected a whole number of at least 2"),
        ({"data": {"family": "folder:here", "classes": 300}}, "data.classes: expected a whole number of at most 255"),
        ({"data": {"family": "folder:here", "classes": 4, "ignore": 3}}, "data.ignore: expected a number that is no"),
        ({"data": {"size": 32}}, "data.size: expected a list, got int 32."),
        ({"data": {"size": [32]}}, "data.size: expected a tuple of 2 whole numbers"),
        ({"data": {"size": [30, 32]}}, "input: expected a height and width that are multiples of 8, got"),
        ({"data": {"size": [4, 8]}}, "data.size: expected a whole number of at least 8, got int 4."),
        ({"data": {"family": "mnist", "size": [24, 32]}}, "data.size: expected a whole number of at least 28"),
        ({"data": {"channels": 2}}, "data.channels: expected 1 (grey) or 3 (colour), got int 2."),
        ({"data": {"test_share": 2.0}}, "data.test_share: expected a number of at least 0 and at most 1"),
        ({"data": {"train_limit": 0}}, "data.train_limit: expected a whole number of at least 1, got int 0."),
        ({"data": {"shift": 1}}, "data.shift: no such key in data."),
        ({"weight": -1.0}, "weight: expected a number of at least 0, got float -1.0."),
        ({"model": {"cell": {"name": "Dense"}}}, "head: expected 'classifier' or 'image' for a vector state"),
        ({"model": {"cell": {"name": "Multiscal"}}}, "model.cell.name: no network is called 'Multiscal'. Did you mean"),
        ({"model": {"adjoint": {"name": "implicit"}}}, "model.adjoint.name: no adjoint is called 'implicit'."),
    ],
)
def test_a_mistake_in_the_configuration_is_a_sentence(over, sentence):
    with pytest.raises(JiioError) as error:
        build(SegmentConfig, over)
    assert sentence in str(error.value) and "\n" not in str(error.value)
