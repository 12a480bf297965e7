"""Somebody else's map as it is called here: which function, on what kind of tensor, and in what shape its values come.

Inside, a measurement is one real tensor (B, ...). Complex values become pairs of channels, all real parts before all
imaginary ones, and the parts of a stacked measurement one long vector for each sample. Everything else about a foreign
map stays as it is: it sees images in the number type and on the device of the measurement that came with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jiio.checks import JiioError, fail

PAIRS = (
    "Pass shape=(C, H, W) of the images that it takes; complex images are pairs of channels here, so that a map of "
    "them is passed as lambda x: A(torch.complex(*x.chunk(2, 1))) with shape=(2 C, H, W)."
)
SEEN = "Write it in PyTorch, or pass an object with A and A_adjoint."


@dataclass(frozen=True)
class Form:
    """The shape of a foreign measurement, without the batch: one of it, or one for each part of a stack."""

    shapes: tuple[torch.Size, ...]
    stacked: bool
    complex: bool

    @classmethod
    def of(cls, y: Any) -> Form:
        """Errors: ArgumentError where y is no measurement."""
        stacked = not isinstance(y, Tensor)
        parts = listed(y) if stacked else [y]
        numbers = all(isinstance(p, Tensor) and (p.is_floating_point() or p.is_complex()) for p in parts)
        if not parts or not numbers or any(p.ndim < 2 or len(p) != len(parts[0]) for p in parts):
            fail("y", "a measurement, a floating tensor with the batch first", y)
        return cls(tuple(p.shape[1:] for p in parts), stacked, any(p.is_complex() for p in parts))

    def pack(self, y: Any) -> Tensor:
        """A foreign measurement as one real tensor (B, ...)."""
        parts = [as_pairs(part) for part in (listed(y) if self.stacked else [y])]
        return torch.cat([part.flatten(1) for part in parts], 1) if self.stacked else parts[0]

    def unpack(self, v: Tensor) -> Any:
        """The inverse of :meth:`pack`, for what takes measurements."""
        if not self.stacked:
            return from_pairs(v) if self.complex else v
        sizes = [(2 if self.complex else 1) * shape.numel() for shape in self.shapes]
        return [
            from_pairs(part.view(len(v), 2, *shape).flatten(1, 2)) if self.complex else part.view(len(v), *shape)
            for part, shape in zip(v.split(sizes, 1), self.shapes, strict=True)
        ]


def as_pairs(t: Tensor) -> Tensor:
    """A complex tensor (B, C, ...) as a real one (B, 2 C, ...); a real one as it is."""
    return torch.cat([t.real, t.imag], 1) if t.is_complex() else t


def from_pairs(t: Tensor) -> Tensor:
    """The inverse of :func:`as_pairs`."""
    return torch.complex(*(part.contiguous() for part in t.chunk(2, 1)))


class Foreign:
    """The function of a physics, and its adjoint where it has one, between our tensors.

    physics: an object with ``A`` and perhaps ``A_adjoint``, or a function. y: a measurement of it.
    """

    def __init__(self, physics: Any, y: Any) -> None:
        self.function: Callable[[Tensor], Any] = getattr(physics, "A", None) or physics
        if not callable(self.function):
            words = f"{type(physics).__name__} without A"
            fail("physics", "a function of images, or an object with the method A and perhaps A_adjoint", words)
        self.back: Callable[[Any], Any] | None = getattr(physics, "A_adjoint", None)
        if self.back is not None and not callable(self.back):
            fail("physics.A_adjoint", "a method", self.back)

        self.form = Form.of(y)
        self.like = self.form.pack(y)
        self.stack = type(y) if self.form.stacked else None
        self.kind = self.like.dtype  # of the images that the function takes

    def images(self, shape: tuple[int, ...] | None, hint: Any = None) -> Tensor:
        """A blank batch of the images that the map takes, (B, C, H, W).

        They have the shape that is given; else that of what the adjoint returns, what ``hint`` says (deepinv's
        ``img_size``), or that of the measurement. A map that wants complex images gets real ones as complex numbers.

        Errors: ArgumentError where the map takes none of them.
        """
        known = shape or (tuple(self.adjoint(self.like).shape[1:]) if self.back is not None else None)
        tries = [known] if known else [hint, tuple(self.like.shape[1:])]
        tries = [tuple(t) for t in tries if isinstance(t, (tuple, list, torch.Size)) and len(t) == 3]
        if not tries:
            words = f"a measurement of shape {tuple(self.like.shape)}"
            fail("shape", "the shape (C, H, W) of the images", words, "Pass shape=(C, H, W).")

        errors: list[JiioError] = []
        for one in tries:
            blank = self.like.new_zeros(len(self.like), *one)
            for kind in (self.like.dtype, self.like.dtype.to_complex()):
                self.kind = kind
                try:
                    self.forward(blank)
                except JiioError as error:
                    errors.append(error)
                else:
                    return blank
        raise errors[0]

    def forward(self, x: Tensor) -> Tensor:
        """The measurement of images x (B, C, H, W), in the type and on the device of x."""
        try:
            value = self.function(x.to(self.like.device, self.kind))
        except JiioError:
            raise
        except Exception as error:  # somebody else's function may raise anything
            words = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            if x.requires_grad:
                fail("physics.A", "a function that autograd can differentiate", words, SEEN)
            fail("physics.A", f"a function of images of shape {tuple(x.shape)}", words, PAIRS)
        form = Form.of(value)
        if form.shapes != self.form.shapes or form.complex != self.form.complex or len(self.form.pack(value)) != len(x):
            shapes = ", ".join(str((len(x), *s)) for s in self.form.shapes)
            fail("physics.A", f"measurements of the shape of y, {shapes}", value, PAIRS)
        return self.form.pack(value).to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """The images that ``A_adjoint`` makes of y; of complex ones the real part, because images are real here."""
        assert self.back is not None
        values = self.form.unpack(y.to(self.like))
        image = self.back(self.stack(values) if self.stack is not None else values)
        if not isinstance(image, Tensor) or image.ndim != 4:
            fail("physics.A_adjoint", "images (B, C, H, W)", image)
        return (image.real if image.is_complex() else image).to(y)


def transposed(function: Callable[[Tensor], Tensor], like: Tensor) -> Callable[[Tensor], Tensor]:
    """The adjoint of a linear function, by autograd. like: an image (1, C, H, W).

    Errors: ArgumentError where autograd does not see through the function.
    """

    def adjoint(y: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.zeros(len(y), *like.shape[1:], dtype=y.dtype, device=y.device, requires_grad=True)
            value = function(x)
            if not value.requires_grad:
                fail("physics.A", "a function that autograd can differentiate", "one that cuts the graph", SEEN)
            return torch.autograd.grad(value, x, y)[0].detach()

    return adjoint


def listed(y: Any) -> list[Any]:
    """The parts of a stack, which may be a list that does not say so, such as deepinv's ``TensorList``."""
    if not hasattr(y, "__getitem__") or not hasattr(y, "__len__"):
        return [y]
    return [y[i] for i in range(len(y))] if not isinstance(y, (str, dict)) else [y]
