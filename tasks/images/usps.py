"""The USPS digits, in the two text files of "The elements of statistical learning"."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import torch
from torch import Tensor

from jiio.tasks.frame.files import InputError, read_bytes, reason

from .config import DataConfig
from .sources import AbstractFamily, Raw, find_data

SIDE = 16
LIMIT = 64 << 20  # bytes of a file


class Usps(AbstractFamily):
    """Handwritten digits of envelopes, 16 x 16; 7,291 for training and 2,007 for testing."""

    labelled = True

    def load(self, config: DataConfig, data_root: Path | None) -> Raw:
        folder = find_data(data_root, "usps", "the USPS files zip.train.gz and zip.test.gz")
        (train, train_labels), (test, test_labels) = (read_zipcodes(folder / f"zip.{part}.gz") for part in PARTS)
        return Raw(train, test, train_labels, test_labels)


PARTS = ("train", "test")


def read_zipcodes(path: Path) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 16, 16) in [0, 1], ink 1, and labels (N,), of lines with a digit and 256 numbers in [-1, 1].

    Errors: InputError where the file is missing or holds something else.
    """
    import numpy as np

    what = "a USPS file: lines of a digit and 256 numbers from -1 to 1"
    data = read_bytes("data.family", path, what, LIMIT)
    try:
        text = gzip.decompress(data).decode("ascii")
        rows = torch.from_numpy(np.loadtxt(io.StringIO(text), ndmin=2))
        labels, pixels = rows[:, 0], rows[:, 1:]
        known = (labels >= 0) & (labels <= 9) & (labels == labels.round())
        good = pixels.shape[1] == SIDE**2 and bool(known.all() & (pixels.abs() <= 1).all())
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise InputError(f"data.family: {path} is not {what} ({reason(error)}). Fetch it again.") from error
    if not good:
        raise InputError(f"data.family: {path} is not {what}. Fetch it again.")
    return (0.5 + 0.5 * pixels).float().view(-1, 1, SIDE, SIDE), labels.long()
