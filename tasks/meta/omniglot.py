"""Omniglot (Lake, Salakhutdinov, Tenenbaum 2015): 1623 characters of 50 alphabets, 20 drawings of each."""

from __future__ import annotations

import functools
import importlib
import os
import zipfile
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.tasks.frame.files import InputError, reason
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.sources import AbstractFamily, Raw, find_data


class Omniglot(AbstractFamily):
    """Its own split: the 30 alphabets of the background set to train on, the other 20 to test on."""

    labelled = apart = True

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        (train, train_labels), (test, test_labels) = (
            read_omniglot(part, data_root) for part in ("background", "evaluation")
        )
        return Raw(train, test, train_labels, test_labels)


@functools.lru_cache(maxsize=2)
def read_omniglot(part: str, data_root: Path | None) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) with ink 1, and labels (N,): packed under the data root, else by torchvision."""
    import numpy as np

    named = data_root or (Path(os.environ["JIIO_DATA"]) if os.environ.get("JIIO_DATA") else None)
    packed = None if named is None else named / "omniglot" / f"images_{part}.npz"
    if packed is None or not packed.exists():
        return fetch_omniglot(part, data_root)
    try:
        with packed.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            bits, labels = file["bits"], torch.from_numpy(file["label"].astype(np.int64))
        ink = torch.from_numpy(np.unpackbits(bits, axis=1, count=105 * 105)).view(-1, 1, 105, 105)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"data.family: {packed} is not a whole Omniglot file ({reason(error)}).") from error
    return shrunk(ink), labels


def fetch_omniglot(part: str, data_root: Path | None) -> tuple[Tensor, Tensor]:
    """As torchvision keeps it, fetched where it is not there yet."""
    folder = find_data(data_root, "", "the Omniglot images (torchvision fetches them into this folder)")
    try:
        # By name: the extra may be missing where types are checked.
        sets, functional = (importlib.import_module(f"torchvision.{n}") for n in ("datasets", "transforms.functional"))
    except ImportError as error:
        words = "data.family: Omniglot is not in the data folder, and torchvision, which could fetch it, is missing."
        raise InputError(f"{words} Install jiio[vision], or use the glyphs, which need nothing.") from error

    # What torchvision raises without a network, or over a broken archive, becomes one sentence.
    try:
        found = sets.Omniglot(str(folder), background=part == "background", download=True)
        pairs = [(255 - functional.pil_to_tensor(image), label) for image, label in found]
    except (OSError, RuntimeError) as error:
        words = f"data.family: torchvision could not fetch Omniglot into {folder} ({reason(error)})."
        raise InputError(f"{words} Fetch it where there is a network, or use the glyphs, which need none.") from error

    ink = torch.stack([image for image, _ in pairs]) > 127
    return shrunk(ink), torch.tensor([label for _, label in pairs])


def shrunk(ink: Tensor) -> Tensor:
    """(N, 1, 105, 105) of 0 and 1 -> (N, 1, 28, 28) in [0, 1], each pixel the mean over its area."""
    parts = [F.adaptive_avg_pool2d(part.float(), 28) for part in ink.split(2000)]
    return (1.5 * torch.cat(parts)).clamp_max(1.0)  # thin strokes: an area is never full of ink
