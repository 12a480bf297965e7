"""How large a model a file can be about: nothing larger than the tensors in it is built.

A configuration in a file is a wish, and a wish for 1e12 features costs its writer nothing. The tensors are what is
there: a model whose parameters they are has no parameter with more numbers than all of them together, and not many more
parameters than there are tensors. Whoever opens a file of weights counts them first (:meth:`Held.of`, from the header
alone), looks at the numbers of the configuration (:meth:`Held.check_numbers`), builds under :meth:`Held.building` and
compares (:func:`difference`, :func:`unusable`) before a single weight is read or allocated.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..checks import fail

# A number in a configuration may be this large whatever the file holds: sides of images and settings without weights.
FREE = 2**20
# Parametrisations register a weight up to three times; some models are built beside another, to compare their sizes.
REPEATS, SPARE = 16, 64
FLOATS = ("float16", "bfloat16", "float32", "float64")
NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}  # in safetensors -> in PyTorch


@dataclass(frozen=True)
class Held:
    """What a file holds. tensors: how many. entries: numbers in all of them."""

    tensors: int
    entries: int

    @classmethod
    def of(cls, shapes: Iterable[Sequence[int]]) -> Held:
        """From the shapes of the tensors."""
        sizes = [math.prod(shape) for shape in shapes]
        return cls(len(sizes), sum(sizes))

    @property
    def largest(self) -> int:
        """The largest size that the tensors could justify: a dimension of a parameter is no larger."""
        return max(self.entries, FREE)

    def check_numbers(self, argument: str, content: Any) -> None:
        """Raise ArgumentError where a whole number in parsed JSON is larger than :attr:`largest`.

        For the part of a configuration that has sizes in it; a seed or a number of steps may well be larger.
        """
        waiting = [(argument, content)]  # no recursion: a file can be nested deeper than the stack
        while waiting:
            name, value = waiting.pop()
            if isinstance(value, Mapping):
                waiting += [(f"{name}.{key}", part) for key, part in value.items()]
            elif isinstance(value, (list, tuple)):
                waiting += [(name, part) for part in value]
            elif isinstance(value, int) and abs(value) > self.largest:
                expected = f"numbers of at most {self.largest}, as the file holds {self.entries} numbers"
                fail(name, expected, str(value) if value.bit_length() <= 64 else f"one of {value.bit_length()} bits")

    @contextmanager
    def building(self) -> Iterator[None]:
        """While this is open, modules are built on the meta device, and no further than the file goes.

        Raises ArgumentError as soon as a module registers a parameter of more numbers than the file holds, or far more
        parameters than it has tensors. So no loop over a depth of 1e9 is run to its end. What other threads build
        meanwhile is not counted.
        """
        handle = register_module_parameter_registration_hook(_Counter(self))
        try:
            with torch.device("meta"):
                yield
        finally:
            handle.remove()


class _Counter:
    """What is called with every parameter that a module registers, in whatever thread."""

    def __init__(self, held: Held) -> None:
        self.held, self.thread = held, threading.get_ident()
        self.most, self.seen = REPEATS * held.tensors + SPARE, 0

    def __call__(self, module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        if threading.get_ident() != self.thread:
            return
        entries, tensors = self.held.entries, self.held.tensors
        if parameter.numel() > entries:
            expected = f"parameters of at most {entries} numbers, as many as the file holds"
            fail(f"{type(module).__name__}.{name}", expected, f"the shape {tuple(parameter.shape)}")

        self.seen += 1
        if self.seen > self.most:
            expected = f"about as many parameters as the file has tensors, {tensors}"
            fail("model", expected, f"more than {self.most}")


def difference(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> str:
    """In words the first difference between the shapes of a model and those in a file; empty where there is none."""
    for verb, names in (("lacks", expected.keys() - found.keys()), ("has a stray", found.keys() - expected.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"it {verb} tensor {min(names)!r}{more}"
    for name, shape in found.items():
        if tuple(shape) != tuple(expected[name]):
            return f"{name!r} has shape {tuple(shape)}, not {tuple(expected[name])}"
    return ""


def unusable(dtypes: Iterable[str]) -> str:
    """In words what is wrong with the types of weights, as safetensors names them; empty where nothing is."""
    found = sorted({NAMES.get(name, name) for name in dtypes})
    if len(found) == 1 and found[0] in FLOATS:
        return ""
    return f"weights of {', '.join(found) or 'no type'}, not of one dtype among {', '.join(FLOATS)}"


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """In words the first tensor with NaN or infinity in it; empty where there is none."""
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            return f"{name!r} has {int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers NaN or infinite"
    return ""
