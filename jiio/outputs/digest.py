"""Fingerprints of tensors and of models, so that figures of other weights or data are not mixed."""

from __future__ import annotations

import hashlib
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
