"""The images that an evaluation found, in the order of the data, and as a file that anybody can read."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jiio.checks import fail
from jiio.outputs.atomic import write_whole


@dataclass(frozen=True, eq=False)
class Adversarial:
    """images (N, ...): the strongest that was found for each sample, the sample itself where it was wrong untouched.
    originals (N, ...): the samples. labels, predictions, original_predictions (N,): the truth, and what the model says
    of both. All on the CPU. threat: the set that the images lie in, in plain data.
    """

    images: Tensor
    originals: Tensor
    labels: Tensor
    predictions: Tensor
    original_predictions: Tensor
    threat: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def save(self, path: str | Path) -> None:
        """Write ``path``, an .npz file, whole or not at all: the tensors by their names here, and ``norm``, ``radius``
        (a number or (N,)), ``low``, ``high`` of the threat. Images keep their precision, so that the file says the same
        as the report; numpy has no bfloat16, so that half precision is widened to float32, which changes no number.
        """
        import numpy as np

        names = ("images", "originals", "labels", "predictions", "original_predictions")
        arrays = {name: _array(getattr(self, name)) for name in names}
        low, high = self.threat["bounds"]
        arrays |= {"norm": np.array(self.threat["norm"]), "radius": np.array(self.threat["radius"])}
        arrays |= {"low": np.array(low), "high": np.array(high)}

        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_whole(Path(path), content.getvalue())


def _array(tensor: Tensor) -> Any:
    half = tensor.dtype in (torch.bfloat16, torch.float16)
    return (tensor.float() if half else tensor).numpy()


def joined(originals: list[Tensor], batches: list[dict[str, Tensor]], threat: dict[str, Any]) -> Adversarial | None:
    """Of all batches; None where the images of one have another shape than those of the next."""
    if len({x.shape[1:] for x in originals}) > 1:
        return None
    names = {"worst": "images", "y": "labels", "label": "predictions", "clean_label": "original_predictions"}
    parts = {new: torch.cat([batch[old] for batch in batches]) for old, new in names.items()}
    return Adversarial(originals=torch.cat(originals), threat=threat, **parts)


def check_there(found: Adversarial | None) -> Adversarial:
    """The images, or the sentence of a report that has none."""
    if found is None:
        remedy = "Resize them, or save the batches one by one."
        fail("path", "images of one size to write into one file", "images of several sizes", remedy)
    return found
