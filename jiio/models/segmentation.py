"""Two heads on one equilibrium: the class of the image and the class of every pixel, from the same z*.

Multiscale deep equilibrium networks keep all resolutions in their state, so one model serves both tasks (Bai, Koltun
and Kolter 2020, section 4). The map is :class:`DenseHead`: every scale brought to the finest, side by side, 1x1
convolutions to the classes.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from ..checks import check_instance


class SceneScores(NamedTuple):
    """What two heads say. image: scores of the classes of the image (B, labels). pixels: of each pixel (B, classes, H,
    W).
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

    def forward(self, z: Tensor | tuple[Tensor, ...]) -> SceneScores:
        """z: a feature map or a tuple of them."""
        return SceneScores(self.image(z), self.pixels(z))
