"""Pictures with masks on disk: a folder of one's own, or Cityscapes (Cordts et al., CVPR 2016) through torchvision."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    InputError,
    check_file,
    check_pixels,
    decoding,
    read_image,
)
from jiio.tasks.images.sources import image_files

IGNORED = 255  # in every mask in memory: no class
CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
Pair = tuple[Path, Path]


def folder_pairs(folder: Path) -> list[Pair]:
    """images/NAME.* with masks/NAME.*, in the order of their names.

    Errors: InputError where a folder or a mask is missing.
    """
    masks: dict[str, Path] = {}
    for path in image_files("data.family", folder / "masks"):
        masks[path.stem] = path
    images = image_files("data.family", folder / "images")
    for path in images:
        if path.stem not in masks:
            fail("data.family", f"a mask for {path}", f"none of that name in {folder / 'masks'}", error=InputError)
    return [(path, masks[path.stem]) for path in images]


def cityscapes_pairs(data_root: Path | None) -> tuple[list[Pair], list[Pair], dict[int, int]]:
    """Pictures and masks of its training and validation sets, and the training class of each of its labels; labels
    that it leaves out of the evaluation have none.

    Errors: InputError where torchvision or the data are missing.
    """
    try:
        torchvision: Any = importlib.import_module("torchvision.datasets")
    except ImportError:
        remedy = "Install it: pip install torchvision; or use the scenes, which are rendered."
        fail("data.family", "torchvision for Cityscapes", "no such package", remedy, InputError)

    root = _cityscapes_root(data_root)
    train, test = (_cityscapes_split(torchvision, root, split) for split in ("train", "val"))
    # What the benchmark leaves out of its evaluation has -1 or 255 as its training class.
    classes = {c.id: c.train_id for c in torchvision.Cityscapes.classes if 0 <= c.train_id < len(CITYSCAPES)}
    return train, test, classes


def _cityscapes_root(data_root: Path | None) -> Path:
    """The folder of the data set, with its pictures and masks unpacked."""
    named = data_root or (Path(os.environ["JIIO_DATA"]) if os.environ.get("JIIO_DATA") else None)
    root = None if named is None else named / "cityscapes"
    if root is None or not all((root / part).is_dir() for part in ("leftImg8bit", "gtFine")):
        came = "no --data-root and no JIIO_DATA" if root is None else f"no such folders in {root}"
        remedy = "Fetch both from cityscapes-dataset.com, or use the scenes, which are rendered."
        fail("data.family", "cityscapes/leftImg8bit and cityscapes/gtFine", came, remedy, InputError)
    return root


def _cityscapes_split(torchvision: Any, root: Path, split: str) -> list[Pair]:
    """The pairs of one of its sets."""
    try:
        found = torchvision.Cityscapes(str(root), split=split, mode="fine", target_type="semantic")
    except (RuntimeError, OSError) as error:
        words = " ".join(str(error).split())[:160]
        raise InputError(f"data.family: torchvision cannot use {root} ({words}).") from error
    return [(Path(image), Path(mask[0])) for image, mask in zip(found.images, found.targets, strict=True)]


def read_pairs(
    pairs: Sequence[Pair], shape: tuple[int, int, int], classes: Mapping[int, int], *, ignored: int | None
) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, H, W) and masks (N, H, W), both uint8, cut in the middle to the wanted proportions and resized:
    pictures smoothly, masks to the nearest pixel.

    classes: number in the mask -> class. ignored: the number without a class; None: every other one.

    Errors: InputError where a file is damaged or a mask has other numbers.
    """
    from tqdm import tqdm

    pictures, masks = [], []
    for picture, mask in tqdm(pairs, desc="reading", disable=None if len(pairs) > 50 else True):
        x = torch.from_numpy(read_image("data.family", picture, channels=shape[0])).permute(2, 0, 1)
        y = torch.from_numpy(read_mask(mask, classes, ignored))
        _check_sizes(mask, x, y)

        # First cut, then resized, so that nothing is stretched. No pixel of a mask may get a class between two others.
        x, y = (middle(part, shape[1:]) for part in (x, y))
        x = F.interpolate(x[None], size=shape[1:], mode="bicubic", antialias=True).clamp(0.0, 1.0)
        y = F.interpolate(y[None, None], size=shape[1:], mode="nearest-exact")
        pictures.append((x * 255).round().to(torch.uint8))
        masks.append(y[0])
    return torch.cat(pictures), torch.cat(masks)


def _check_sizes(mask: Path, x: Tensor, y: Tensor) -> None:
    """A mask (H, W) has a class for every pixel of its picture (C, H, W)."""
    if x.shape[1:] != y.shape:
        came = f"{mask} with {y.shape[1]} x {y.shape[0]}"
        size = f"{x.shape[2]} x {x.shape[1]}"
        fail("data.family", f"a mask of the size of its picture, {size}", came, error=InputError)


def read_mask(path: Path, classes: Mapping[int, int], ignored: int | None) -> np.ndarray:
    """(H, W) uint8: the class of every pixel, :data:`IGNORED` where it has none."""
    from PIL import Image

    check_file("data.family", path, "a mask", MAX_IMAGE_BYTES)
    with decoding("data.family", path), Image.open(path) as image:
        check_pixels("data.family", path, image.width, image.height, MAX_IMAGE_PIXELS)
        if image.mode not in ("1", "L", "P"):
            came, remedy = f"{path} with the colours {image.mode}", "Save class numbers, not colours."
            fail("data.family", "a mask of whole numbers, one per pixel (grey or palette)", came, remedy, InputError)
        numbers = np.asarray(image).astype(np.uint8)

    # number in the file -> class, for all 256 numbers
    table = np.full(256, IGNORED, np.uint8)
    table[list(classes)] = list(classes.values())
    found = set(np.unique(numbers).tolist())
    strange = found - set(classes) - {ignored}
    if ignored is not None and strange:
        expected = f"a mask of the classes 0 to {len(classes) - 1}, and {ignored} for none"
        fail("data.family", expected, f"{path} with {min(strange)}", "Set data.classes or data.ignore.", InputError)
    return table[numbers]


def middle(part: Tensor, size: Sequence[int]) -> Tensor:
    """The largest middle piece of (..., h, w) with the proportions of ``size`` (H, W)."""
    height, width = part.shape[-2:]
    tall = min(height, max(1, round(width * size[0] / size[1])))
    wide = min(width, max(1, round(height * size[1] / size[0])))
    top, left = (height - tall) // 2, (width - wide) // 2
    return part[..., top : top + tall, left : left + wide]
