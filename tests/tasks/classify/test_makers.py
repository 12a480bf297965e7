"""Which images a step trains on, and how a defence finds the answer to the clean ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jiio.attacks import Target
from jiio.checks import ArgumentError
from jiio.tasks.classify.adversarial import TRADES
from jiio.tasks.classify.defences import AbstractDefence, Answers, Attacked, Batch, Clean, CleanTraining
from jiio.tasks.classify.task import ClassifyConfig, images_of
from jiio.tasks.frame.registry import TABLE


class Idle(AbstractDefence):
    """An attack that moves nothing."""

    def images(self, batch: Batch) -> Attacked:
        return Attacked(batch.x)


def test_clean_images_are_known_by_name_and_not_by_their_values():
    """An attack that moved nothing is one maker more, and TRADES compares with what is called clean."""
    x, y = torch.rand(6, 1, 4, 4), torch.zeros(6, dtype=torch.int64)
    batch = Batch(Target(nn.Sequential(nn.Flatten(), nn.Linear(16, 2))), x, y, 0, 0)
    defences = [Idle(), TRADES(steps=1), Idle(), CleanTraining()]
    made = images_of([(defence, batch) for defence in defences])
    assert [type(one) for one in made] == [Attacked, Clean, Attacked]
    answers = Answers.of(batch.target, x, made)
    assert answers.clean is answers.parts[1] and len(answers) == 3
    assert images_of([]) == [Clean()]
    with pytest.raises(ArgumentError, match="the clean images among those that are trained on"):
        _ = Answers.of(batch.target, x, made[:1]).clean


def test_the_help_lists_the_defences_of_the_room():
    told = ClassifyConfig.__doc__ or ""
    assert all(name in told for name in TABLE["defence"]) and "{" not in told
