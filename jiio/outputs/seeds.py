"""Random numbers as pure functions of a seed and of what they are for.

A training that resumes exactly may not carry generator state from step to step: every random number is a function of
(seed, purpose, step), so that the state of a run is its weights, its optimiser and its step, and nothing else.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *parts: float | str) -> int:
    """A 63-bit seed from a seed and any number of labels; equal on every machine, unlike ``hash()``."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *parts: float | str) -> torch.Generator:
    """A fresh CPU generator for this seed and these labels, for example ``generator(seed, "noise", step)``."""
    return torch.Generator().manual_seed(derive(seed, *parts))
