"""What a stranger's file may ask for: its configuration is held against the tensors that it brings.

A configuration of a few bytes can ask for a network of terabytes, or of a billion layers. While one is built, every
tensor that it wants is counted before it is allocated, and the building ends where it wants much more than the file
could fill.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from jiio.checks import CheckpointError, JiioError, fail

from .files import reason

# What building may need beside the weights (initial values, kernels, tables of positions). The shipped networks and
# those of every task, measured, want no more than they bring: 0.8 to 1.0 of the numbers, 0.6 to 1.0 of the tensors.
TIMES, SPARE_NUMBERS = 4, 1 << 24
CALLS, SPARE_CALLS = 10, 1_000
LARGEST = 1e18
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# What building runs into with sizes that make no sense.
BUILDING_ERRORS = (RuntimeError, TypeError, ValueError, ArithmeticError, MemoryError, LookupError, AttributeError)


@contextlib.contextmanager
def bounded(path: Path, tensors: Iterable[Tensor]) -> Iterator[None]:
    """Within, a network is built from the configuration in the file ``path``, which brings these tensors.

    Errors: CheckpointError where it asks for much more than they could fill, or makes no network at all.
    """
    sizes = [tensor.numel() for tensor in tensors]
    limit = _Count(path, TIMES * sum(sizes) + SPARE_NUMBERS, CALLS * len(sizes) + SPARE_CALLS)
    try:
        with limit:
            yield
    except JiioError:
        raise
    except BUILDING_ERRORS as error:
        why = f"{type(error).__name__}: {reason(error)}"
        raise CheckpointError(f"checkpoint: the configuration in {path} makes no network ({why}).") from error


class _Count(TorchDispatchMode):
    """Counts tensors and their numbers, those of a factory (empty, ones, ...) before it runs."""

    def __init__(self, path: Path, most_numbers: int, most_calls: int) -> None:
        super().__init__()
        self.path, self.most_numbers, self.most_calls = path, most_numbers, most_calls
        self.numbers = self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if not any(isinstance(part, Tensor) for part in flat(args)):
            self.numbers += _wanted(func.overloadpacket.__name__, args)
            self.calls += 1
            if self.numbers > self.most_numbers or self.calls > self.most_calls:
                came = f"one for {self.numbers:,} numbers in {self.calls:,} tensors in {self.path}"
                fail("checkpoint", "a configuration that fits the weights beside it", came, error=CheckpointError)
        return func(*args, **(kwargs or {}))


def flat(args: Iterable[Any]) -> Iterator[Any]:
    """The arguments, and what stands in lists of them: ``torch.stack`` takes its tensors in one."""
    for value in args:
        yield from flat(value) if isinstance(value, (list, tuple)) else (value,)


def _wanted(name: str, args: tuple[Any, ...]) -> int:
    """How many numbers a factory makes: the product of a shape, or what those few that take none make of lengths."""
    if args and isinstance(args[0], (list, tuple)):
        return math.prod(abs(int(size)) for size in args[0])
    if name == "eye":
        return math.prod(int(size) for size in (*args, *args)[:2])
    if name in ("linspace", "logspace"):
        return int(args[2])
    if name in ("arange", "randperm"):
        return int(max(abs(end) for end in args))
    return 1


def check_weights(path: Path, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Weights that a network can compute with.

    Finite parameters; buffers without NaN (a mask may well hold infinities); floating-point numbers where the network
    has them and no others. Names and shapes are for ``load_state_dict`` to compare.

    Errors: CheckpointError.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, own in model.state_dict().items():
        tensor = weights.get(name)
        if tensor is None:
            continue
        if tensor.dtype != own.dtype and not (own.dtype in FLOATS and tensor.dtype in FLOATS):
            came = f"{name!r} of {str(tensor.dtype).removeprefix('torch.')} in {path}"
            fail("checkpoint", f"weights of {str(own.dtype).removeprefix('torch.')}", came, error=CheckpointError)
        check_usable(path, name, tensor, finite=name in parameters)


def check_usable(path: Path, name: str, tensor: Tensor, *, finite: bool) -> None:
    """No NaN; with ``finite`` nothing infinite either, and nothing so large that its square would be (in float32)."""
    good = tensor.abs() < LARGEST if finite else ~tensor.isnan()
    if not bool(good.all()):
        came = f"{int((~good).sum())} of {tensor.numel()} NaN, infinite or too large in {name!r} of {path}"
        fail("checkpoint", "weights that one can compute with", came, "Use a checkpoint before it.", CheckpointError)
