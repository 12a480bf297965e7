"""The options of ``jiio fit``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jiio.checks import check_choice, check_integer, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.options import check_seed, check_threads

WAYS = ("whole", "tiles")
MOST_RESTARTS = 100


@dataclass(frozen=True)
class FitOptions:
    """Which picture is fitted, by which generator, and how.

    Args:
        picture: a picture of any size, colour or grey
        checkpoint: of a generator: a file, the folder of a training, or shipped weights
        output: folder for the results (default: photo-fit/ beside photo.png)
        how: whole: the middle square, at the generator's size; tiles: every part (default: as it was trained)
        restarts: further starts of every fit, 0 to 100
        max_steps: steps of a solve at most
        seed: of the further starts
        device: cpu, cuda, cuda:0, auto (a GPU where there is one)
        threads: CPU threads (default: torch's choice)
        overwrite: replace results that exist; the picture itself, never
    """

    picture: Path
    checkpoint: str = "generate-patches"
    output: Path | None = None
    how: str | None = None
    restarts: int = 2
    max_steps: int = 200
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if check_integer("--restarts", self.restarts, 0) > MOST_RESTARTS:
            fail("--restarts", f"at most {MOST_RESTARTS}", str(self.restarts), error=InputError)
        check_integer("--max-steps", self.max_steps, 2)
        check_seed(self.seed)
        check_threads(self.threads)
        if self.how is not None:
            check_choice("--how", self.how, WAYS)

    @property
    def folder(self) -> Path:
        """Of the results."""
        return self.output or self.picture.with_name(f"{self.picture.stem}-fit")
