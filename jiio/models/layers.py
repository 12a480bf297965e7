"""Small parts shared by cells, injections and heads: activations, convolutions, group norm, and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm as apply_weight_norm

from ..checks import CellError, GradientError, check_choice, check_integer, fail

# name -> (function, Lipschitz constant). relu has kinks: take softplus, silu or tanh where finite differences must
# agree to many digits.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "relu": (F.relu, 1.0),
    "tanh": (torch.tanh, 1.0),
    "elu": (F.elu, 1.0),
    "softplus": (F.softplus, 1.0),
    "silu": (F.silu, 1.0999),
    "gelu": (F.gelu, 1.1290),
}
# What a block that ends in group norm takes: an odd function such as tanh lets the mean of the state drop out, and
# with it what holds the plain iteration together; with tanh the multiscale cell is chaotic at the start.
BLOCK_ACTIVATIONS = ("relu", "softplus", "silu", "gelu")


def elementwise(name: str) -> Callable[[Tensor], Tensor]:
    """The elementwise function of that name; none of them works in place."""
    return ACTIVATIONS[check_choice("activation", name, ACTIVATIONS)][0]


def convolution(
    source: int, target: int, size: int, *, stride: int = 1, weight_norm: bool = False, gain: float = 1.0
) -> nn.Conv2d:
    """A convolution without bias that keeps (or divides by ``stride``) the resolution; ``size`` is odd.

    Starts at ``gain`` times Kaiming's normal weights, where 1x1 from a width to itself at ``gain`` times an orthogonal
    matrix.

    Weight norm (Salimans and Kingma 2016) holds direction and length of every filter as two parameters. Inside a solve
    the engine computes the product once.
    """
    layer = nn.Conv2d(source, target, size, stride=stride, padding=size // 2, bias=False)
    if size == 1 and source == target:
        nn.init.orthogonal_(layer.weight, gain)
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        with torch.no_grad():
            layer.weight.mul_(gain)
    if weight_norm:
        apply_weight_norm(layer)
    return layer


def group_norm(channels: int, groups: int, *, affine: bool = True) -> nn.GroupNorm:
    """Group norm: statistics per sample, so that batch mates never meet."""
    check_groups("groups", channels, groups)
    return nn.GroupNorm(groups, channels, affine=affine)


def check_groups(argument: str, channels: int, groups: int) -> None:
    """Raise unless ``groups`` divides ``channels``."""
    if channels % check_integer(argument, groups, 1):
        fail(argument, f"a divisor of the {channels} channels ({divisors(channels)})", groups)


def divisors(number: int) -> str:
    """The divisors of a number, for a message; of a giant, which may come from a file, the small ones."""
    return ", ".join(str(d) for d in range(1, min(number, 1024) + 1) if number % d == 0)


def check_sizes(argument: str, value: Any, length: int | None = None) -> tuple[int, ...]:
    """A non-empty tuple (or list) of whole numbers above zero, as a tuple."""
    what = "a tuple of whole numbers" if length is None else f"a tuple of {length} whole numbers"
    if not isinstance(value, (tuple, list)) or not value or (length is not None and len(value) != length):
        fail(argument, what, value)
    for entry in value:
        check_integer(argument, entry, 1)
    return tuple(value)


def check_image(argument: str, x: Tensor, channels: int, divisor: int = 1) -> Tensor:
    """Raise unless x is (B, channels, H, W) with sides that ``divisor`` divides."""
    if x.dim() != 4 or x.shape[1] != channels:
        fail(argument, f"a tensor of shape (B, {channels}, H, W)", x, error=CellError)
    if x.shape[2] % divisor or x.shape[3] % divisor or min(x.shape[2:]) < 1:
        sides = tuple(math.ceil(max(s, 1) / divisor) * divisor for s in x.shape[2:])
        expected = f"an image whose height and width are multiples of {divisor}"
        fail(argument, expected, x, f"Pad or resize it, for instance to {sides}.", CellError)
    return x


def check_dtype(argument: str, x: Tensor, weight: Tensor) -> None:
    """Raise unless x has the dtype and the device of the weights."""
    if x.dtype != weight.dtype or x.device != weight.device:
        expected = f"{str(weight.dtype).removeprefix('torch.')} numbers on {weight.device}, like the weights"
        fail(argument, expected, x, "Convert the input or the model with .to(...).", CellError)


def check_gradients(owner: str) -> None:
    """Raise in ``torch.inference_mode``, for what takes gradients in its forward pass."""
    if torch.is_inference_mode_enabled():
        expected, remedy = "a mode in which gradients can be taken", "Use torch.no_grad()."
        fail(owner, expected, "torch.inference_mode()", remedy, GradientError)


def zeros(like: Tensor, *shape: int) -> Tensor:
    """Zeros (B, *shape) with batch, dtype and device of ``like``, outside any graph."""
    return like.new_zeros((like.shape[0], *shape))
