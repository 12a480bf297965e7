"""The cell as ordinary layers, in the place of its equilibrium: no defence, but what an equilibrium is measured by."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

import jiio
from jiio.checks import check_choice, check_instance, check_number
from jiio.models import ModelConfig, TiedModel, UntiedModel, sparse_masks
from jiio.outputs.seeds import generator
from jiio.tasks.frame.config import whole

from .defences import AbstractDefence

MASKS = ("own", "shared")


@dataclass(frozen=True)
class TiedLayers(AbstractDefence):
    """The cell applied ``layers`` times with the same weights (:class:`jiio.models.TiedModel`).

    sparsity: share of the weights that is masked away in a layer, by a mask drawn from ``mask_seed``. masks: "own", one
    for each layer, or "shared", the same in all of them.
    """

    needs_equilibrium = True
    explicit = True

    layers: int = 6
    sparsity: float = 0.0
    masks: str = "own"
    mask_seed: int = 0

    def __post_init__(self) -> None:
        whole("TiedLayers.layers", self.layers, 1, 1000)
        check_number("TiedLayers.sparsity", self.sparsity, 0.0, 0.99)
        check_choice("TiedLayers.masks", self.masks, MASKS)
        whole("TiedLayers.mask_seed", self.mask_seed, 0, 2**62)

    def network(self, model: nn.Module) -> nn.Module:
        own = check_instance("model", model, jiio.EquilibriumModel)
        if not self.sparsity:
            return TiedModel(own, self.layers)
        drawn, times = (self.layers, 1) if self.masks == "own" else (1, self.layers)
        masks = sparse_masks(own.cell, drawn, self.sparsity, generator=generator(self.mask_seed, "masks"))
        return TiedModel(own, self.layers, masks=masks * times)


@dataclass(frozen=True)
class UntiedLayers(AbstractDefence):
    """``layers`` cells with weights of their own (:class:`jiio.models.UntiedModel`)."""

    needs_equilibrium = True
    explicit = True

    layers: int = 6

    def __post_init__(self) -> None:
        whole("UntiedLayers.layers", self.layers, 1, 1000)

    def network(self, model: nn.Module) -> nn.Module:
        remedy = "Put UntiedLayers first in the list of defences."
        own = check_instance("model", model, jiio.EquilibriumModel)
        return UntiedModel(check_instance("model.config", own.config, ModelConfig, remedy), self.layers)
