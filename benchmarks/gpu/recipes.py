"""Every shipped recipe as it stands, and small: a few numbers instead of many, data that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.load import build, merge, read_yaml
from jiio.tasks.frame.registry import config_class
from jiio.tasks.frame.shipped import all_shipped

DENSE = {"name": "Dense", "options": {"features": 10}}
MULTISCALE = {
    "name": "Multiscale",
    "options": {
        "channels": [4, 4],
        "expansion": 1,
        "groups": 2,
        "fusion_groups": 2,
        "head_channels": [2, 2],
        "final_channels": 4,
        "halvings": 1,
    },
}
DATA = {"family": "faces", "size": 12, "batch_size": 6, "train_limit": 24, "test_limit": 8}

GENERATE = {
    "data": DATA,
    "model": {"cell": DENSE, "latent": 4},
    "sampling": {"components": 1, "codes": 20, "samples": 10},
    "inference": {"name": "Joint", "options": {"max_steps": 12}},
}
RESTORE = {
    "data": DATA | {"batch_size": 4},
    "corruption": {"name": "BoxHole", "options": {"side": 3}},
    "model": {"cell": DENSE, "latent": 4},
    "joint": {"max_steps": 12},
}
META = {
    "data": {"family": "glyphs", "ways": 3, "queries": 2, "batch_size": 2},
    "model": {"channels": [4, 4], "features": 8, "task": 4},
    "test": {"tasks": 3, "ways": [3], "shots": [1], "queries": 2},
}
LANGUAGE = {
    "model": {"width": 8, "heads": 2, "inner": 12, "memory": 6},
    "data": {"family": "python-docs", "segment": 6, "segments": 2, "batch_size": 3, "valid_limit": 400},
    "jacobian": {"weight": 0.5, "share": 1.0},
    "solve": {"max_steps": 12},
}
PRIOR = {"data": {"families": ["photos"], "size": 16, "batch_size": 2}, "model": {"features": 4, "wide": 4, "depth": 1}}

SEGMENT = {
    "data": {"family": "scenes", "size": [12, 16], "batch_size": 2, "train_limit": 8, "test_limit": 4},
    "model": {"cell": MULTISCALE},
}
JOINT = {"name": "JointTraining", "options": {"radius": 0.5, "max_steps": 6, "settle": 2}}
MDEQ = {"data": DATA | {"shift": 1}, "model": {"cell": MULTISCALE}, "warm": {"steps": 1, "layers": 2}}
PAPER_MDEQ = ("paper-mdeq-cifar10", "paper-mdeq-cifar10-tiny", "paper-mdeq-imagenet-small", "paper-mdeq-imagenet-large")

# Recipe -> what makes it small. The keys of the recipe that are not named here stay.
SMALL: dict[str, dict[str, Any]] = {
    "adversarial-cifar": {
        "data": DATA | {"channels": 3, "family": "faces", "shift": 1},
        "model": {"cell": MULTISCALE},
        "warm": {"steps": 1, "layers": 2},
        "defence": [JOINT, {"name": "JacobianPenalty", "options": {"weight": 0.5}}],
    },
    "adversarial-mnist": {"data": DATA, "model": {"cell": DENSE}},
    "classify-faces": {"data": DATA, "model": {"cell": DENSE}},
    "classify-faces-plain": {"data": DATA, "model": {"cell": {"name": "Reference", "options": {"parameters": 3000}}}},
    "clean-mnist": {"data": DATA, "model": {"cell": DENSE}},
    "direct-grey": PRIOR,
    "generate-faces": GENERATE,
    "generate-mnist": GENERATE,
    "generate-patches": GENERATE | {"data": {"family": "patches", "size": 12, "batch_size": 4, "train_limit": 24}},
    "language-default": LANGUAGE | {"warm": {"steps": 1, "layers": 2}},
    "language-ptb": LANGUAGE,
    "meta-default": META,
    "meta-omniglot": META,
    **dict.fromkeys(PAPER_MDEQ, MDEQ),
    "paper-jiio-celeba": GENERATE | {"model": {"cell": DENSE, "latent": 4, "squash": "tanh"}},
    "paper-jiio-cifar10": {"data": DATA, "model": {"cell": MULTISCALE}, "defence": [JOINT]},
    "paper-jiio-omniglot": META,
    "paper-language-wikitext103": LANGUAGE
    | {"model": LANGUAGE["model"] | {"cutoffs": []}, "warm": {"steps": 1}, "accumulate": 2},
    "paper-segment-cityscapes": SEGMENT | {"accumulate": 2},
    "prior-colour": PRIOR,
    "prior-grey": PRIOR,
    "restore-celeba": RESTORE,
    "restore-faces": RESTORE,
    "segment-scenes": SEGMENT,
}


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that can be called by name."""
    return all_shipped("configs", ".yaml")


def recipe(name: str, *, small: bool, **changes: Any) -> RunConfig:
    """A shipped recipe with some keys changed, small or as it stands."""
    values = read_yaml("recipe", shipped_recipes()[name])
    if small:
        values = merge(values, SMALL[name])
    values = merge(values, {"optimiser": {"warmup": 0}, "checkpoint_every": 10**6} | changes)
    return build(config_class(values), values)
