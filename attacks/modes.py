"""The modes a caller may be in, and those an attack needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def outside_inference() -> Iterator[None]:
    """Out of ``torch.inference_mode()``, in which no gradient can be taken whatever is asked for, and with gradients
    on: weights that are computed without them may differ in the last digit.
    """
    inference = torch.inference_mode(False) if torch.is_inference_mode_enabled() else contextlib.nullcontext()
    with inference, torch.enable_grad():
        yield


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made in inference mode: autograd refuses to keep those."""
    return tensor.clone() if tensor.is_inference() else tensor


def calm(part: nn.Module) -> bool:
    """Whether the module may be in train mode without drawing at random or remembering what it saw."""
    restless = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    return not isinstance(part, restless) and not getattr(part, "dropout", 0.0)
