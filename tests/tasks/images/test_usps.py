"""The USPS digits: what the files say, and files that say something else."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from jiio.tasks.frame.files import InputError
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images
from jiio.tasks.images.usps import read_zipcodes

LINE = "7.0000 " + " ".join(["-1.0"] * 255 + ["0.5"])


def written(folder: Path, data: bytes) -> Path:
    path = folder / "zip.train.gz"
    path.write_bytes(data)
    return path


def test_ink_is_one_and_paper_zero(tmp_path: Path) -> None:
    x, y = read_zipcodes(written(tmp_path, gzip.compress(f"{LINE}\n{LINE}\n".encode())))
    assert x.shape == (2, 1, 16, 16) and y.tolist() == [7, 7] and x.dtype == torch.float32
    assert float(x[0, 0, 15, 15]) == 0.75 and float(x.flatten(1)[:, :-1].abs().max()) == 0.0


def test_the_family_reads_both_files(tmp_path: Path) -> None:
    (tmp_path / "usps").mkdir()
    for part, count in (("train", 3), ("test", 2)):
        (tmp_path / "usps" / f"zip.{part}.gz").write_bytes(gzip.compress(f"{LINE}\n".encode() * count))
    found = load_images(DataConfig(family="usps", size=16), data_root=tmp_path)
    assert len(found.train) == 3 and len(found.test) == 2
    assert found.train_labels is not None and found.train_labels.tolist() == [7] * 3


BAD = {
    "no gzip": b"7 -1 -1",
    "cut short": gzip.compress(LINE.encode() * 100)[:-20],
    "damaged": gzip.compress(LINE.encode())[:30] + b"????" + gzip.compress(LINE.encode())[34:],
    "no lines": gzip.compress(b""),
    "words": gzip.compress(b"seven of hearts"),
    "no text": gzip.compress(bytes(range(256))),
    "a number too few": gzip.compress(LINE.rpartition(" ")[0].encode()),
    "lines of different lengths": gzip.compress(f"{LINE}\n{LINE} 0.1".encode()),
    "a label of ten": gzip.compress(f"10{LINE[1:]}".encode()),
    "a label of a half": gzip.compress(f"7.5{LINE[6:]}".encode()),
    "a pixel of two": gzip.compress(LINE.replace("0.5", "2.0").encode()),
    "a pixel that is NaN": gzip.compress(LINE.replace("0.5", "nan").encode()),
}


@pytest.mark.filterwarnings("ignore:loadtxt")
@pytest.mark.parametrize("case", BAD)
def test_other_files_are_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"zip\.train\.gz is not a USPS file") as caught:
        read_zipcodes(written(tmp_path, BAD[case]))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read_zipcodes(tmp_path / "nowhere.gz")
