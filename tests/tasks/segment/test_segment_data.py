"""Scenes and masks from disk, and the losses and figures counted on them; what cannot be used is a sentence."""

from __future__ import annotations

import dataclasses
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from jiio.checks import JiioError
from jiio.tasks.frame.files import InputError
from jiio.tasks.segment.data import SegmentDataConfig, image_labels, load_segmented, segmented_batch
from jiio.tasks.segment.folders import IGNORED, middle
from jiio.tasks.segment.metrics import (
    ColourTable,
    bootstrap,
    confusion,
    intersection_over_union,
    mean_iou,
    pixel_accuracy,
)
from jiio.tasks.segment.scenes import SHAPES, render
from jiio.tasks.segment.task import cross_entropy
from segment_cases import write_folder

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
