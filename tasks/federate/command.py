"""``jiio federate``: a recipe trained by clients that keep their data, in this process, in several, or over a port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from jiio.tasks.frame.options import chosen, declare, left
from jiio.tasks.frame.terminal import say

from .options import FederateOptions

if TYPE_CHECKING:
    from jiio.tasks.frame.config import RunConfig


def declare_federate(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options, and every key of the configuration that the command line names."""
    from jiio.tasks.frame.written import named_config

    declare(parser, FederateOptions)
    parser.add_class_arguments(named_config(argv), None)


def run_federate(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Be the server, all clients, or one of them."""
    from jiio.tasks.frame.load import build, merge, read_yaml
    from jiio.tasks.frame.registry import config_class
    from jiio.tasks.frame.shipped import shipped

    from .flower import check_installed
    from .server import lead

    options = chosen(FederateOptions, values)
    plan, own = options.plan(), left(FederateOptions, values)

    # The recipe, and whether this plan can train it; nothing is read or written before.
    path = shipped("CONFIG", options.config, "configs", ".yaml")
    keys = merge(read_yaml("CONFIG", path), own)
    config = plan.course(build(config_class(keys), keys))
    check_recipe(config, own)
    plan.config(config, options.client or 0)  # budgets and numbers that do not fit are told now
    check_installed()
    return take_part(options, config) if options.join else lead(options, config, argv)


def check_recipe(config: RunConfig, own: dict[str, Any]) -> None:
    """Nothing is asked for that rounds of averaging know nothing of. own: keys that stood on the command line.

    Errors: InputError.
    """
    from jiio.checks import fail
    from jiio.tasks.frame.files import InputError
    from jiio.tasks.frame.post import Post

    # What the rounds say already, and what only one long training has.
    if "steps" in own:
        fail("steps", "--rounds and --local-steps instead", own["steps"], error=InputError)
    for key in ("average", "validate_every"):
        if getattr(config, key):
            fail(key, "0, because what is averaged is the clients", getattr(config, key), error=InputError)
    if config.loggers:
        came = ", ".join(choice.name for choice in config.loggers)
        fail("loggers", "none; the figures of the rounds are in rounds.json", came, error=InputError)
    if Post.of().count > 1:
        fail("federate", "one process that starts its own", f"WORLD_SIZE={Post.of().count}", error=InputError)


def take_part(options: FederateOptions, config: RunConfig) -> int:
    """One client of a server elsewhere on this machine."""
    from jiio.tasks.frame.machine import cpu_threads
    from jiio.tasks.frame.task import build_task

    from .client import Client
    from .wire import join

    plan = options.plan()
    assert options.join is not None and options.client is not None
    with cpu_threads(config.threads):
        client = Client(plan, config, build_task(config, data_root=options.data_root), options.client)
        join(options.join, client, plan.digest(config), patience=options.patience)
    say(f"Client {options.client}: the server is done.")
    return 0
