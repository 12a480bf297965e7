"""The server: rounds in a folder that is held, with clients in this process or behind a port."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from jiio.outputs.lock import locked
from jiio.outputs.seeds import derive
from jiio.tasks.frame.choices import paths_of
from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.files import check_output_folder
from jiio.tasks.frame.loop import begin_with
from jiio.tasks.frame.machine import check_device, cpu_threads
from jiio.tasks.frame.task import AbstractTask, build_task
from jiio.tasks.frame.terminal import say

from .client import everybody
from .flower import gathered
from .folder import FederationFolder
from .options import FederateOptions
from .processes import started
from .rounds import Rounds, Row
from .wire import check_free, free_address, serve

SHOWN = ("round", "clients", "lost", "megabytes", "loss", "evaluations", "accuracy")


def lead(options: FederateOptions, config: RunConfig, argv: Sequence[str]) -> int:
    """All rounds. argv: the command line, which clients as processes repeat."""
    folder = check_output_folder("output", Path(config.output))
    if options.listen is not None:
        check_free("--listen", options.listen)
    task = build_task(config, data_root=options.data_root)
    task.examples()  # whether they can be shared out at all is told before anything is written

    with locked(folder, "output"), cpu_threads(config.threads), torch.random.fork_rng(devices=[]):
        rounds, kept, done = begun(options, config, task)
        if done < rounds.plan.rounds:
            go(options, argv, rounds, kept, done)
        say(f"Trained {rounds.plan.rounds} rounds; weights in {kept.finish(rounds.model)}.")
    return 0


def begun(options: FederateOptions, config: RunConfig, task: AbstractTask) -> tuple[Rounds, FederationFolder, int]:
    """The rounds, their folder, and how many of them are done."""
    plan = options.plan()
    torch.manual_seed(derive(config.seed, "model"))
    model = task.model().to(check_device(config.device))

    # The weights of the last round, of another training, or random ones.
    kept = FederationFolder(plan, config)
    done = kept.begin(model, resume=options.resume)
    if not done and config.start is not None:
        begin_with(config.start, model, paths_of(config))
    apart = bool(options.processes or options.listen)
    settings = {"patience": options.patience, "evaluate_every": options.evaluate_every, "at_once": apart}
    return Rounds(plan, config, task, model, report=say, **settings), kept, done


def saver(rounds: Rounds, kept: FederationFolder) -> Callable[[int, Row], None]:
    """What is done after every round: files, and a line of news."""

    def save(number: int, row: Row) -> None:
        kept.save(number, row, rounds.model)
        say(", ".join(f"{key} {row[key]:.4g}" for key in SHOWN if key in row))

    return save


def go(options: FederateOptions, argv: Sequence[str], rounds: Rounds, kept: FederationFolder, done: int) -> None:
    """The rounds that are left."""
    save = saver(rounds, kept)
    if not rounds.at_once:
        rounds.run(gathered(everybody(rounds.plan, rounds.config, rounds.task), kept.digest), done, save)
        return

    # Clients of ours, or whoever comes to the port.
    address = options.listen or free_address()
    with contextlib.ExitStack() as stack:
        if options.processes:
            stack.enter_context(started(argv, rounds.plan.clients, address))
        serve(address, lambda manager: rounds.run(manager, done, save))
