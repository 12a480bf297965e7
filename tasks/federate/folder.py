"""What a federation leaves: a checkpoint after every round, its figures as a table, the last weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from torch import nn

from jiio.checks import CheckpointError, JiioError, fail
from jiio.outputs.atomic import write_whole
from jiio.tasks.frame import checkpoint as files
from jiio.tasks.frame.choices import paths_of
from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.files import InputError, read_bytes
from jiio.tasks.frame.place import WEIGHTS
from jiio.tasks.frame.terminal import say

from .plan import STATELESS, Federation
from .rounds import Row

ROUNDS = "rounds.json"
MOST_BYTES = 64 << 20


class FederationFolder:
    """The output of a federation, held by its lock."""

    def __init__(self, plan: Federation, config: RunConfig) -> None:
        self.plan, self.config = plan, plan.course(config)
        self.path, self.digest = Path(config.output), plan.digest(config)
        self.rows: list[Row] = []

    def begin(self, model: nn.Module, *, resume: bool) -> int:
        """Rounds that are done; their weights are put into the model.

        Errors: JiioError where the folder holds a training that is not gone on with, or another one than this.
        """
        # Nothing of another training is written over.
        if not resume:
            if files.checkpoints(self.path) or (self.path / WEIGHTS).exists() or (self.path / ROUNDS).exists():
                came = f"{self.path}, which holds one"
                remedy = "Pass --resume to continue it, or another --output."
                fail("output", "a folder without a training", came, remedy, InputError)
            return 0
        if self.plan.strategy not in STATELESS:
            came = f"{self.plan.strategy}, whose momentum is in no checkpoint"
            fail(
                "--resume",
                f"a strategy that goes on from weights alone ({', '.join(STATELESS)})",
                came,
                error=InputError,
            )

        # The table is written before the weights of its last line, so it may be one line ahead.
        rows = self._rows()
        start = files.load_newest(self.path, say, allow=paths_of(self.config))
        if start is None:
            return 0
        start.restore_model(model)
        done = start.step // self.plan.local_steps
        self.rows = rows[:done]
        return done

    def _rows(self) -> list[Row]:
        """The figures so far, of this very federation. Errors: CheckpointError."""
        path = self.path / ROUNDS
        if not path.exists():
            return []
        try:
            found = json.loads(read_bytes("output", path, "a table of rounds", MOST_BYTES))
            digest, rows = str(found["digest"]), [dict(row) for row in found["rounds"]]
        except JiioError:
            raise
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            fail("output", "the table of a federation", f"{path}, which is none", error=CheckpointError)
            raise AssertionError from error
        if digest != self.digest:
            remedy = "Restore recipe and options to continue, or train into another --output."
            fail("--resume", "the federation that was begun", f"{path}, of another one", remedy, CheckpointError)
        return rows

    def save(self, number: int, row: Row, model: nn.Module) -> None:
        """The figures and weights after a round."""
        self.rows.append(row)
        about = {"digest": self.digest, "plan": dataclasses.asdict(self.plan), "rounds": self.rows}
        write_whole(self.path / ROUNDS, json.dumps(about, indent=1).encode() + b"\n")
        step = number * self.plan.local_steps
        saved = files.save(files.name_of(self.path, step), step, self.config, model)
        files.prune(self.path, self.config.keep, saved.path)

    def finish(self, model: nn.Module) -> Path:
        """The weights after all rounds."""
        files.save(self.path / WEIGHTS, self.config.steps, self.config, model)
        return self.path / WEIGHTS
