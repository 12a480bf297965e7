"""Loggers that hand the figures to a service: Weights & Biases, and MLflow. Neither is needed for anything else.

Both know a training again when it is resumed: the number that the service gave the run stands in ``run-of-SERVICE.txt``
in the folder of the training.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from jiio.checks import JiioError
from jiio.outputs.atomic import write_whole

from .logs import AbstractLogger


class _Tracker(AbstractLogger):
    """What both have in common: the module that speaks for the service, and the number of the run."""

    MODULE = ""

    def __init__(self) -> None:
        try:
            self.service: Any = importlib.import_module(self.MODULE)
        except ImportError as error:
            name = type(self).__name__.removesuffix("Logger")
            raise JiioError(f"loggers: {name} needs {self.MODULE} ({error}). pip install {self.MODULE}") from error

    def start(self, folder: Path, step: int) -> None:
        note = folder / f"run-of-{self.MODULE}.txt"
        # What begins anew in an empty folder is another run.
        known = note.read_text(encoding="utf-8").strip() if step and note.is_file() else None
        given = self.begin(folder, known)
        if given != known:
            write_whole(note, given.encode())

    def begin(self, folder: Path, known: str | None) -> str:
        """Begin a run, or go on with a known one; its number."""
        raise NotImplementedError

    def flush(self) -> None:
        """The service sends on its own account; what it has not sent yet is in the log file as well."""


class WandBLogger(_Tracker):
    """Figures to Weights & Biases.

    project: where the run is filed. name: of the run (default: the service makes one up).
    """

    MODULE = "wandb"

    def __init__(self, project: str = "jiio", name: str | None = None) -> None:
        super().__init__()
        self.project, self.name = project, name

    def begin(self, folder: Path, known: str | None) -> str:
        self.run = self.service.init(
            project=self.project, name=self.name, id=known, resume="allow" if known else None, dir=str(folder)
        )
        return self.run.id

    def log(self, step: int, figures: dict[str, float]) -> None:
        # Steps that a resumed training does again were sent already; the service passes over them.
        self.run.log(figures, step=step)

    def close(self) -> None:
        self.run.finish()


class MLflowLogger(_Tracker):
    """Figures to MLflow, where MLFLOW_TRACKING_URI says or into the folder mlruns.

    experiment: where the run is filed. name: of the run.
    """

    MODULE = "mlflow"

    def __init__(self, experiment: str = "jiio", name: str | None = None) -> None:
        super().__init__()
        self.experiment, self.name = experiment, name

    def begin(self, folder: Path, known: str | None) -> str:
        self.service.set_experiment(self.experiment)
        return self.service.start_run(run_id=known, run_name=None if known else self.name).info.run_id

    def log(self, step: int, figures: dict[str, float]) -> None:
        self.service.log_metrics(figures, step=step)

    def close(self) -> None:
        self.service.end_run()
