"""What a classifier, its images and its labels must be: each check raises in one sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import ArgumentTypeError, CellError, check_finite, check_instance, check_integer, fail

from .modes import outside_inference


def check_truth(x: Tensor, y: Any) -> None:
    """Raise unless y are labels (B,) for x (B, ...), of the right kind and in the right place."""
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        fail("y", "labels (B,) of dtype int64", y, "Convert them with .long().", ArgumentTypeError)
    if y.shape != x.shape[:1]:
        fail("y", f"one label per sample, shape ({len(x)},)", y)
    if y.device != x.device:
        fail("y", f"labels on {x.device}, like x", y, "Move them with .to(x.device).")


def check_logits(logits: Any, x: Tensor) -> Tensor:
    """Raise unless these are scores (B, classes); in the precision of x."""
    if not isinstance(logits, Tensor):
        remedy = "Wrap the model so that it returns the scores alone."
        fail("model(x)", "one tensor of scores (B, classes)", logits, remedy, CellError)
    if logits.device != x.device:
        remedy = "Let the model answer where it was asked: scores.to(x.device)."
        fail("model(x)", f"scores on {x.device}, like x", f"scores on {logits.device}", remedy, CellError)
    if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2 or not logits.is_floating_point():
        fail("model(x)", f"scores of shape ({len(x)}, classes) with at least 2 classes", logits, error=CellError)
    return logits.to(x.dtype)


def check_weights(model: nn.Module) -> None:
    """Raise where the weights themselves belong to inference mode: no gradient passes through them."""
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if weight.is_inference():
            remedy = "Build, load or move the model outside of torch.inference_mode()."
            fail("model", "weights through which gradients can pass", f"{name} made in inference mode", remedy)


def given(**settings: Any) -> dict[str, Any]:
    """Those of the settings of a solve that are not None, each of the kind that it must be."""
    kinds = {"adjoint": jiio.AbstractAdjoint, "solver": jiio.AbstractSolver, "tolerance": jiio.Tolerance}
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if name in kinds:
            check_instance(name, value, kinds[name])
        else:
            check_integer(name, value, 2)
    return given


def moment(name: str, value: float | Tensor | None, default: float) -> Tensor:
    """One of mean and std as a tensor, () or (C,)."""
    try:
        with outside_inference():
            number = torch.as_tensor(default if value is None else value, dtype=torch.get_default_dtype()).clone()
    except (TypeError, ValueError, RuntimeError):
        fail(name, "a number, or one per channel", value, error=ArgumentTypeError)
    if number.dim() > 1:
        fail(name, "a number, or one per channel", value)
    return check_finite(name, number)


def channels(moment: Tensor, x: Tensor) -> Tensor:
    """A number, or one per channel, that broadcasts against x (B, C, ...)."""
    moment = moment.to(x)
    if moment.dim() == 0 or moment.numel() == 1:
        return moment.reshape(())
    if moment.numel() != x.shape[1]:
        fail("mean and std", f"one number per channel, {x.shape[1]} of them", moment)
    return moment.view(-1, *([1] * (x.dim() - 2)))
