"""The training loop.

Whatever is trained is a task object; the loop owns the steps, the optimiser, the checkpoints and the log. A step is a
pure function of the weights, the optimiser's state and (seed, step), so a run that was killed at any moment and resumed
ends in the same weights, bit for bit, as one that was left alone (same machine, versions and number of threads; on a
GPU as far as its kernels are deterministic).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from jiio.checks import CheckpointError, JiioError, check_instance, fail
from jiio.outputs.lock import locked
from jiio.outputs.seeds import derive

from . import checkpoint as files
from .checkpoint import Checkpoint
from .choices import paths_of
from .config import FREE_ON_RESUME, OptimiserConfig, RunConfig
from .files import check_output_folder
from .interrupt import Interruption, TrainingInterrupted
from .keeper import Keeper, check_validated
from .logs import AbstractLogger, JsonLinesLogger
from .machine import check_device, cpu_threads, versions
from .place import WEIGHTS, Place, enter
from .task import AbstractTask, build_task, name_of


class TrainingError(JiioError, RuntimeError):
    """The training cannot go on."""


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    data_root: Path | None = None,
    task: AbstractTask | None = None,
    report: Callable[[str], None] | None = None,
    resume_hint: str = "Run it again with resume=True to continue.",
) -> Checkpoint:
    """Train; write checkpoints, ``log.jsonl`` and ``weights.safetensors`` into ``config.output``.

    Returns the last checkpoint.

    resume: continue from the newest checkpoint in the folder, or begin where there is none. task: instead of the one
    the configuration names. report: takes lines of news (default: standard error). resume_hint: said after Ctrl-C.

    Errors: JiioError, one sentence; nothing is written before everything was checked, and nothing into a folder that
    another training holds. TrainingInterrupted after Ctrl-C.
    """
    report = report or _to_stderr
    folder = check_output_folder("output", Path(config.output))
    device = check_device(config.device)
    handed = None if task is None else check_handed(task, config)
    task = task or build_task(config, data_root=data_root)
    check_validated(task, config)
    loggers = [JsonLinesLogger(), *(choice.make("logger", f"loggers[{i}]") for i, choice in enumerate(config.loggers))]

    # What is in the folder is looked at under the lock, so that it is still true when the first file is written.
    with locked(folder, "output"):
        start = find_start(config, folder, resume, report, handed)
        place = enter(folder, task.PICTURES, begun=start is not None)
        record = Record(config, folder, loggers, 0 if start is None else start.step, handed)
        with cpu_threads(config.threads), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return run(record, place, task, start, device, resume_hint)


def run(
    record: Record, place: Place, task: AbstractTask, start: Checkpoint | None, device: torch.device, resume_hint: str
) -> Checkpoint:
    """The training in a folder that is held and clear: what is left of it, its weights, its pictures."""
    config = record.config
    model, optimiser = begin(config, task, start, device)
    place.clean(task.PICTURES)
    keeper = Keeper(config, task, model, record.folder, start, record.handed)
    last = go_on(record, task, model, optimiser, keeper, resume_hint) or start

    # Pictures last: where weights are missing, the next run knows that no picture is its own.
    with keeper.applied():
        files.save(record.folder / WEIGHTS, config.steps, config, model, handed=record.handed)
        for name, picture in task.pictures(model.eval()).items():
            place.write(name, picture)
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
    resume_hint: str,
) -> Checkpoint | None:
    """The steps that are left; the last checkpoint, None where no step was left."""
    config, last = record.config, None
    if record.done >= config.steps:
        return None

    with Interruption() as interruption, record:
        for step in range(record.done, config.steps):
            figures, done = training_step(config, task, model, optimiser, step), step + 1
            record.log(step, figures | keeper.after(done))
            if interruption.code or done % config.checkpoint_every == 0 or done == config.steps:
                last = record.save(done, model, optimiser, keeper.tensors)
            # After a checkpoint, and not where this was the last step: then the training simply ends.
            if interruption.code and done < config.steps:
                message = f"Interrupted after step {done} of {config.steps}, saved in {record.folder}. {resume_hint}"
                raise TrainingInterrupted(message, interruption.code)
    return last


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


class Record:
    """Everything a training leaves while it runs: log lines, the progress bar, checkpoints."""

    def __init__(
        self, config: RunConfig, folder: Path, loggers: list[AbstractLogger], done: int, handed: str | None
    ) -> None:
        self.config, self.folder, self.loggers = config, folder, loggers
        self.done, self.handed = done, handed

    def __enter__(self) -> Record:
        from tqdm import tqdm

        self.folder.mkdir(parents=True, exist_ok=True)
        for logger in self.loggers:
            logger.start(self.folder, self.done)
        # disable=None: no bar where standard error is not a terminal
        self.bar = tqdm(total=self.config.steps, initial=self.done, desc=self.config.task, disable=None)
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        for logger in self.loggers:
            logger.close()

    def log(self, step: int, figures: dict[str, float]) -> None:
        """The figures of one step."""
        for logger in self.loggers:
            logger.log(step, figures)
        self.bar.set_postfix(loss=f"{figures['loss']:.4g}", refresh=False)
        self.bar.update()

    def save(
        self, done: int, model: nn.Module, optimiser: torch.optim.Optimizer, extra: dict[str, torch.Tensor]
    ) -> Checkpoint:
        """A checkpoint after ``done`` steps. The log reaches the disk first: no checkpoint without its lines."""
        for logger in self.loggers:
            logger.flush()
        path = files.name_of(self.folder, done)
        saved = files.save(path, done, self.config, model, optimiser, handed=self.handed, extra=extra)
        files.prune(self.folder, self.config.keep, saved.path)
        return saved


def training_step(
    config: RunConfig, task: AbstractTask, model: nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> dict[str, float]:
    """One update of the weights; everything random in it follows from (seed, step)."""
    torch.manual_seed(derive(config.seed, "step", step))
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config.optimiser, step, config.steps)
    optimiser.zero_grad(set_to_none=True)

    # Both are looked at before the weights move: the last checkpoint stays the last good state.
    with task.lowered(model):
        loss, figures = task.loss(model, step)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"step {step}: the loss is {value}. {ADVICE}")
    loss.backward()
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip))
    if not math.isfinite(norm):
        raise TrainingError(f"step {step}: the norm of the gradient is {norm}. {ADVICE}")

    optimiser.step()
    told = {name: figure() if callable(figure) else figure for name, figure in figures.items()}
    return {"loss": value, "gradient_norm": norm, "rate": optimiser.param_groups[0]["lr"], **told}


ADVICE = "Lower optimiser.rate, or begin again with another seed; the last checkpoint stands."


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """A linear rise over the first ``warmup`` steps, then half a cosine from ``rate`` down to ``final_rate``."""
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    through = (step - config.warmup) / (steps - config.warmup)
    return config.final_rate + (config.rate - config.final_rate) * 0.5 * (1.0 + math.cos(math.pi * through))


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Adam, with decoupled weight decay where it is above zero; the schedule sets the rate before every step."""
    return torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.weight_decay)


def check_same(config: RunConfig, start: Checkpoint, report: Callable[[str], None], handed: str | None) -> None:
    """A checkpoint can be continued by its own task and configuration only; other versions are allowed, and said."""
    if start.handed != handed:
        own = "that of the configuration"
        expected = f"the task that {start.path} was trained with, {start.handed or own}"
        fail("task", expected, handed or own, error=CheckpointError)
    difference = files.differing(config, start.config, FREE_ON_RESUME)
    if difference:
        remedy = "Restore the setting to continue, or train into another --output."
        raise CheckpointError(f"resume: {start.path} belongs to another configuration, {difference}. {remedy}")
    now = versions()
    changed = [f"{key} {start.versions.get(key)} -> {now[key]}" for key in now if start.versions.get(key) != now[key]]
    if changed:
        report(f"{start.path}: written under other versions ({', '.join(changed)}), so not continued bit for bit.")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
