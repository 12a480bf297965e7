"""The training loop.

Whatever is trained is a task object; the loop owns the steps, the optimiser, the checkpoints and the log. A step is a
pure function of the weights, the optimiser's state and (seed, step), so a run that was killed at any moment and resumed
ends in the same weights, bit for bit, as one that was left alone (same machine, versions and number of threads; on a
GPU as far as its kernels are deterministic).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from jiio.checks import CheckpointError, check_instance, fail
from jiio.outputs.lock import locked
from jiio.outputs.seeds import derive

from . import checkpoint as files
from .checkpoint import Checkpoint
from .choices import paths_of
from .config import FREE_ON_RESUME, RunConfig
from .files import as_path, check_output_folder
from .interrupt import Interruption, TrainingInterrupted
from .keeper import Keeper, check_validated
from .logs import AbstractLogger, JsonLinesLogger
from .machine import check_device, cpu_threads, versions
from .parts import check_divisible
from .place import WEIGHTS, Place, enter
from .ranks import Ranks, joined
from .record import Record, Witness
from .step import TrainingError, build_optimiser, training_step
from .task import AbstractTask, build_task, name_of


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    data_root: str | Path | None = None,
    task: AbstractTask | None = None,
    report: Callable[[str], None] | None = None,
    resume_hint: str = "Run it again with resume=True to continue.",
) -> Checkpoint:
    """Train; write checkpoints, ``log.jsonl`` and ``weights.safetensors`` into ``config.output``.

    Returns the last checkpoint.

    config: what is trained, from the data to the files it leaves. data_root: the folder of data sets; None for what the
    environment variable ``JIIO_DATA`` says. resume: continue from the newest checkpoint in the folder, or begin where
    there is none. task: instead of the one the configuration names. report: takes lines of news (default: standard
    error). resume_hint: said after Ctrl-C.

    Errors: JiioError, one sentence; nothing is written before everything was checked, and nothing into a folder that
    another training holds. TrainingInterrupted after Ctrl-C.
    """
    report = report or _to_stderr
    check_instance("config", config, RunConfig, "Such as jiio.tasks.RestoreConfig(output=...).")
    folder = check_output_folder("output", Path(config.output))
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(joined(config.device))
        device = check_device(config.device)
        handed = None if task is None else check_handed(task, config)
        root = None if data_root is None else as_path("data_root", data_root)
        task = task or build_task(config, data_root=root)
        check_validated(task, config)

        # What is in the folder is looked at under the lock, so that it is still true when the first file is written.
        # One rank does it for all: the others may not even see the disk.
        def entered() -> tuple[Checkpoint | None, Place]:
            stack.enter_context(locked(folder, "output"))
            start = find_start(config, folder, resume, report, handed)
            return start, enter(folder, task.PICTURES, begun=start is not None)

        loggers = chosen_loggers(config) if ranks.leads else []
        start, place = ranks.first(entered)
        done = 0 if start is None else start.step
        record = Record(config, place, loggers, done, handed, report)
        stack.enter_context(cpu_threads(config.threads))
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        return run(
            record if ranks.leads else Witness(config, place, done, handed), task, start, device, ranks, resume_hint
        )


def chosen_loggers(config: RunConfig) -> list[AbstractLogger]:
    """The log file, and whatever the configuration names."""
    return [JsonLinesLogger(), *(choice.make("logger", f"loggers[{i}]") for i, choice in enumerate(config.loggers))]


def run(
    record: Record, task: AbstractTask, start: Checkpoint | None, device: torch.device, ranks: Ranks, resume_hint: str
) -> Checkpoint:
    """The training in a folder that is held and clear: what is left of it, its weights, its pictures."""
    config = record.config
    model, optimiser = begin(config, task, start, device)
    check_divisible(model, ranks.count * config.accumulate)
    record.clean(task)
    keeper = Keeper(config, task, model, record, start)
    last = go_on(record, task, model, optimiser, keeper, ranks, resume_hint) or start

    # Pictures last: where weights are missing, the next run knows that no picture is its own.
    with keeper.applied():
        record.finish(model)
        ranks.told(None)  # nobody goes on before the weights are there
        record.draw(task, model)
    assert last is not None  # config.steps is at least 1
    return last


def begin(
    config: RunConfig, task: AbstractTask, start: Checkpoint | None, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model and its optimiser as they are before the next step."""
    torch.manual_seed(derive(config.seed, "model"))
    model = task.model().to(device).train()
    optimiser = build_optimiser(model, config.optimiser)
    if start is not None:
        start.restore_model(model)
        start.restore_optimiser(model, optimiser)
    elif config.start is not None:
        begin_with(config.start, model, paths_of(config))
    return model, optimiser


def go_on(
    record: Record,
    task: AbstractTask,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    keeper: Keeper,
    ranks: Ranks,
    resume_hint: str,
) -> Checkpoint | None:
    """The steps that are left; the last checkpoint, None where no step was left."""
    config, last = record.config, None
    if record.done >= config.steps:
        return None

    with Interruption() as interruption, record:
        for step in range(record.done, config.steps):
            figures, done = training_step(config, task, model, optimiser, step, ranks), step + 1
            record.log(step, figures | keeper.after(done))
            code = ranks.agreed(interruption.code)
            if code or done % config.checkpoint_every == 0 or done == config.steps:
                check_together(model, ranks, done)
                last = record.save(done, model, optimiser, keeper.tensors)
            # After a checkpoint, and not where this was the last step: then the training simply ends.
            if code and done < config.steps:
                message = f"Interrupted after step {done} of {config.steps}, saved in {record.folder}. {resume_hint}"
                raise TrainingInterrupted(message if ranks.leads else "", code)
    return last


def check_together(model: nn.Module, ranks: Ranks, done: int) -> None:
    """All ranks have the same weights to the last bit, so that it does not matter whose are saved.

    Errors: TrainingError.
    """
    if ranks.count == 1:
        return
    sums = [float(t.double().sum()) for t in model.state_dict().values()]
    apart = [i for i, other in enumerate(ranks.gathered(sums)) if other != sums]
    if apart:
        raise TrainingError(
            f"step {done}: expected the same weights on all {ranks.count} ranks, but those of rank {apart[0]} differ. "
            "Train on machines of one kind, with the same versions; the checkpoint before stands."
        )


def check_handed(task: AbstractTask, config: RunConfig) -> str:
    """The name of a task object that stands in for the configuration's, to be kept with the checkpoints."""
    check_instance("task", task, AbstractTask)
    if difference := files.differing(config, task.config, FREE_ON_RESUME):
        fail("task", "a task of the configuration that is trained", f"one of another ({difference})")
    return name_of(task)


def find_start(
    config: RunConfig, folder: Path, resume: bool, report: Callable[[str], None], handed: str | None
) -> Checkpoint | None:
    """The checkpoint to go on from, None to begin; refuses to write over a training, or to go on with another one."""
    if not resume:
        if files.checkpoints(folder) or (folder / WEIGHTS).exists():
            came = f"{folder}, which holds one"
            fail("output", "a folder without a training", came, "Pass --resume to continue it, or another --output.")
        return None

    start = files.load_newest(folder, report, allow=paths_of(config))
    if start is not None:
        check_same(config, start, report, handed)
        report(f"{folder}: {start.step} of {config.steps} steps are done.")
        return start

    # Weights alone are the end of a training whose checkpoints have gone, and worth as much.
    if (folder / WEIGHTS).exists():
        came = f"{folder}, which has {WEIGHTS} alone"
        fail("output", "a folder with checkpoints to resume from", came, "Train into another --output.")
    report(f"{folder}: no checkpoint to resume from, so the training begins at step 0.")
    return None


def begin_with(word: str, model: nn.Module, allow: Iterable[str] = ()) -> None:
    """Weights of another training, in place: for fine-tuning. Steps and optimiser begin anew."""
    from .shipped import shipped

    other = files.load(shipped("start", word, "weights", ".safetensors"), allow=allow)
    try:
        other.restore_model(model)
    except CheckpointError:
        remedy = f"Copy the sizes from its configuration, a training of the task {other.config.task!r}."
        fail("start", "weights that fit the model of this configuration", str(other.path), remedy, CheckpointError)


def check_same(config: RunConfig, start: Checkpoint, report: Callable[[str], None], handed: str | None) -> None:
    """A checkpoint can be continued by its own task and configuration only; other versions are allowed, and said."""
    if start.handed != handed:
        own = "that of the configuration"
        expected = f"the task that {start.path} was trained with, {start.handed or own}"
        fail("task", expected, handed or own, error=CheckpointError)
    # More steps than were planned are no other training, but another schedule from here on.
    more = config.steps > start.config.steps
    difference = files.differing(config, start.config, (*FREE_ON_RESUME, "steps") if more else FREE_ON_RESUME)
    if difference:
        remedy = "Restore the setting to continue, or train into another --output."
        raise CheckpointError(f"resume: {start.path} belongs to another configuration, {difference}. {remedy}")
    if more:
        told = f"{start.config.steps} steps were planned, {config.steps} are now"
        report(f"{start.path}: {told}; from here on the rate follows the schedule of {config.steps}.")
    now, then = versions(), {"ranks": 1, **start.versions}
    changed = [f"{key} {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]]
    if changed:
        report(f"{start.path}: written under other versions ({', '.join(changed)}), so not continued bit for bit.")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
