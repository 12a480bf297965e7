"""``trained``: the network of a checkpoint, had without the data that it was trained on."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from jiio.checks import JiioError
from jiio.tasks.frame import checkpoint as files
from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.load import build
from jiio.tasks.frame.registry import config_class, look_up

MULTISCALE = {"channels": [4, 8], "expansion": 1, "groups": 2, "fusion_groups": 2, "head_channels": [2, 2]}
FEW = {"train_limit": 12, "test_limit": 4, "batch_size": 4}
# task -> the module and the function by which it reads its data, and a small configuration
TASKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "classify": (
        "classify.task",
        "load_labelled",
        {"data": {**FEW, "size": 8}, "model": {"cell": {"name": "Dense", "options": {"features": 6}}}},
    ),
    "language": (
        "language.task",
        "load_text",
        {"data": {"segment": 6}, "model": {"width": 8, "heads": 2, "inner": 12, "memory": 6}},
    ),
    "segment": (
        "segment.task",
        "load_segmented",
        {
            "data": {**FEW, "size": [12, 16]},
            "model": {"cell": {"name": "Multiscale", "options": {**MULTISCALE, "final_channels": 8}}},
        },
    ),
    "restore": ("restore.latent", "load_images", {"data": {**FEW, "size": 16}, "model": {"latent": 6}}),
    "prior": ("restore.prior", "load_pictures", {"model": {"features": 4, "wide": 4, "depth": 1}}),
    "direct": ("restore.prior", "load_pictures", {"model": {"features": 4, "wide": 4, "depth": 1}}),
}


def saved(name: str, folder: Path) -> tuple[files.Checkpoint, torch.nn.Module]:
    """A checkpoint, and the freshly initialised network in it."""
    values = {"task": name, **TASKS[name][2]}
    config: RunConfig = build(config_class(values), values)
    torch.manual_seed(1)
    model = look_up("task", name, "task")(config).model()
    return files.save(folder / "step-00000001.safetensors", 1, config, model), model


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_trained_network_needs_no_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, model = saved(name, tmp_path)
    module, reader, _ = TASKS[name]

    def gone(*given: Any, **named: Any) -> None:
        raise JiioError("the data are gone")

    monkeypatch.setattr(importlib.import_module(f"jiio.tasks.{module}"), reader, gone)
    task = look_up("task", name, "task")
    with pytest.raises(JiioError, match="gone"):
        task(checkpoint.config)
    found = task.trained(checkpoint)
    assert type(found) is type(model) and not found.training
    kept = model.state_dict()
    assert kept.keys() == found.state_dict().keys()
    assert all(torch.equal(value, kept[key]) for key, value in found.state_dict().items())


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_checkpoint_of_another_task_is_refused(name: str, tmp_path: Path) -> None:
    other = "segment" if name == "classify" else "classify"
    checkpoint = saved(other, tmp_path)[0]
    with pytest.raises(JiioError, match=r"an instance of \w+Config|a language model"):
        look_up("task", name, "task").trained(checkpoint)
