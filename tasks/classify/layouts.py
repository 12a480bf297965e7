"""Labelled images as people have them on disk: a folder for each class, one npz file, a data set of torchvision.

Folders are read by Pillow and not by torchvision's ImageFolder: that needs no extra, and the limits on what a file may
unfold to, turned cameras and 16 bits hold here as well. Classes are numbered as ImageFolder does.
"""

from __future__ import annotations

import importlib
import itertools
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, check_file, decoding, read_image, reason
from jiio.tasks.frame.load import nearest
from jiio.tasks.frame.terminal import say
from jiio.tasks.images.batches import resized

from .options import ImageOptions

ENDS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
KEYS = (("images", "labels"), ("x", "y"), ("x_test", "y_test"))  # the last as Keras has them
MOST = 1 << 36  # bytes


class Pictures(NamedTuple):
    """Images (N, C, H, W), or vectors (N, n), with labels (N,) int64; the rest of a data set may lie on the disk."""

    images: Tensor
    labels: Tensor


def read(options: ImageOptions) -> Pictures:
    """What ``--data`` names, at most as many as are wanted.

    Errors: InputError.
    """
    kind, colon, rest = (options.data or "").partition(":")
    if not colon or kind not in READERS or not rest:
        remedy = "" if colon else "A folder of images is folder:PATH."
        fail("--data", "folder:PATH, npz:FILE or torchvision:NAME", repr(options.data), remedy, InputError)
    found = READERS[kind](rest, options)

    if not len(found.images):
        fail("--data", "at least one image", f"{options.data} without any", error=InputError)
    if found.images.is_floating_point() and not bool(torch.isfinite(found.images).all()):
        fail("--data", "finite values", f"NaN or infinity in {options.data}", error=InputError)
    return found


# -- folder:PATH


def from_folder(word: str, options: ImageOptions) -> Pictures:
    """PATH/CLASS/IMAGE; classes in the order of their names, and one image of each in turn."""
    folder = Path(word)
    if not folder.is_dir():
        fail("--data", "a folder with a folder for each class", f"{folder}, which is none", error=InputError)
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if len(classes) < 2:
        came = f"{folder} with {len(classes)}"
        fail("--data", "a folder with a folder for each of two classes or more", came, error=InputError)
    say("Classes: " + ", ".join(f"{i} = {name}" for i, name in enumerate(classes)) + ".")

    # In turn, so that any first part of them has all classes.
    columns = [[(path, label) for path in files_in(folder / name)] for label, name in enumerate(classes)]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*columns))
    chosen = [pair for pair in turns if pair is not None][: options.limit]
    if not chosen:
        fail("--data", f"images ({', '.join(ENDS)})", f"{folder} without any", error=InputError)

    channels = options.channels or (1 if all(is_grey(path) for path, _ in chosen) else 3)
    images = [torch.from_numpy(read_image("--data", path, channels=channels)).permute(2, 0, 1) for path, _ in chosen]
    whole = stacked(images, [path for path, _ in chosen], options)
    return Pictures(within(whole, options), torch.tensor([y for _, y in chosen]))


def files_in(folder: Path) -> list[Path]:
    """The images in a folder and below it, in the order of their names."""
    found = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() in ENDS)


def is_grey(path: Path) -> bool:
    """Whether the header of an image says that it has one channel."""
    from PIL import Image

    with decoding("--data", path), Image.open(path) as image:
        return image.mode in ("1", "L", "I", "I;16", "F")


def stacked(images: list[Tensor], paths: list[Path], options: ImageOptions) -> Tensor:
    """(N, C, H, W) of one size."""
    if options.size is not None:
        return torch.cat([resized(image[None], options.size, image.shape[0]) for image in images])
    other = next((i for i, image in enumerate(images) if image.shape != images[0].shape), None)
    if other is not None:
        (_, a, b), (_, c, d) = images[0].shape, images[other].shape
        came = f"{paths[0].name} of {a} x {b} and {paths[other].name} of {c} x {d}"
        fail("--data", "images of one size", came, "Pass --size N to bring them to N x N.", InputError)
    return torch.stack(images)


def within(images: Tensor, options: ImageOptions) -> Tensor:
    """Pictures in [0, 1] as the model wants them: their black is the lower bound, their white the higher one."""
    if options.box is None:
        return images
    low, high = options.box
    return images * (high - low) + low


# -- npz:FILE


def from_npz(word: str, options: ImageOptions) -> Pictures:
    """Images and labels by name: 8-bit values are brought to [0, 1] unless --bounds says what they are."""
    path = check_file("--data", Path(word), "an .npz file", MOST)
    if not zipfile.is_zipfile(path):  # numpy would leave the file open
        came = f"{path}, which is none or is cut off"
        fail("--data", "an .npz file of plain arrays", came, "numpy.savez writes one.", InputError)
    try:
        with np.load(path, allow_pickle=False) as file:
            pair = next((names for names in KEYS if set(names) <= set(file.files)), None)
            if pair is None:
                wanted = " or ".join(f"{a!r} and {b!r}" for a, b in KEYS)
                fail("--data", f"the arrays {wanted}", f"{', '.join(file.files) or 'none'} in {path}", error=InputError)
            images, labels = (file[name] for name in pair)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged archive does to a reader
        fail(
            "--data",
            "an .npz file of plain arrays",
            f"{path}, which cannot be read ({reason(error)})",
            error=InputError,
        )

    truth = as_labels(labels, path)
    check_images(images, path)
    if len(images) != len(truth):
        fail(
            "--data", "one label per image", f"{len(images)} images and {len(truth)} labels in {path}", error=InputError
        )
    return Pictures(as_images(images[: options.limit], path, options), truth[: options.limit])


def as_labels(labels: Any, path: Path) -> Tensor:
    """(N,) int64."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = flat.dtype.kind in "iu" or (flat.dtype.kind == "f" and bool((flat == np.floor(flat)).all()))
    if flat.ndim != 1 or not whole:
        came = f"{labels.dtype} of shape {labels.shape} in {path}"
        remedy = "Of one-hot rows take labels.argmax(1)." if labels.ndim == 2 else ""
        fail("--data", "labels (N,) that are whole numbers", came, remedy, InputError)
    return torch.from_numpy(flat.astype(np.int64))


def check_images(images: Any, path: Path) -> None:
    """Raise unless this is an array of images."""
    if images.dtype.kind not in "iuf" or images.ndim not in (2, 3, 4):
        came = f"{images.dtype} of shape {images.shape} in {path}"
        fail("--data", "images (N, H, W, C), (N, C, H, W), (N, H, W), or vectors (N, n)", came, error=InputError)


def as_images(images: Any, path: Path, options: ImageOptions) -> Tensor:
    """(N, C, H, W) or (N, n) in float32; what was taken for what is said."""
    told = [f"{images.dtype} {images.shape}"]
    if images.ndim == 3:
        images = images[:, None]
        told.append("one channel")
    elif images.ndim == 4 and channels_last(images):
        images = images.transpose(0, 3, 1, 2)
        told.append("channels last")

    if images.dtype == np.uint8 and options.box is None:
        told.append("brought from 0 ... 255 to 0 ... 1")
        images = images / np.float32(255)
    say(f"{path}: {', '.join(told)}.")
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def channels_last(images: Any) -> bool:
    """Of arrays that fit both ways, 8-bit ones are taken as pictures are stored, others as networks want them."""
    last, first = images.shape[3] in (1, 3, 4), images.shape[1] in (1, 3, 4)
    return last and (not first or images.dtype == np.uint8)


# -- torchvision:NAME


def from_torchvision(name: str, options: ImageOptions) -> Pictures:
    """The test images of a data set of torchvision that lies under --data-root; nothing is fetched."""
    try:
        datasets: Any = importlib.import_module("torchvision.datasets")
    except ImportError:
        remedy = 'Install the extra: pip install "jiio[vision]".'
        fail("--data", "the package torchvision for torchvision:", "no such package", remedy, InputError)
    known = [word for word in datasets.__all__ if isinstance(getattr(datasets, word), type)]
    if name not in known:
        fail("--data", "a data set of torchvision", repr(name), nearest(name, known), InputError)
    place = options.data_root or os.environ.get("JIIO_DATA")
    if not place:
        fail("--data-root", f"the folder that holds {name}", "none", "Pass it, or set JIIO_DATA.", InputError)

    found = opened(getattr(datasets, name), name, str(place))
    count = len(found) if options.limit is None else min(options.limit, len(found))
    pairs = [found[i] for i in range(count)]
    arrays = [np.asarray(picture) for picture, _ in pairs]
    images = [torch.from_numpy(a.reshape(*a.shape[:2], -1).astype(np.float32) / 255).permute(2, 0, 1) for a in arrays]
    whole = stacked(images, [Path(f"number {i}") for i in range(count)], options)
    return Pictures(within(whole, options), torch.tensor([int(y) for _, y in pairs]))


def opened(kind: Callable[..., Any], name: str, root: str) -> Any:
    """The test part, by whichever of the two words its class has for that."""
    problem: Exception | None = None
    for words in ({"train": False}, {"split": "test"}, {"split": "val"}):
        try:
            return kind(root, **words)
        except TypeError:
            continue
        except Exception as error:  # missing or damaged files, each class in its own way
            problem = problem or error
    came = f"{root} ({reason(problem) if problem else 'its class has no test part'})"
    remedy = f"Fetch it once: torchvision.datasets.{name}({root!r}, download=True)."
    fail("--data", f"a folder that holds {name} as torchvision lays it out", came, remedy, InputError)


READERS: dict[str, Callable[[str, ImageOptions], Pictures]] = {
    "folder": from_folder,
    "npz": from_npz,
    "torchvision": from_torchvision,
}
