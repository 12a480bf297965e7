"""A few examples for the report: image, attacked image, and the perturbation made visible."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Gallery:
    """The first ``limit`` broken samples, and where there are fewer, none in their place."""

    limit: int = 0
    clean: list[Tensor] = field(default_factory=list)
    attacked: list[Tensor] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def collect(self, x: Tensor, record: dict[str, Tensor]) -> None:
        """Keep what is wanted of one batch; only images (B, 1 or 3, H, W) can be shown."""
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            return
        broken = torch.nonzero((record["label"] != record["y"]) & (record["clean_label"] == record["y"]))[:, 0]
        for i in broken[: self.limit - len(self.clean)].tolist():
            self.clean.append(x[i].detach().cpu())
            self.attacked.append(record["worst"][i].to(self.clean[-1]))
            self.words.append(f"{int(record['y'][i])} read as {int(record['label'][i])}")
