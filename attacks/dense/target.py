"""A network that scores every pixel, as attacks see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jiio.checks import ArgumentTypeError, CellError, check_finite, fail

from ..contract import check_weights
from ..target import Target
from ..threat import ThreatModel

IGNORED = 255  # in a mask: no class, as is whatever is below 0


class DenseTarget(Target):
    """A segmentation model; settings as in :class:`Target`.

    model: x (B, C, H, W) -> scores (B, classes, H, W). It may return the scores, something with a field ``pixels``
    (:class:`jiio.models.SceneScores`) or a mapping with an entry ``out`` (torchvision). Predictions have labels (B, H,
    W), -1 where the scores are no numbers.
    """

    def scores(self, answer: Any, x: Tensor) -> Tensor:
        """(B, classes, H, W) in what the model answered for x, in the precision of x; see :class:`DenseTarget` for the
        forms of an answer.
        """
        found = answer.get("out") if isinstance(answer, Mapping) else getattr(answer, "pixels", answer)
        if not isinstance(found, Tensor) or not found.is_floating_point():
            remedy = "Wrap the model so that it returns the scores of the pixels alone."
            fail("model(x)", "scores (B, classes, H, W)", answer, remedy, CellError)
        if found.device != x.device:
            fail("model(x)", f"scores on {x.device}, like x", f"scores on {found.device}", error=CellError)
        if found.dim() != 4 or len(found) != len(x) or found.shape[2:] != x.shape[2:] or found.shape[1] < 2:
            expected = f"scores of shape ({len(x)}, classes, {x.shape[2]}, {x.shape[3]}) with at least 2 classes"
            fail("model(x)", expected, found, "Interpolate them to the size of the image.", CellError)
        return found.to(x.dtype)

    def check(self, x: Any, y: Any, threat: ThreatModel | None = None) -> None:
        """Raise, in a sentence, unless images x (B, C, H, W), masks y (B, H, W), threat and model belong together."""
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() != 4:
            fail("x", "a floating-point tensor (B, C, H, W)", x, "Convert it with .float().", ArgumentTypeError)
        if not x.numel():
            fail("x", "at least one image", x)
        check_finite("x", x)
        if not isinstance(y, Tensor) or y.dtype not in (torch.int64, torch.uint8):
            fail("y", "masks (B, H, W) of dtype int64 or uint8", y, error=ArgumentTypeError)
        if y.shape != (len(x), *x.shape[2:]):
            fail("y", f"a class for every pixel, shape {(len(x), *x.shape[2:])}", y)
        self._check_place(x)
        check_weights(self.model)
        if threat is not None:
            threat.check(x)


def counted(y: Tensor) -> Tensor:
    """(B, H, W) whether a pixel has a class."""
    return (y >= 0) & (y != IGNORED)
