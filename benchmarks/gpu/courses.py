"""Does it learn there? Short trainings whose figure is known from a CPU, and how many steps a second they make."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.gpu.checks import quiet
from benchmarks.gpu.recipes import recipe
from benchmarks.gpu.stages import Setting, Work
from benchmarks.tables import Row
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.loop import train

OFFLINE = {"classify-faces": 100, "generate-faces": 200, "restore-faces": 200}  # recipe -> steps


def learnt(name: str, setting: Setting) -> Row:
    """The first row of figures after a training as the recipe has it, and its speed."""
    steps, folder = 4 if setting.fast else OFFLINE[name], setting.folder / f"course-{name}"
    resume = folder.exists()
    config = recipe(name, small=setting.fast, steps=steps, output=str(folder), device=str(setting.device))
    begin = time.monotonic()
    checkpoint = train(config, resume=resume, report=quiet)
    spent = time.monotonic() - begin
    first = {k: v for k, v in evaluate(checkpoint)[0].items() if isinstance(v, float)}
    return (
        {"steps": checkpoint.step}
        | ({} if resume else {"steps a second": steps / spent})
        | dict(list(first.items())[:3])
    )


def courses() -> dict[str, Work]:
    """Name -> one row."""
    return {name: partial(learnt, name) for name in OFFLINE}
