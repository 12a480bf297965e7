"""Pictures of their own size, by the name of a set: what a restorer is measured on, and what baselines are tuned on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.tasks.frame.files import InputError, read_image
from jiio.tasks.frame.load import nearest

from .config import FOLDER, DataConfig
from .families import load_images
from .galleries import load_pictures
from .sources import find_data, image_files

TUNING_COUNT, TUNING_SIDE = 8, 180  # as many pictures, no larger than this: tuning costs less than the measurement


@dataclass(frozen=True)
class PictureSet:
    """A known set. folder: under the data root. channels: that its pictures have. tuning: the gallery to tune on."""

    folder: str
    channels: int
    tuning: str


SETS = {
    "set12": PictureSet("denoising/Set12", 1, "train400"),
    "bsd68": PictureSet("denoising/BSD68", 1, "train400"),
    "cbsd68": PictureSet("denoising/CBSD68", 3, "photos"),
}
NAMES = (*SETS, "faces", f"{FOLDER}PATH")


def load_set(
    argument: str, name: str, *, channels: int, limit: int | None = None, data_root: Path | None = None
) -> dict[str, Tensor]:
    """The pictures of a set as float32 (1, C, H, W) in [0, 1], by file name, in the order of the names.

    argument: what the user calls it, for messages. name: one of NAMES. channels: 1 or 3; of a folder all pictures
    become grey or colour, a known set has what it has. limit: only the first so many.

    Errors: InputError where the set is unknown, missing, damaged, or has other channels.
    """
    if name == "faces":
        check_channels(argument, name, 1, channels)
        faces = load_images(DataConfig(family="faces")).test[:limit]
        return {f"face-{i:02d}": face[None] for i, face in enumerate(faces)}

    # Everything else is a folder: one's own, or a place under the data root.
    if name.startswith(FOLDER):
        folder = Path(name.removeprefix(FOLDER))
    elif name in SETS:
        check_channels(argument, name, SETS[name].channels, channels)
        folder = find_data(data_root, SETS[name].folder, f"the pictures of {name}", argument=argument)
    else:
        fail(argument, "a set of pictures", repr(name), nearest(name, NAMES), InputError)

    paths = image_files(argument, folder)[:limit]
    return {path.name: as_batch(torch.from_numpy(read_image(argument, path, channels=channels))) for path in paths}


def check_channels(argument: str, name: str, has: int, wanted: int) -> None:
    """A restorer of grey pictures is measured on grey ones, and one of colours on colours."""
    if has != wanted:
        words = {1: "grey", 3: "colour"}
        fail(argument, f"a set of {words[wanted]} pictures, which the weights are for", f"{name}", error=InputError)


def as_batch(pixels: Tensor) -> Tensor:
    """(H, W, C) as (1, C, H, W)."""
    return pixels.permute(2, 0, 1)[None].contiguous()


def tuning_pictures(name: str, *, channels: int, data_root: Path | None = None) -> list[Tensor]:
    """The pictures (1, C, H, W) on which baselines are tuned before they are measured on a set; others than the set's.

    At most TUNING_COUNT, evenly through a gallery, of each the middle TUNING_SIDE pixels: Train400 for the grey sets,
    the training part of the faces, and photographs of scikit-image for colours and folders.
    """
    if name == "faces":
        return list(load_images(DataConfig(family="faces")).train[:TUNING_COUNT].split(1))
    gallery = SETS[name].tuning if name in SETS else "photos"
    pictures = load_pictures(gallery, channels, data_root=data_root)
    chosen = pictures[:: max(1, len(pictures) // TUNING_COUNT)][:TUNING_COUNT]
    return [middle(picture)[None].float() / 255.0 for picture in chosen]


def middle(picture: Tensor) -> Tensor:
    """The middle of a picture (C, H, W), at most TUNING_SIDE high and wide."""
    top, left = (max(n - TUNING_SIDE, 0) // 2 for n in picture.shape[1:])
    return picture[:, top : top + TUNING_SIDE, left : left + TUNING_SIDE]
