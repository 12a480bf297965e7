"""Which network a segmentation trains: two heads on one equilibrium, or on a plain convolutional network beside it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from jiio.models import ClassifierHead, DenseHead, ModelConfig, SceneScores, TwoHeads, build
from jiio.tasks.frame.choices import Choice
from jiio.tasks.solving.networks import ReferenceConfig, SolvedConfig, nearest

from .data import SegmentDataConfig


class PlainSegmenter(nn.Module):
    """x (B, C, H, W) -> :class:`SceneScores`: three stages of two 3x3 convolutions with group norm, the last two begin
    with stride 2; under the heads of the equilibrium network, on the maps of all stages.
    """

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.stages = nn.ModuleList()
        for i, (source, target) in enumerate(zip((channels, *widths), widths, strict=False)):
            layers: list[nn.Module] = []
            for a, stride in ((source, 1 if i == 0 else 2), (target, 1)):
                layers += [nn.Conv2d(a, target, 3, stride, 1, bias=False), nn.GroupNorm(4, target), nn.ReLU()]
            self.stages.append(nn.Sequential(*layers))
        inner = (width // 2, width // 2, width // 2)
        image = ClassifierHead(widths, classes, head_channels=inner, final_channels=4 * width, groups=4)
        self.heads = TwoHeads(image, DenseHead(widths, classes))

    def forward(self, x: Tensor) -> SceneScores:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.heads(tuple(maps))


def plain_segmenter(config: ReferenceConfig, channels: int, classes: int) -> PlainSegmenter:
    """The network whose number of parameters comes nearest to the configuration's."""
    return nearest(config, lambda width: PlainSegmenter(width, channels, classes))


@dataclass(frozen=True)
class SegmentNetworkConfig(SolvedConfig):
    """The network.

    Args:
        cell: Conv, Multiscale, or Reference (a plain convolutional network), and its sizes
        solver: how the equilibrium is solved
        adjoint: how it is differentiated
        atol: absolute tolerance of the residual, of the equilibrium and of its adjoint system
        rtol: relative tolerance of the residual, of the equilibrium and of its adjoint system
        max_steps: steps after which a solve ends without convergence
    """

    cell: Choice = Choice(
        "Multiscale",
        {
            "channels": [16, 24, 32],
            "expansion": 2,
            "groups": 4,
            "halvings": 1,
            "head_channels": [4, 6, 8],
            "final_channels": 64,
        },
    )

    def plan(self, data: SegmentDataConfig) -> ModelConfig | ReferenceConfig:
        """What the network for these images is made from; raises where the two do not fit."""
        cell = self.cell.make("network", "model.cell")
        if isinstance(cell, ReferenceConfig):
            return cell
        classes = len(data.names)
        return ModelConfig(cell, data.shape, "both", (classes, classes))

    def build(self, data: SegmentDataConfig) -> nn.Module:
        """A freshly initialised network, x (B, C, H, W) -> :class:`SceneScores`."""
        plan = self.plan(data)
        if isinstance(plan, ReferenceConfig):
            return plain_segmenter(plan, data.channels, len(data.names))
        return build(plan, **self.arguments())
