"""The options of ``jiio attack``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jiio.checks import check_choice, check_integer, check_number, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.options import check_seed, check_threads

SUITES = ("standard", "autoattack", "deq")


@dataclass(frozen=True)
class AttackOptions:
    """How a classifier is attacked, and what is written of it.

    Args:
        checkpoint: a checkpoint of a classifier, the folder of its training, or shipped weights
        norm: linf, l2 or l1 (default: that of the training's threat)
        radius: of the ball around an image with values in [0, 1] (default: as --norm)
        suite: standard, autoattack (the original one; extra attacks), or deq
        samples: only the first so many test images; 0 takes all
        batch: images that are attacked together
        curve: multiples of the radius at which the accuracy is wanted as well
        seed: of everything random
        report: write a page with curves and pictures to this .html file
        json: write all figures, sample by sample, to this file
        state: folder of the finished batches, from which a killed run goes on (default: beside --report or --json)
        overwrite: replace files that exist; what is given, never
        no_audit: leave out the checks whether the figure can be believed
        data_root: folder of the data sets (default: JIIO_DATA)
        device: cpu, cuda, cuda:0, mps (default: the training's)
        threads: CPU threads (default: the training's)
    """

    checkpoint: str
    norm: str | None = None
    radius: float | None = None
    suite: str = "standard"
    samples: int = 200
    batch: int = 100
    curve: tuple[float, ...] = ()
    seed: int = 0
    report: Path | None = None
    json: Path | None = None
    state: Path | None = None
    overwrite: bool = False
    no_audit: bool = False
    data_root: Path | None = None
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        self._check_threat()
        check_choice("--suite", self.suite, SUITES)
        check_integer("--samples", self.samples, 0)
        check_integer("--batch", self.batch, 1)
        for multiple in self.curve:
            check_number("--curve", multiple, 0.0, open_low=True)
        check_seed(self.seed)
        check_threads(self.threads)

        self._check_names()

    def _check_threat(self) -> None:
        if self.norm is not None:
            check_choice("--norm", self.norm, ("linf", "l2", "l1"))
        if self.radius is not None:
            check_number("--radius", self.radius, 0.0, open_low=True)

    def _check_names(self) -> None:
        """Each kind of file is told by the end of its name, so a slip would write figures into a page."""
        if self.report is not None and self.report.suffix != ".html":
            remedy = "For figures there is --json."
            fail("--report", "a file whose name ends in .html", f"{self.report}", remedy, InputError)
        if self.json is not None and self.json.suffix == ".html":
            fail(
                "--json",
                "a name that does not end in .html",
                f"{self.json}",
                "For a page there is --report.",
                InputError,
            )

    @property
    def folder(self) -> Path | None:
        """Of the finished batches; where none is named it stands beside what is written, and goes at the end."""
        written = self.report or self.json
        return self.state or (None if written is None else written.with_name(f"{written.name}.state"))
