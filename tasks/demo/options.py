"""The options of ``jiio demo``, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jiio.tasks.frame.options import check_seed

FILES = (
    *("photo.webp", "photo.png", "attack.gif", "attack.png", "joint.gif", "restored.png", "convergence.png"),
    *("strip.png", "figures.json", "index.html"),
)
MARK = "<!-- This page was written by jiio demo, which may replace it and the files beside it. -->"


@dataclass(frozen=True)
class DemoOptions:
    """How the demonstration is made, and where.

    Args:
        fast: use the weights that come with jiio instead of training
        output: folder for the pictures and the report; those of an earlier demo are replaced
        seed: of everything random
        device: cpu, cuda, cuda:0, auto (a GPU where there is one)
        overwrite: replace other files of the same names as well
    """

    fast: bool = False
    output: Path = Path("jiio-demo")
    seed: int = 0
    device: str = "cpu"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
