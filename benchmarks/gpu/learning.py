"""A training step of the image prior, eager and as one launch."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.recipes import recipe
from benchmarks.gpu.stages import Setting, judged
from benchmarks.tables import Row
from jiio.recording import forget_records, recorded_steps
from jiio.recording.store import STORE
from jiio.tasks.frame.step import build_optimiser, training_step
from jiio.tasks.frame.task import build_task

LENGTH = {"low": 4, "high": 4}  # unrolled iterations: a fixed number, so that every step costs the same


def prior_step(setting: Setting) -> Row:
    """Milliseconds of a whole training step: patches, loss, gradient, optimiser."""
    changes: dict[str, Any] = {"device": str(setting.device), "output": str(setting.folder / "timed"), "unroll": LENGTH}
    if not setting.fast:
        changes |= {"data": {"families": ["photos"], "size": 96, "batch_size": 32}}
        changes |= {"model": {"channels": 1, "features": 64, "wide": 160, "depth": 4}}

    # A training that is never written.
    config = recipe("prior-grey", small=setting.fast, **changes)
    task = build_task(config)
    model = task.model().to(setting.device).train()
    optimiser, few = build_optimiser(model, config.optimiser), 3 if setting.fast else 20

    # The whole step, eager and recorded.
    spent: dict[str, float] = {}
    for when in ("never", "always"):
        with recorded_steps(when):
            spent[when] = setting.timed(lambda: training_step(config, task, model, optimiser, 0), few, warm=3)
    refused = list(STORE.refused.values())
    forget_records()
    row: Row = {"eager ms": spent["never"], "recorded ms": spent["always"]}
    row["recorded / eager"] = spent["always"] / spent["never"]
    if refused:
        return row | {"verdict": "not recorded", "why": refused[0]}
    return judged(row, setting, row["recorded / eager"] <= 0.5)
