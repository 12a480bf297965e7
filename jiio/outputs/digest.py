"""Fingerprints of tensors and models, so that figures of other weights or data are not mixed; checksums of files."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(*tensors: Tensor) -> str:
    """A hash of numbers, shapes and dtypes: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous()
        digest.update(f"{tuple(flat.shape)}{flat.dtype}".encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def of_model(model: nn.Module, *settings: Any) -> str:
    """A hash of all parameters and buffers by name, and of whatever else the answers depend on."""
    digest = hashlib.sha256(repr(settings).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {fingerprint(value)}".encode())
    return digest.hexdigest()[:16]


def checksum(tensors: Mapping[str, Tensor], words: str) -> str:
    """A hash of tensors by name, in whatever order they come, and of a text: 32 hexadecimal digits.

    Against damage, not against forgers: CRC-32 of the numbers of each tensor, which sees every single flipped bit and
    costs a quarter of a cryptographic hash, and BLAKE2b over these, the names, shapes, dtypes and the text.
    """
    digest = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous()
        crc = zlib.crc32(flat.reshape(-1).view(torch.uint8).numpy().data)  # the memory itself, not a copy
        digest.update(f"\0{name}\0{tuple(flat.shape)}{flat.dtype} {crc}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
