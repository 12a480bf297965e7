"""The task ``segment``: two heads on one equilibrium, scenes and masks from disk, its figures, and exact resuming."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import jiio
from helpers import along
from jiio import models
from jiio.checks import JiioError
from tasks.checkpoint import load
from tasks.cli import main
from tasks.files import InputError
from tasks.load import build
from tasks.loop import train
from tasks.networks import ReferenceConfig
from tasks.segment import Segment, SegmentConfig, cross_entropy, painted, see
from tasks.segment_data import SegmentDataConfig, image_labels, load_segmented, segmented_batch
from tasks.segment_folders import IGNORED, middle
from tasks.segment_metrics import (
    ColourTable,
    bootstrap,
    confusion,
    intersection_over_union,
    mean_iou,
    pixel_accuracy,
)
from tasks.segment_networks import plain_segmenter
from tasks.segment_scenes import SHAPES, render

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


# Losses and figures


def test_pixels_without_a_class_count_nowhere():
    torch.manual_seed(0)
    scores, true = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(3, (2, 4, 4))
    true[:, :2] = IGNORED
    kept = F.cross_entropy(scores[:, :, 2:], true[:, 2:])
    assert torch.allclose(cross_entropy(scores, true), kept, atol=1e-6)
    cross_entropy(scores, true).backward()
    assert scores.grad is not None and not bool(scores.grad[:, :, :2].any()) and bool(scores.grad[:, :, 2:].any())
    nothing = torch.full_like(true, IGNORED)
    assert float(cross_entropy(scores, nothing).detach()) == 0.0
    guesses = torch.randint(3, true.shape)
    assert torch.equal(confusion(guesses, true, 3), confusion(guesses[:, 2:], true[:, 2:], 3))


def test_intersection_over_union_of_an_example_by_hand():
    true = torch.tensor([[[0, 0, 1], [1, 1, IGNORED]]])
    said = torch.tensor([[[0, 1, 1], [1, 2, 2]]])
    counts = confusion(said, true, 4)
    assert counts.tolist() == [[[1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
    each = intersection_over_union(counts[0])
    assert each[:3].tolist() == [1 / 2, 2 / 4, 0.0] and math.isnan(float(each[3]))
    assert float(mean_iou(counts[0])) == pytest.approx(1 / 3) and float(pixel_accuracy(counts[0])) == 3 / 5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(2, 5), st.integers(0, 10_000))
def test_figures_against_counting_pixel_by_pixel(batch, classes, seed):
    source = torch.Generator().manual_seed(seed)
    true = torch.randint(classes + 1, (batch, 3, 4), generator=source)
    true[true == classes] = IGNORED
    true[0, 0, 0] = 0  # there is something to count
    said = torch.randint(classes, (batch, 3, 4), generator=source)
    counts = confusion(said, true, classes)
    pairs = [
        {(b, i, j): (int(said[b, i, j]), int(true[b, i, j])) for i in range(3) for j in range(4)} for b in range(batch)
    ]
    seen = [(p, t) for image in [image.items() for image in pairs] for _, (p, t) in image if t != IGNORED]
    scores = []
    for k in range(classes):
        union = sum(p == k or t == k for p, t in seen)
        if union:
            scores.append(sum(p == k and t == k for p, t in seen) / union)
    assert float(mean_iou(counts.sum(0))) == pytest.approx(sum(scores) / len(scores))
    assert float(pixel_accuracy(counts.sum(0))) == pytest.approx(sum(p == t for p, t in seen) / len(seen))
    assert int(counts.sum()) == len(seen)


def test_the_interval_of_equal_images_is_a_point_and_that_of_others_is_not():
    same = torch.tensor([[3, 1], [0, 4]]).expand(20, 2, 2)
    low, high = bootstrap(same, mean_iou)
    assert low == pytest.approx(high) == pytest.approx(float(mean_iou(same[0])))
    mixed = torch.stack([torch.tensor([[8, 0], [0, 8]])] * 10 + [torch.tensor([[0, 8], [8, 0]])] * 10)
    low, high = bootstrap(mixed, pixel_accuracy)
    # A binomial share of 20 with p = 1/2: 0.5 -+ 1.96 * 0.112
    assert low == pytest.approx(0.28, abs=0.06) and high == pytest.approx(0.72, abs=0.06)
    assert bootstrap(mixed, pixel_accuracy) == (low, high)


def test_the_class_of_an_image_is_its_largest_object():
    masks = torch.zeros(5, 2, 3, dtype=torch.uint8)
    masks[0, 0, 0], masks[1, 0] = 3, torch.tensor([2, 2, 1])
    masks[2, 0, :2] = torch.tensor([2, 1])
    masks[4] = IGNORED
    assert image_labels(masks, 4).tolist() == [3, 2, 1, 0, IGNORED]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_colour_table_learns_colours(channels):
    images = torch.zeros(2, channels, 4, 4, dtype=torch.uint8)
    images[:, :, :, 2:] = 200
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[:, :, 2:] = 1
    masks[:, 0, 2:], masks[1, 3] = 2, IGNORED  # two rows of bright pixels say 1, one says 2
    table = ColourTable(images, masks, 3)
    expected = torch.zeros(2, 4, 4, dtype=torch.int64)
    expected[:, :, 2:] = 1
    assert torch.equal(table.predict(images), expected)
    assert table.majority == 0 and not bool(table.predict(torch.full_like(images, 90)).any())


# Data


def test_scenes_are_the_same_for_ever_and_their_masks_exact():
    scenes, masks = render(30, (3, 24, 32), "train")
    again, fewer = render(130, (3, 24, 32), "train"), render(5, (3, 24, 32), "test")
    assert scenes.shape == (30, 3, 24, 32) and masks.shape == (30, 24, 32) and scenes.dtype == torch.uint8
    assert torch.equal(again[0][:30], scenes) and torch.equal(again[1][:30], masks)
    assert not torch.equal(fewer[1], masks[:5])
    assert set(again[1].unique().tolist()) == set(range(len(SHAPES) + 1))
    inside = [scenes[i].float().mean(0)[masks[i] > 0].mean() for i in range(30)]
    outside = [scenes[i].float().mean(0)[masks[i] == 0].mean() for i in range(30)]
    assert torch.stack(inside).mean() > torch.stack(outside).mean() + 30  # objects are brighter, on the whole
    assert len(image_labels(again[1], 6).unique()) == 5


def test_digits_lie_where_their_masks_say(data_root):
    config = SegmentDataConfig("mnist", (32, 40), 1, train_limit=12, test_limit=6)
    data = load_segmented(config, data_root=data_root)
    assert data.train.shape == (12, 1, 32, 40) and data.test_masks.shape == (6, 32, 40)
    assert all(1 <= len(mask.unique()) <= 3 for mask in data.train_masks)
    assert bool((data.train_masks > 0).flatten(1).any(1).all())


def test_a_batch_is_a_function_of_seed_and_step_and_masks_turn_with_images():
    config = SegmentDataConfig(size=(8, 8), batch_size=16, train_limit=16)
    data = load_segmented(config)
    x, masks, labels = segmented_batch(data, config, seed=3, step=5)
    again = segmented_batch(data, config, seed=3, step=5)
    assert all(torch.equal(a, b) for a, b in zip((x, masks, labels), again, strict=True))
    assert not torch.equal(x, segmented_batch(data, config, seed=3, step=6)[0])
    turned = 0
    for image, mask, label in zip((x * 255).round().to(torch.uint8), masks, labels, strict=True):
        for flip in (False, True):
            view = image.flip(2) if flip else image
            where = (data.train == view).flatten(1).all(1)
            if bool(where.any()):
                turned += flip
                same = data.train_masks[where][0].long()
                assert torch.equal(same, mask.flip(1) if flip else mask)
                assert int(image_labels(mask[None], 6)) == int(label)
                break
        else:
            raise AssertionError("an image of nowhere")
    assert 0 < turned < 16


def write_folder(folder: Path, count: int = 5, size: tuple[int, int] = (12, 16)) -> Path:
    """Pictures with a bright half, which is class 1, and a first row without a class."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    source = np.random.default_rng(0)
    for i in range(count):
        mask = np.zeros(size, np.uint8)
        mask[:, size[1] // 2 :] = 1
        mask[0] = 9
        pixels = (source.random((*size, 3)) * 90 + 150 * (mask == 1)[:, :, None]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    return folder


def test_a_folder_of_pictures_and_masks(tmp_path):
    folder = write_folder(tmp_path / "mine")
    config = SegmentDataConfig(f"folder:{folder}", (12, 16), 3, classes=2, ignore=9)
    data = load_segmented(config)
    assert data.train.shape == (4, 3, 12, 16) and data.test.shape == (1, 3, 12, 16)
    expected = torch.zeros(12, 16, dtype=torch.uint8)
    expected[:, 8:], expected[0] = 1, IGNORED
    assert all(torch.equal(mask, expected) for mask in (*data.train_masks, *data.test_masks))
    picture = np.asarray(Image.open(folder / "images" / "0.png"))
    assert torch.equal(data.train[0], torch.from_numpy(picture.copy()).permute(2, 0, 1))
    square = load_segmented(dataclasses.replace(config, size=(8, 8)))
    assert square.train.shape == (4, 3, 8, 8) and set(square.train_masks.unique().tolist()) == {0, 1, IGNORED}
    assert middle(torch.arange(6 * 9).view(6, 9), (4, 4)).shape == (6, 6)
    assert middle(torch.arange(6 * 9).view(6, 9), (1, 9)).shape == (1, 9)


def test_cityscapes_through_torchvision(tmp_path):
    """A folder in the layout of Cityscapes, read by torchvision's own class."""
    pytest.importorskip("torchvision")
    for split, names in (("train", ("a_0", "b_1")), ("val", ("c_0",))):
        for kind, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
            folder = tmp_path / "cityscapes" / kind / split / "town"
            folder.mkdir(parents=True)
            for name in names:
                pixels = np.zeros((16, 32, 3), np.uint8) if kind == "leftImg8bit" else np.zeros((16, 32), np.uint8)
                if kind == "gtFine":
                    pixels[8:], pixels[:8, :16] = 7, 26  # road, car; 0 is unlabelled
                Image.fromarray(pixels).save(folder / f"{name}_{suffix}.png")
    config = SegmentDataConfig("cityscapes", (16, 32), 3)
    data = load_segmented(config, data_root=tmp_path)
    assert len(data.train) == 2 and len(data.test) == 1 and len(config.names) == 19
    mask = data.test_masks[0]
    assert bool((mask[8:] == 0).all() and (mask[:8, :16] == 13).all() and (mask[:8, 16:] == IGNORED).all())
    assert config.names[0] == "road" and config.names[13] == "car" and image_labels(data.test_masks, 19).item() == 13
    datasets = importlib.import_module("torchvision.datasets")
    wanted = {c.train_id: c.name for c in datasets.Cityscapes.classes if 0 <= c.train_id < 255}
    assert tuple(wanted[i] for i in range(19)) == config.names


# Training


def test_a_killed_training_ends_in_the_same_weights(tmp_path):
    whole = configuration(output=str(tmp_path / "whole"))
    parted = dataclasses.replace(whole, output=str(tmp_path / "parted"))
    first = train(whole, report=quiet)
    train(parted, report=quiet)
    for path in [*Path(parted.output).glob("step-*4.safetensors"), Path(parted.output) / "weights.safetensors"]:
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


def no_mask(folder: Path) -> None:
    (folder / "masks" / "3.png").unlink()


def no_masks(folder: Path) -> None:
    (folder / "masks").rename(folder / "annotations")


def coloured_mask(folder: Path) -> None:
    Image.new("RGB", (16, 12)).save(folder / "masks" / "2.png")


def strange_class(folder: Path) -> None:
    Image.new("L", (16, 12), 37).save(folder / "masks" / "2.png")


def turned_mask(folder: Path) -> None:
    Image.new("L", (12, 16)).save(folder / "masks" / "2.png")


def broken_mask(folder: Path) -> None:
    (folder / "masks" / "2.png").write_bytes(b"\x89PNG and nothing more")


def empty_picture(folder: Path) -> None:
    (folder / "images" / "0.png").write_bytes(b"")


def unlabelled(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        Image.new("L", (16, 12), 9).save(path)


def single(folder: Path) -> None:
    for i in range(1, 5):
        (folder / "images" / f"{i}.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_mask, r"data.family: expected a mask for .*3\.png, got none of that name in"),
        (no_masks, r"data.family: expected a folder of pictures, got .*masks, which is not a folder"),
        (coloured_mask, r"expected a mask of whole numbers, .* with the colours RGB\. Save class numbers"),
        (strange_class, r"expected a mask of the classes 0 to 1, and 9 for none, got .*2\.png with 37\."),
        (turned_mask, r"expected a mask of the size of its picture, 16 x 12, got .*2\.png with 12 x 16\."),
        (broken_mask, r"data.family: .*2\.png is not an image that can be read"),
        (empty_picture, r"data.family: expected an image file, got .*0\.png, which is empty"),
        (
            unlabelled,
            r"data.family: expected masks in which some pixel has a class, got 4 training masks without any\.",
        ),
        (single, r"expected pictures for training and for testing, got 0 and 1 of 1\. Change data\.test_share"),
    ],
)
def test_a_folder_that_cannot_be_used_is_a_sentence(spoil, sentence, tmp_path):
    folder = write_folder(tmp_path / "mine")
    spoil(folder)
    with pytest.raises(InputError, match=sentence):
        load_segmented(SegmentDataConfig(f"folder:{folder}", (12, 16), 3, classes=2, ignore=9))


def test_cityscapes_that_is_not_there_is_a_sentence(tmp_path, monkeypatch):
    config = SegmentDataConfig("cityscapes", (16, 32))
    monkeypatch.delenv("JIIO_DATA", raising=False)
    real = importlib.import_module

    def without(name: str, package: str | None = None):
        if name.startswith("torchvision"):
            raise ImportError(name)
        return real(name, package)

    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", without)
        with pytest.raises(InputError, match=r"expected torchvision for Cityscapes, got no such package\. Install it"):
            load_segmented(config, data_root=tmp_path)
    pytest.importorskip("torchvision")
    with pytest.raises(InputError, match=r"got no --data-root and no JIIO_DATA\. Fetch both from cityscapes-dataset"):
        load_segmented(config)
    with pytest.raises(InputError, match=r"cityscapes/gtFine, got no such folders in .*cityscapes\. Fetch"):
        load_segmented(config, data_root=tmp_path)
    for name in ("leftImg8bit", "gtFine"):
        (tmp_path / "cityscapes" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=r"data\.family: torchvision cannot use"):
        load_segmented(config, data_root=tmp_path)


def test_digits_that_are_not_there_are_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no .*MNIST.*or use the scenes, which are rendered\."):
        load_segmented(SegmentDataConfig("mnist"), data_root=tmp_path)


def test_figures_of_masks_that_do_not_fit_are_a_sentence():
    with pytest.raises(JiioError, match=r"predicted: expected masks \(B, H, W\) like the true ones"):
        confusion(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3), 2)
