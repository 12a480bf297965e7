"""How well pixels were classified: per-image confusion matrices, and what is read off their sum.

A pixel whose true class is 255 counts nowhere, whatever was predicted for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.outputs.seeds import generator

from .folders import IGNORED

DRAWS = 1000
CHUNK = 500  # images counted at a time


def confusion(predicted: Tensor, true: Tensor, classes: int) -> Tensor:
    """(B, K, K) int64: in row t, column p, the pixels of class t that were called p; both masks (B, H, W)."""
    if predicted.shape != true.shape or true.dim() != 3:
        fail("predicted", f"masks (B, H, W) like the true ones, {tuple(true.shape)}", predicted)
    counted = true != IGNORED
    image = torch.arange(len(true), device=true.device)[:, None, None].expand_as(true)
    place = (image * classes + true.long()) * classes + predicted.long()
    counts = torch.bincount(place[counted], minlength=len(true) * classes * classes)
    return counts.view(len(true), classes, classes)


def intersection_over_union(counts: Tensor) -> Tensor:
    """(..., K) float64 from (..., K, K): |P and T| / |P or T| of each class, NaN where it was neither there nor
    predicted (Everingham et al., IJCV 2010).
    """
    counts = counts.double()
    both = counts.diagonal(dim1=-2, dim2=-1)
    return both / (counts.sum(-1) + counts.sum(-2) - both)


def mean_iou(counts: Tensor) -> Tensor:
    """(...,): the mean over the classes that have one."""
    return intersection_over_union(counts).nanmean(-1)


def pixel_accuracy(counts: Tensor) -> Tensor:
    """(...,): the share of the pixels called by their class."""
    counts = counts.double()
    return counts.diagonal(dim1=-2, dim2=-1).sum(-1) / counts.sum((-2, -1))


def bootstrap(
    counts: Tensor, statistic: Callable[[Tensor], Tensor], *, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """The 95 % percentile interval (Efron 1979) of a statistic of the summed confusion matrix: the test images
    (N, K, K) are drawn anew, with replacement. Images are independent of each other, the pixels of one are not.
    """
    n, k = counts.shape[:2]
    chosen = torch.randint(n, (draws, n), generator=generator(seed, "bootstrap"))
    often = torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(draws, n).double())
    sums = (often @ counts.cpu().double().flatten(1)).view(draws, k, k)
    low, high = torch.quantile(statistic(sums), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


class ColourTable:
    """The simplest thing that looks at the pixel: the class that its colour has most often in the training images.

    Colours are cut into boxes, 8 levels of each of three channels, or 64 of grey. Unseen ones take the most frequent
    class.
    """

    def __init__(self, images: Tensor, masks: Tensor, classes: int) -> None:
        self.shift = 5 if images.shape[1] == 3 else 2
        self.levels = 256 >> self.shift
        size = self.levels ** images.shape[1] * classes
        counts = torch.zeros(size, dtype=torch.int64)
        for some, theirs in zip(images.split(CHUNK), masks.split(CHUNK), strict=True):
            counted = theirs != IGNORED
            counts += torch.bincount(self.boxes(some)[counted] * classes + theirs[counted].long(), minlength=size)
        counts = counts.view(-1, classes)
        self.majority = int(counts.sum(0).argmax())
        self.table = torch.where(counts.sum(1) > 0, counts.argmax(1), self.majority)

    def boxes(self, images: Tensor) -> Tensor:
        """(N, H, W), the number of the box, of uint8 images (N, C, H, W)."""
        place = torch.zeros_like(images[:, 0], dtype=torch.int64)
        for channel in images.unbind(1):
            place = place * self.levels + (channel >> self.shift).long()
        return place

    def predict(self, images: Tensor) -> Tensor:
        """Masks (N, H, W) of uint8 images."""
        return self.table[self.boxes(images)]
