"""Training for single-source robustness: losses in closed form, who is corrupted when, and what is refused."""

# pyright: reportArgumentType=false
# Wrong types are the point of the last table.

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jiio.attacks import LatentEnsemble, MultiViewThreat, Target, multi_view_classifier
from jiio.checks import JiioError
from jiio.tasks.classify.defences import Answers, Attacked, Batch, Clean
from jiio.tasks.classify.sources import (
    AdversarialAllSources,
    AdversarialMaxSSN,
    AllSources,
    AlternatingSources,
    MaxSSN,
    SparseSources,
    max_ssn,
)
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.load import build

SIZES, DOUBLE = (3, 5, 2), torch.float64
PARTS = (slice(0, 3), slice(3, 8), slice(8, 10))


class Scores(nn.Module):
    """Two scores: 0 and the weighted sum of a sample's numbers, less their middle."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        spread = torch.cat([torch.full((n,), w, dtype=DOUBLE) for n, w in zip(SIZES, weights, strict=True)])
        self.weight = nn.Parameter(spread)

    def forward(self, x: Tensor) -> Tensor:
        logit = (x.flatten(1).to(DOUBLE) - 0.55) @ self.weight
        return torch.stack([torch.zeros_like(logit), logit], 1)


def batch(model: nn.Module | None = None, step: int = 0, seed: int = 0) -> Batch:
    x = 0.5 + 0.1 * torch.rand(8, 10, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    y = torch.zeros(8, dtype=torch.int64)
    return Batch(Target(model or Scores(0.1, 0.5, 0.2)), x, y, seed, step)


def moved(here: Batch, made: Attacked) -> list[bool]:
    return [bool((made.x[:, part] != here.x[:, part]).any()) for part in PARTS]


def test_the_loss_is_the_largest_and_its_gradient_that_of_the_largest() -> None:
    here = batch()
    made = [here.x.clone() for _ in PARTS]
    for i, part in enumerate(PARTS):
        made[i][:, part] += 1.0
    # Logits grow by weight times size: 0.3, 2.5, 0.4.
    loss, worst = max_ssn(here.target, made, here.y)
    logit = (here.x - 0.55) @ here.target.model.weight + 2.5  # type: ignore[operator]
    assert worst == 1 and float(loss.detach()) == pytest.approx(float(F.softplus(logit.detach()).mean()))
    (slope,) = torch.autograd.grad(loss, here.target.model.parameters())
    assert torch.allclose(slope, (torch.sigmoid(logit)[:, None] * (made[1] - 0.55)).mean(0))


@pytest.mark.parametrize("kind", [MaxSSN, AdversarialMaxSSN])
def test_the_worst_source_and_the_clean_batch_take_turns(kind: Callable[..., MaxSSN]) -> None:
    for weights, expected in (((0.0, 30.0, 0.0), 1), ((0.0, 0.0, 60.0), 2), ((50.0, 0.0, 0.0), 0)):
        here = batch(Scores(*weights))
        made = kind(SIZES, 0.3).images(here)
        assert isinstance(made, Attacked) and moved(here, made) == [i == expected for i in range(3)]
    assert kind(SIZES, 0.3).images(batch(step=1)) == Clean()


def test_sources_take_turns() -> None:
    how = AlternatingSources(SIZES, 0.3)
    assert how.images(batch(step=0)) == Clean() == how.images(batch(step=4))
    for step in (1, 2, 3, 7):
        here = batch(step=step)
        made = how.images(here)
        assert isinstance(made, Attacked) and moved(here, made) == [i == (step - 1) % 4 for i in range(3)]


def test_all_sources_at_once() -> None:
    here = batch()
    for how in (AllSources(SIZES, 0.3), AdversarialAllSources(SIZES, 0.1)):
        made = how.images(here)
        assert isinstance(made, Attacked) and moved(here, made) == [True] * 3
        assert how.images(batch(step=3)) == Clean()


def test_noise_has_its_size_stays_in_the_box_and_is_another_in_every_step() -> None:
    here = batch()
    made = [MaxSSN(SIZES, 0.05).corrupted(here, source) for source in range(3)]
    sizes = torch.cat([(m - here.x)[:, part].flatten() for m, part in zip(made, PARTS, strict=True)])
    assert 0.03 < float(sizes.std()) < 0.07
    assert torch.equal(made[1], MaxSSN(SIZES, 0.05).corrupted(here, 1))
    assert not torch.equal(made[1], MaxSSN(SIZES, 0.05).corrupted(batch(step=2), 1))
    wild = MaxSSN(SIZES, 9.0).corrupted(here, 1)
    assert float(wild.min()) == 0.0 and float(wild.max()) == 1.0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_adversary_climbs_inside_the_ball_of_its_source(norm: str) -> None:
    here = batch(Scores(0.3, 0.3, 0.3))
    how = AdversarialMaxSSN(SIZES, 0.1, norm=norm)
    power = {"linf": 0.0, "l2": 0.5, "l1": 1.0}[norm]
    threat = MultiViewThreat(norm, tuple(0.1 * n**power for n in SIZES), sizes=SIZES)
    for source in range(3):
        found = how.corrupted(here, source)
        assert bool((threat.only(source).violation(found, here.x) <= threat.slack(here.x)).all())
        # A linear score with equal weights: every number moves by 0.1 (in the mean, for L1).
        gain = (found - here.x).sum(1)
        assert torch.allclose(gain, torch.full_like(gain, 0.1 * SIZES[source]), rtol=0.05)


def test_sparse_sources_add_the_norm_of_the_latent_layers() -> None:
    torch.manual_seed(0)
    model = multi_view_classifier(SIZES, 2, features=4, fusion="latent").double()
    here = batch(model)
    term = SparseSources(0.5).term(here, Answers(()))
    assert isinstance(model.inject, LatentEnsemble)
    assert float(term.detach()) == pytest.approx(0.5 * float(model.inject.mix.weight.detach().abs().sum()))
    (slope,) = torch.autograd.grad(term, [model.inject.mix.weight])
    assert torch.equal(slope, 0.5 * model.inject.mix.weight.sign())


def test_max_ssn_makes_a_fused_network_bear_a_lost_source() -> None:
    """The first source says it clearly, the others in a whisper: only a training that loses it listens to them."""
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(2, (400,), generator=draw)
    x = 0.5 + 0.02 * torch.randn(400, 10, generator=draw)
    x[:, 0] += 0.45 * (2 * y - 1)
    x[:, 3:] += 0.08 * (2 * y - 1)[:, None]
    x = x.clamp(0, 1)
    lost = x.clone()
    lost[:, :3] = torch.rand(400, 3, generator=draw).round()

    found = []
    for defence in (None, MaxSSN(SIZES, 3.0)):
        model = nn.Linear(10, 2)
        nn.init.zeros_(model.weight)
        optimiser = torch.optim.Adam(model.parameters(), 0.02)
        for step in range(60):
            here = Batch(Target(model), x, y, 0, step)
            made = defence.images(here) if defence else Clean()
            seen = made.x if isinstance(made, Attacked) else x
            optimiser.zero_grad()
            F.cross_entropy(model(seen), y).backward()
            optimiser.step()
        found.append(float((model(lost).argmax(1) == y).float().mean()))
        assert float((model(x).argmax(1) == y).float().mean()) > 0.99
    assert found[1] > found[0] + 0.1


def test_channels_of_pictures_are_sources_in_a_training() -> None:
    data = {"family": "faces", "size": 8, "channels": 3, "batch_size": 4}
    given = {"task": "classify", "data": data, "defence": [{"name": "MaxSSN", "options": {"noise": 1.0}}]}
    task = Classify(build(ClassifyConfig, given | {"model": {"cell": {"name": "Dense", "options": {"features": 6}}}}))
    loss, figures = task.loss(task.model(), 0)
    assert math.isfinite(float(loss.detach())) and "accuracy" in figures


def call(defence: MaxSSN, **more: Tensor) -> object:
    here = batch()
    return defence.images(Batch(here.target, more.get("x", here.x), here.y, 0, 0))


BAD = {
    "sizes a word": (lambda: MaxSSN("35"), "MaxSSN.sizes"),
    "sizes a number": (lambda: MaxSSN(3), "MaxSSN.sizes"),
    "an empty source": (lambda: MaxSSN((3, 0)), "MaxSSN.sizes"),
    "one source": (lambda: MaxSSN((10,)), "two sources or more"),
    "no noise": (lambda: MaxSSN(SIZES, 0.0), "MaxSSN.noise"),
    "noise NaN": (lambda: AllSources(SIZES, math.nan), "AllSources.noise"),
    "noise a word": (lambda: AlternatingSources(SIZES, "much"), "AlternatingSources.noise"),
    "other samples": (lambda: call(MaxSSN((3, 5))), "3 \\+ 5 = 8"),
    "vectors without sizes": (lambda: call(MaxSSN()), "no channels"),
    "grey pictures": (lambda: call(MaxSSN(), x=torch.rand(8, 1, 2, 5)), "no channels"),
    "unknown norm": (lambda: AdversarialMaxSSN(SIZES, 0.1, norm="l3"), "AdversarialMaxSSN.norm"),
    "no steps": (lambda: AdversarialMaxSSN(SIZES, 0.1, steps=0), "steps"),
    "tolerance zero": (lambda: AdversarialAllSources(SIZES, 0.1, tolerance=0.0), "tolerance"),
    "no sources": (lambda: max_ssn(batch().target, [], batch().y), "one batch for each"),
    "sources a tensor": (lambda: max_ssn(batch().target, batch().x, batch().y), "one batch for each"),
    "no weight": (lambda: SparseSources(0.0), "SparseSources.weight"),
    "nothing to make sparse": (lambda: SparseSources().term(batch(), Answers(())), "LatentEnsemble"),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_mistakes_get_a_sentence(make: Callable[[], object], words: str) -> None:
    with pytest.raises(JiioError, match=words):
        make()
