"""CIFAR-10 in binary, and a folder for each class, as the sets are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jiio.tasks.classify.data import ClassifyDataConfig, in_batches, labelled_batch, load_labelled
from jiio.tasks.frame.files import InputError

CIFAR = ClassifyDataConfig("cifar10-full", 32, 3, batch_size=4)
FOLDERS = ClassifyDataConfig("imagenet", 16, 3, batch_size=4)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Record i of file k: label i, red k, green i, blue 200."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for k, name in enumerate((*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")):
        planes = [bytes([i]) + bytes([k]) * 1024 + bytes([i]) * 1024 + bytes([200]) * 1024 for i in range(10)]
        (folder / f"{name}.bin").write_bytes(b"".join(planes))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Class b is red, class a is blue; four pictures to train on, two to test."""
    root = tmp_path / "imagenet"
    for part, count in (("train", 4), ("val", 2)):
        for name, colour in (("b", (255, 0, 0)), ("a", (0, 0, 255))):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (24, 20), colour).save(root / part / name / f"{i}.png")
    return root


def test_cifar_in_binary(cifar: Path) -> None:
    data = load_labelled(CIFAR, data_root=cifar.parent)
    assert data.train.shape == (50, 3, 32, 32) and data.test.shape == (10, 3, 32, 32)
    assert data.train_labels.tolist() == list(range(10)) * 5
    assert torch.allclose(data.train[23, :, 5, 7] * 255, torch.tensor([2.0, 3.0, 200.0]))
    assert torch.allclose(data.test[4, :, 0, 31] * 255, torch.tensor([5.0, 4.0, 200.0]))


def test_folders_are_read_when_they_are_needed(folders: Path) -> None:
    data = load_labelled(FOLDERS, data_root=folders.parent)
    assert not isinstance(data.train, torch.Tensor) and len(data.train) == 8 and len(data.test) == 4
    x, y = labelled_batch(data, FOLDERS, seed=0, step=0)
    assert x.shape == (4, 3, 16, 16)
    assert all(bool((image[2 if label == 0 else 0] > 0.99).all()) for image, label in zip(x, y, strict=True))
    parts = in_batches(data, 3, torch.device("cpu"))
    for images, labels in parts:
        assert all(
            bool((image[2 - 2 * label] > 0.99).all()) for image, label in zip(images, labels.tolist(), strict=True)
        )
    assert [len(a) for a, _ in parts] == [3, 1] and torch.cat([b for _, b in parts]).tolist() == [0, 0, 1, 1]


def test_a_limit_takes_from_every_class(folders: Path) -> None:
    config = ClassifyDataConfig("imagenet", 16, 3, train_limit=4, test_limit=2)
    data = load_labelled(config, data_root=folders.parent)
    assert data.train_labels.tolist() == [0, 0, 1, 1] and data.test_labels.tolist() == [0, 1]


def test_a_share_stays_on_the_disk(folders: Path) -> None:
    data = load_labelled(FOLDERS, data_root=folders.parent).part(torch.tensor([1, 6]))
    assert len(data.train) == 2 and data.train_labels.tolist() == [0, 1] and not isinstance(data.train, torch.Tensor)


BROKEN_CIFAR = {
    "missing": (lambda f: (f / "data_batch_3.bin").unlink(), "data_batch_3.bin"),
    "empty": (lambda f: (f / "data_batch_3.bin").write_bytes(b""), "which is empty"),
    "cut": (lambda f: (f / "test_batch.bin").write_bytes(bytes(5000)), "with 5000 bytes"),
    "label": (lambda f: (f / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072)), "labels from 0 to 9"),
    "folder": (lambda f: f.rename(f.with_name("elsewhere")), "the six files of CIFAR-10 in binary"),
}
BROKEN_FOLDERS = {
    "no val": (lambda f: (f / "val").rename(f / "test"), "a folder val with a folder for each class"),
    "one class": (lambda f: (f / "train" / "a").rename(f / "other"), "at least 2 and at most 1000 folders"),
    "class without pictures": (lambda f: (f / "train" / "c").mkdir(), "a folder with pictures"),
    "class without tests": (lambda f: (f / "val" / "b").rename(f / "b"), "val/b"),
    "no root": (lambda f: f.rename(f.with_name("elsewhere")), "ImageNet's folders"),
    "many": (lambda f: [(f / "train" / f"n{i}").mkdir() for i in range(1000)], "1002 in"),
}


@pytest.mark.parametrize("name", BROKEN_CIFAR)
def test_broken_cifar_is_one_sentence(name: str, cifar: Path) -> None:
    change, words = BROKEN_CIFAR[name]
    change(cifar)
    with pytest.raises(InputError) as error:
        load_labelled(CIFAR, data_root=cifar.parent)
    assert words in str(error.value)


@pytest.mark.parametrize("name", BROKEN_FOLDERS)
def test_broken_folders_are_one_sentence(name: str, folders: Path) -> None:
    change, words = BROKEN_FOLDERS[name]
    change(folders)
    with pytest.raises(InputError) as error:
        load_labelled(FOLDERS, data_root=folders.parent)
    assert words in str(error.value)


def test_a_picture_that_is_none_is_told(folders: Path) -> None:
    (folders / "train" / "a" / "0.png").write_bytes(np.zeros(9, np.uint8).tobytes())
    data = load_labelled(FOLDERS, data_root=folders.parent)
    with pytest.raises(InputError, match=r"0\.png"):
        data.train[torch.tensor([0])]
