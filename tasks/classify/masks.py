"""``jiio attack`` on a network that gives every pixel a class: any task with test images and masks of its own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jiio.checks import JiioError, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.terminal import say

from .options import AttackOptions, ImageOptions

if TYPE_CHECKING:
    from jiio.attacks import DenseReport
    from jiio.tasks.frame.checkpoint import Checkpoint

    from .victim import Asked

# What this kind of attack does not have; whoever names it would wait for something that does not come.
OTHERS = ("suite", "attack", "curve", "save", "state", "shard", "no_audit", "corruptions")
IMAGES = ("data", "size", "channels", "bounds")


def gives_masks(word: str) -> bool:
    """Whether this is a checkpoint of a task whose network gives every pixel a class."""
    from jiio.tasks.frame.checkpoint import load
    from jiio.tasks.frame.shipped import shipped
    from jiio.tasks.frame.task import overrides, task_of

    try:
        return overrides(task_of(load(shipped("CHECKPOINT", word, "weights", ".safetensors"))), "masked")
    except JiioError:  # whatever is wrong is said where classifiers are read
        return False


def check_options(images: ImageOptions, options: AttackOptions) -> None:
    """Raise where an option would change nothing, or where the ball is missing."""
    for record, names in ((options, OTHERS), (images, IMAGES)):
        for name in names:
            if getattr(record, name):
                argument = f"--{name.replace('_', '-')}"
                came = "a network that gives every pixel a class"
                remedy = "In Python, jiio.attacks.evaluate_dense takes attacks and images of your own."
                fail(argument, "a classifier of whole images", came, remedy, InputError)
    if options.norm is None or options.reach is None:
        missing = "--norm" if options.norm is None else "--radius"
        fail(missing, "a norm and a radius", "none", "For example --norm linf --radius 2/255.", InputError)


def pixels_attacked(checkpoint: Checkpoint, asked: Asked, argv: Sequence[str]) -> DenseReport:
    """The report on the first test images of the training's own data."""
    _, images, options = asked
    check_options(images, options)
    import torch

    from jiio import attacks
    from jiio.tasks.frame.machine import check_device, cpu_threads
    from jiio.tasks.frame.task import build_task, task_of

    config = checkpoint.config
    device = check_device(options.device or config.device)
    x, masks = build_task(config, data_root=images.data_root).masked()
    x, masks = x[: images.limit], masks[: images.limit]
    model = task_of(checkpoint).trained(checkpoint).to(device).eval()

    # In the precision of the network, whose masks stay whole numbers.
    batches = zip(x.to(next(model.parameters()).dtype).split(images.batch), masks.split(images.batch), strict=True)
    assert options.norm is not None and options.reach is not None
    threat = attacks.ThreatModel(options.norm, options.reach)
    say(f"{checkpoint.path}: {threat.norm} radius {threat.radius:g}, {len(x)} images, every pixel.")
    mean, std = (torch.tensor(asked[0].moments[key]) if key in asked[0].moments else None for key in ("mean", "std"))
    with cpu_threads(options.threads or config.threads):
        return attacks.evaluate_dense(
            attacks.DenseTarget(model, mean=mean, std=std),
            batches,
            threat,
            seed=options.seed,
            progress=say,
            about={
                "model": str(checkpoint.path),
                "data": f"{config.task}, test images",
                "command": shlex.join(["jiio", *argv]),
            },
        )
