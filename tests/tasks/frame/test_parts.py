"""A batch in parts, one after the other, gives the gradient of the whole batch: for every recipe, whatever its loss
does, and for a task of one's own.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jiio.checks import JiioError
from jiio.layout import leaves
from jiio.models import TransformerConfig, TransformerModel, TrellisConfig, TrellisModel
from jiio.outputs.seeds import generator
from jiio.outputs.shares import BatchShare, drawn, holding, later, ratio, rows, shared_mean, total
from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.load import build, read_yaml
from jiio.tasks.frame.parts import Parts, check_divisible
from jiio.tasks.frame.ranks import Ranks
from jiio.tasks.frame.registry import config_class
from jiio.tasks.frame.task import AbstractTask, Figure, build_task
from jiio.tasks.solving.trajectory import DrawnIterate
from rank_cases import RECIPES, write_recipe


def gradients(task: AbstractTask, each: int, step: int = 3) -> tuple[float, dict[str, Tensor], dict[str, float]]:
    """Loss, gradients and buffers after a step in so many parts, and the figures."""
    torch.manual_seed(0)
    model = task.model().train()
    loss, figures = Parts(task, model, 5, Ranks(), each).gradient(step)
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    return loss, found | dict(model.named_buffers()), figures


# In single precision; an adaptation of `meta` may end a step sooner or later by a rounding error, so that the double
# precision of test_ranks_long.py has to tell.
@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"meta"}))
def test_the_parts_of_a_recipe_add_up(name: str, tmp_path) -> None:
    keys = read_yaml("config", write_recipe(name, tmp_path, 10))
    task = build_task(build(config_class(keys), keys))
    loss, whole, _ = gradients(task, 1)
    for each in (2, 3):
        other, parts, _ = gradients(task, each)
        assert other == pytest.approx(loss, rel=2e-5)
        for key, value in whole.items():
            size = float(value.abs().max())
            assert float((parts[key] - value).abs().max()) <= 2e-4 * size + 1e-7, key


class Own(AbstractTask):
    """Everything that a share can ask, with seven numbers."""

    def __init__(self, config: RunConfig = RunConfig("restore"), *, data_root=None, guess: int = 7) -> None:  # noqa: B008
        super().__init__(config)
        self.guess, self.moments, self.asked = guess, [], itertools.count()

    def model(self) -> nn.Module:
        return nn.Linear(1, 1).double()

    def evaluate(self, model: nn.Module) -> list[dict[str, str | float]]:
        return []

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, Figure]]:
        next(self.asked)
        x = torch.arange(7.0, dtype=torch.float64)[rows(7), None]
        source = generator(0, "own", step)
        x = x + drawn(lambda n: torch.randn(n, 1, generator=source, dtype=torch.float64), len(x))
        y, good = model(x)[:, 0], x[:, 0] > 2.0

        # A ratio of counts that is guessed, a constant of the whole batch, and a moment for later.
        kept = ratio(torch.where(good, y, 0.0).sum(), good.sum()) if self.guess == 7 else y.sum() * 0
        if self.guess != 7:
            kept = torch.where(good, y, 0.0).sum() / total(good.sum(), torch.tensor(self.guess)) / (len(x) / 7)
        scaled = y.square().mean() / shared_mean(x.square().mean())
        later(x.sum(), lambda found: self.moments.append(float(found)))
        return kept + scaled, {"rows": float(len(x)), "first": lambda: float(x[0, 0].detach())}


@pytest.mark.parametrize("each", [1, 2, 3, 7])
@pytest.mark.parametrize("guess", [7, 4, 0])
def test_ratios_constants_and_moments_are_those_of_the_whole_batch(each: int, guess: int) -> None:
    whole, parts = Own(), Own(guess=guess)
    loss, expected, _ = gradients(whole, 1)
    other, found, figures = gradients(parts, each)
    assert other == pytest.approx(loss, rel=1e-12)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12)
    assert parts.moments == pytest.approx(whole.moments, rel=1e-12) and len(parts.moments) == 1
    assert figures["rows"] == pytest.approx(sum(n * n for n in lengths(7, each)) / 7)


def lengths(batch: int, count: int) -> list[int]:
    """Of the parts of a batch: as equal as can be."""
    return [(i + 1) * batch // count - i * batch // count for i in range(count)]


def test_a_right_guess_costs_no_second_look_and_a_wrong_one_does() -> None:
    """The constant of the loss is no guess, so that every part is asked for it first."""

    class Guessed(Own):
        def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, Figure]]:
            next(self.asked)
            x = torch.ones(7, 1, dtype=torch.float64)[rows(7)]
            return model(x).sum() / total(torch.tensor(len(x)), torch.tensor(self.guess)) * 7 / len(x), {}

    for guess, calls in ((7, 3), (5, 6)):
        task = Guessed(guess=guess)
        _, found, _ = gradients(task, 3)
        assert next(task.asked) == calls
        assert float(found["bias"]) == pytest.approx(1.0)


class Whole(Own):
    """It never asks which rows are its own."""

    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, dict[str, Figure]]:
        return model(torch.ones(4, 1, dtype=torch.float64)).mean(), {}


def test_a_task_that_takes_the_whole_batch_is_refused_in_parts() -> None:
    gradients(Whole(), 1)
    with pytest.raises(JiioError, match=r"task: expected one whose batch can be divided into 2 parts, got Whole"):
        gradients(Whole(), 2)


def test_fewer_samples_than_parts_are_refused() -> None:
    with pytest.raises(JiioError, match="batch_size: expected at least 8 samples, got 7"):
        gradients(Own(), 8)


def test_layers_that_look_at_their_batch_are_refused_in_parts() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_divisible(model.train(), 1)
    check_divisible(model.eval(), 4)
    with pytest.raises(JiioError, match=r"model: .*for a batch in 4 parts, got BatchNorm1d \(1\)"):
        check_divisible(model.train(), 4)


@pytest.mark.parametrize("model", [TransformerModel, TrellisModel], ids=lambda kind: kind.__name__)
def test_masks_of_parts_are_those_of_the_whole_batch(model) -> None:
    config = {TransformerModel: TransformerConfig, TrellisModel: TrellisConfig}[model]
    cell = model(config(vocabulary=9, width=4, dropout=0.5)).cell
    z = torch.zeros(6, 5, 8 if model is TrellisModel else 4)

    def drawn_for(share: BatchShare) -> Any:
        with holding(share):
            here = z[rows(len(z))]
            return cell.draw_masks(here, torch.Generator().manual_seed(1))

    whole, parts = drawn_for(BatchShare(0, 1)), [drawn_for(BatchShare(i, 3)) for i in range(3)]
    for name, every in enumerate(leaves(whole)):
        assert torch.equal(every, torch.cat([leaves(part)[name] for part in parts]))


def test_iterates_of_parts_are_drawn_for_the_whole_batch() -> None:
    """As long as the parts take as many steps as the whole."""
    z, x = torch.arange(6.0)[:, None], torch.arange(6.0)[:, None]

    def kept(share: BatchShare) -> Tensor:
        with holding(share):
            here = rows(6)
            watch = DrawnIterate(torch.Generator().manual_seed(2))
            for step in range(8):
                watch.callback(step, z[here] + 10 * step, x[here], x[here, 0])
            assert watch.z is not None
            return watch.z

    assert torch.equal(kept(BatchShare(0, 1)), torch.cat([kept(BatchShare(i, 2)) for i in range(2)]))
