"""Heads: from the equilibrium state to class scores, an image, scores per pixel, or the scores of two heads at once.

A head takes the state as the cell returns it: one tensor (B, n), one feature map (B, C, H, W), or a tuple of feature
maps, finest first. Its first argument says which: a whole number for a dense state, a tuple of widths for feature
maps.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import CellError, check_choice, check_instance, check_integer, fail
from ..persample import SampleBySample, rows_of
from .layers import check_sizes, convolution, elementwise, group_norm


def _unchanged(y: Tensor) -> Tensor:
    return y


SQUASH = {"none": _unchanged, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
EXPANSION = 4  # a classifier bottleneck returns this times its inner width


def as_maps(z: Tensor | tuple[Tensor, ...], count: int) -> tuple[Tensor, ...]:
    """The state as a tuple of ``count`` feature maps."""
    maps = (z,) if isinstance(z, Tensor) else tuple(z)
    if len(maps) != count or any(part.dim() != 4 for part in maps):
        shapes = ", ".join(str(tuple(part.shape)) for part in maps)
        fail("z", f"{count} feature map(s) (B, C, H, W)", f"shapes {shapes}", error=CellError)
    return maps


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    """Group norm with as many of ``groups`` as divide the width: bottleneck widths are small and odd."""
    return group_norm(channels, math.gcd(channels, groups))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with group norm and a 1x1 shortcut: (B, source, H, W) -> (B, 4 * width, H, W)."""

    def __init__(self, source: int, width: int, groups: int, activation: str) -> None:
        super().__init__()
        target = EXPANSION * width
        self.convs = nn.ModuleList(
            (convolution(source, width, 1), convolution(width, width, 3), convolution(width, target, 1))
        )
        self.norms = nn.ModuleList(_norm(c, groups) for c in (width, width, target))
        self.shortcut = convolution(source, target, 1)
        self.shortcut_norm = _norm(target, groups)
        self.act = elementwise(activation)

    def forward(self, y: Tensor) -> Tensor:
        short = self.shortcut_norm(self.shortcut(y))
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if k < 2:
                y = self.act(y)
        return self.act(y + short)


class ClassifierHead(SampleBySample, nn.Module):
    """Class scores (B, classes).

    Feature maps, as in MDEQ: a bottleneck per branch, merged downward by stride-2 convolutions, a 1x1 convolution to
    ``final_channels``, average pooling, a linear layer. Dense state: the linear layer alone.

    features: of a dense state, or a tuple with the channels of each feature map, finest first. classes: how many.
    head_channels: the inner width of the bottleneck of each branch; it ends with four times as many channels. groups:
    of the group norm. activation: "relu", "tanh", "elu", "softplus", "silu" or "gelu". The last four, and
    ``final_channels``, are of feature maps alone.
    """

    def __init__(
        self,
        features: int | tuple[int, ...],
        classes: int,
        *,
        head_channels: tuple[int, ...] = (8, 16),
        final_channels: int = 200,
        groups: int = 8,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_integer("classes", classes, 1)
        if isinstance(features, int):
            self.branches = 0
            self.linear = nn.Linear(check_integer("features", features, 1), classes)
            return

        # Feature maps: every branch is widened and merged into the next coarser one, and the coarsest is pooled.
        coarsest = self._merge(check_sizes("features", features), head_channels, groups, activation)
        self.final = convolution(coarsest, check_integer("final_channels", final_channels, 1), 1)
        self.final_norm = _norm(final_channels, groups)
        self.linear = nn.Linear(final_channels, classes)

    def _merge(self, widths: tuple[int, ...], head_channels: tuple[int, ...], groups: int, activation: str) -> int:
        """Make what merges the branches; the channels that the coarsest ends with."""
        inner = check_sizes("head_channels", head_channels, len(widths))
        self.branches, self.act = len(widths), elementwise(activation)
        self.bottlenecks = nn.ModuleList(
            Bottleneck(width, h, groups, activation) for width, h in zip(widths, inner, strict=True)
        )
        outer = [EXPANSION * h for h in inner]
        self.downs = nn.ModuleList(convolution(a, b, 3, stride=2) for a, b in itertools.pairwise(outer))
        self.norms = nn.ModuleList(_norm(b, groups) for b in outer[1:])
        return outer[-1]

    def forward(self, z: Tensor | tuple[Tensor, ...]) -> Tensor:
        """z: (B, n), (B, C, H, W) or a tuple of feature maps -> (B, classes)."""
        if not self.branches:
            return self.linear(z)
        parts = [bottleneck(part) for bottleneck, part in zip(self.bottlenecks, as_maps(z, self.branches), strict=True)]
        y = parts[0]
        for down, norm, part in zip(self.downs, self.norms, parts[1:], strict=True):
            y = part + self.act(norm(down(y)))
        return self.linear(self.act(self.final_norm(self.final(y))).mean((2, 3)))


class Merge(nn.Module):
    """All branches at the resolution of the finest: sum of nearest up-sampled 1x1 convolutions, (B, width, H, W)."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convolution(c, width, 1) for c in channels)

    def forward(self, z: Tensor | tuple[Tensor, ...]) -> Tensor:
        maps = as_maps(z, len(self.convs))
        total = self.convs[0](maps[0])
        for i, (conv, part) in enumerate(zip(self.convs, maps, strict=True)):
            if i:
                total = total + F.interpolate(conv(part), scale_factor=float(2**i), mode="nearest")
        return total


class ImageHead(SampleBySample, nn.Module):
    """An image (B, C, H, W), the output of a decoder.

    Feature maps: merged to the finest resolution, conv3x3, up-sampled 2**halvings times where branch 0 is coarser than
    the image, conv3x3. Dense state: one linear layer. features, activation: as in :class:`ClassifierHead`. image:
    (C, H, W). halvings: how many. ``squash`` maps to the pixel range: "sigmoid" (0, 1), "tanh"
    (-1, 1), or "none".
    """

    def __init__(
        self,
        features: int | tuple[int, ...],
        image: tuple[int, int, int],
        *,
        halvings: int = 0,
        activation: str = "relu",
        squash: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.image = check_sizes("image", image, 3)
        self.squash = SQUASH[check_choice("squash", squash, SQUASH)]
        self.scale = 2 ** check_integer("halvings", halvings, 0)
        self.dense = isinstance(features, int)
        if isinstance(features, int):
            self.linear = nn.Linear(check_integer("features", features, 1), math.prod(self.image))
            return

        # Everything happens at the width of the finest branch.
        width = check_sizes("features", features)[0]
        self.merge = Merge(features, width)
        self.act = elementwise(activation)
        self.inner = convolution(width, width, 3)
        self.outer = nn.Conv2d(width, self.image[0], 3, padding=1)  # with a bias: the mean colour

    def forward(self, z: Tensor | tuple[Tensor, ...]) -> Tensor:
        """z: (B, n), (B, C', H', W') or a tuple of feature maps -> (B, C, H, W)."""
        if self.dense:
            return self.squash(self.linear(z).unflatten(1, self.image))
        y = self.act(self.inner(self.act(self.merge(z))))
        if self.scale > 1:
            y = F.interpolate(y, scale_factor=float(self.scale), mode="nearest")
        return self.squash(self.outer(y))


class DenseHead(SampleBySample, nn.Module):
    """Class scores (B, classes, H, W) of every pixel, for segmentation.

    Merged branches, group norm, activation, conv1x1, and bilinear up-sampling by 2**halvings to the image. channels: of
    each feature map, finest first. classes, groups, activation: as in :class:`ClassifierHead`.
    """

    def __init__(
        self, channels: tuple[int, ...], classes: int, *, halvings: int = 0, groups: int = 4, activation: str = "relu"
    ) -> None:
        super().__init__()
        width = sum(check_sizes("channels", channels))
        self.merge = Merge(channels, width)
        self.norm = _norm(width, groups)
        self.act = elementwise(activation)
        self.score = nn.Conv2d(width, check_integer("classes", classes, 1), 1)
        self.scale = 2 ** check_integer("halvings", halvings, 0)

    def forward(self, z: Tensor | tuple[Tensor, ...]) -> Tensor:
        """z: (B, C', H', W') or a tuple of feature maps -> (B, classes, H' * 2**halvings, W' * 2**halvings)."""
        scores = self.score(self.act(self.norm(self.merge(z))))
        if self.scale > 1:
            scores = F.interpolate(scores, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
        return scores


class SceneScores(NamedTuple):
    """What two heads say.

    image: scores (B, labels) of what is in the image. pixels: scores (B, classes, H, W) of what each pixel shows.
    """

    image: Tensor
    pixels: Tensor


class TwoHeads(nn.Module):
    """A head of two: state -> :class:`SceneScores`.

    image: state -> (B, labels), such as :class:`ClassifierHead`. pixels: state -> (B, classes, H, W), such as
    :class:`DenseHead`. The equilibrium is solved once for both, and a loss on both sends one cotangent back into it.
    """

    def __init__(self, image: nn.Module, pixels: nn.Module) -> None:
        super().__init__()
        self.image = check_instance("image", image, nn.Module)
        self.pixels = check_instance("pixels", pixels, nn.Module)

    def rows(self, index: Tensor) -> TwoHeads | None:
        """The samples ``index`` (k,), where both heads offer that."""
        image, pixels = rows_of(self.image, index), rows_of(self.pixels, index)
        if image is None or pixels is None:
            return None
        return self if image is self.image and pixels is self.pixels else TwoHeads(image, pixels)

    def forward(self, z: Tensor | tuple[Tensor, ...]) -> SceneScores:
        """z: a feature map or a tuple of them."""
        return SceneScores(self.image(z), self.pixels(z))
