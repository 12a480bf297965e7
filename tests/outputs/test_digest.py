"""The checksum of a file sees every bit, and the order of tensors is not in it."""

from __future__ import annotations

import pytest
import torch

from jiio.outputs.digest import checksum, fingerprint

BASE = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(3),
    "c": torch.tensor([True, False]),
    "d": torch.ones(0),
}


def test_every_bit_of_every_number_counts():
    before = {checksum(BASE, "words")}
    for name, tensor in BASE.items():
        raw = tensor.reshape(-1).view(torch.uint8)
        for i in range(len(raw) if tensor.dtype != torch.bool else 0):
            for bit in range(8):
                spoilt = raw.clone()
                spoilt[i] ^= 1 << bit
                before.add(checksum({**BASE, name: spoilt.view(tensor.dtype).reshape(tensor.shape)}, "words"))
    assert len(before) == 1 + 8 * (6 * 4 + 8)


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "a": BASE["a"].reshape(3, 2)},
        {**BASE, "a": BASE["a"].view(torch.int32)},
        {**BASE, "c": ~BASE["c"]},
        {**BASE, "d": torch.ones(0, 2)},
        {("e" if name == "a" else name): tensor for name, tensor in BASE.items()},
        {name: tensor for name, tensor in BASE.items() if name != "d"},
        {**BASE, "a": BASE["a"].double()},
    ],
)
def test_shapes_dtypes_names_and_gaps_count(other):
    assert checksum(other, "words") != checksum(BASE, "words")


def test_the_text_counts_and_the_order_and_the_layout_do_not():
    assert checksum(BASE, "word") != checksum(BASE, "words")
    assert checksum(dict(reversed(BASE.items())), "words") == checksum(BASE, "words")
    assert checksum({**BASE, "a": BASE["a"].t().contiguous().t()}, "words") == checksum(BASE, "words")


def test_fingerprints_stay_as_they_are_because_files_hold_them():
    assert fingerprint(BASE["a"], BASE["b"]) == "84f22a9c366b1aa7"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.float8_e5m2])
def test_any_dtype(dtype):
    a, b = torch.ones(3).to(dtype), torch.tensor([1.0, 1.0, 0.5]).to(dtype)
    assert checksum({"a": a}, "") == checksum({"a": a.clone()}, "") != checksum({"a": b}, "")
