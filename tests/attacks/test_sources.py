"""One source at a time: the union of balls against brute force, noise, and the latent ensemble layer."""

# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# Wrong types are the point of the last table.

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jiio.attacks import (
    PGD,
    Audit,
    JointAttack,
    LatentEnsemble,
    MultiViewThreat,
    NoiseAttack,
    OneViewThreat,
    SingleViewAttack,
    certify,
    evaluate,
    multi_view_classifier,
)
from jiio.checks import JiioError

SIZES, DOUBLE = (3, 5, 2), torch.float64
PARTS = (slice(0, 3), slice(3, 8), slice(8, 10))
RADII = (0.3, 0.0, 0.2)


def samples(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 10, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def union(norm: str = "l2", radii: tuple[float, ...] = RADII) -> OneViewThreat:
    return OneViewThreat(norm, radii, sizes=SIZES)


class Linear(nn.Module):
    """Two scores, 0 and w x + b."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros(len(x), dtype=x.dtype), x @ self.weight + self.bias], dim=1)


def views_moved(x: Tensor, point: Tensor) -> Tensor:
    """(B, 3)"""
    return torch.stack([(point - x)[:, part].abs().amax(1) > 0 for part in PARTS], dim=1)


# -- the set


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("how", ["project", "retract"])
def test_the_nearest_point_is_that_of_the_best_view(norm: str, how: str) -> None:
    x, threat = samples(), union(norm)
    point = x + 0.4 * torch.randn(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    found = getattr(threat, how)(point, x)
    whole = MultiViewThreat(norm, RADII, sizes=SIZES)
    tries = [getattr(whole.only(view), how)(point, x) for view in (0, 2)]
    for i in range(len(x)):
        best = min(tries, key=lambda t: float((t[i] - point[i]).norm()))
        assert torch.allclose(found[i], best[i], atol=1e-9)
    assert bool((threat.violation(found, x) <= threat.slack(x)).all())
    assert int(views_moved(x, found).sum(1).max()) == 1


def test_two_views_at_once_violate_it_by_the_smaller_move() -> None:
    x, threat = torch.full((1, 10), 0.5, dtype=DOUBLE), union("linf")
    point = x.clone()
    point[0, 0], point[0, 9] = 0.7, 0.59
    assert float(threat.violation(point, x)) == pytest.approx(0.09)
    point[0, 9] = 0.5
    assert float(threat.violation(point, x)) == 0.0
    point[0, 0] = 0.9
    assert float(threat.violation(point, x)) == pytest.approx(0.1)
    point = x.clone()
    point[0, 4] = 0.6  # a view that may not be touched
    assert float(threat.violation(point, x)) == pytest.approx(0.1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_steepest_direction_is_best_of_one_view(norm: str) -> None:
    threat = union(norm)
    g = torch.randn(20, 10, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    d = threat.steepest(g)
    gain = (g * d * threat.steps(g, 1.0)).sum(1)
    # The support function of a ball is its radius times the dual norm; that of a union the largest.
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    each = [r * torch.linalg.vector_norm(g[:, part], dual, dim=1) for part, r in zip(PARTS, RADII, strict=True)]
    assert torch.allclose(gain, torch.stack(each).amax(0))
    assert int(views_moved(torch.zeros_like(d), d).sum(1).max()) == 1


def test_random_starts_are_in_one_view_and_in_every_one() -> None:
    x, threat = samples(40), union("l2", (0.3, 0.1, 0.2))
    start = threat.random_start(x, torch.Generator().manual_seed(0))
    moved = views_moved(x, start)
    assert moved.sum(1).tolist() == [1] * 40 and bool(moved.any(0).all())
    assert bool((threat.violation(start, x) == 0).all())


def test_what_rounding_did_to_other_views_is_put_back() -> None:
    x, threat = samples(), union("linf")
    point = x.clone()
    point[:, 0] = (point[:, 0] + 0.1).clamp_max(1.0)
    blurred = point + 1e-17
    blurred[:, 9] = x[:, 9] * (1 + 1e-16)
    assert torch.equal(threat.restored(blurred, x)[:, 3:], x[:, 3:])


def test_the_worst_source_of_a_linear_model_in_closed_form() -> None:
    weight = torch.randn(10, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
    x, radii = samples(30) * 0.2 + 0.4, (0.1, 0.05, 0.2)
    model, y = Linear(weight, -float(x.mean(0) @ weight)), torch.zeros(30, dtype=torch.int64)
    threat = union("l2", radii)
    reach = max(r * float(weight[part].norm()) for r, part in zip(radii, PARTS, strict=True))
    falls = (x @ weight + model.bias) + reach > 0
    result = SingleViewAttack(PGD(steps=20))(model, x, y, threat)
    assert torch.equal(result.success, falls) and 3 < int(falls.sum()) < 30
    assert bool((threat.violation(result.x, x) <= threat.slack(x)).all())
    # All together reach further.
    every = MultiViewThreat("l2", radii, sizes=SIZES)
    assert int(PGD(steps=20)(model, x, y, every).success.sum()) > int(falls.sum())
    # Straight in the union: what it finds is allowed, and no stronger.
    direct = PGD(steps=20)(model, x, y, threat)
    assert bool((threat.violation(direct.x, x) <= threat.slack(x)).all()) and not bool((direct.success & ~falls).any())


def test_an_evaluation_one_view_at_a_time() -> None:
    torch.manual_seed(0)
    model = multi_view_classifier(SIZES, 3, features=6, on_failure="ignore").eval()
    x = samples(16).float()
    y = model(x).argmax(1)
    threat = union("linf", (0.2, 0.2, 0.0))
    attacks = [SingleViewAttack(PGD(steps=3)), SingleViewAttack(NoiseAttack())]
    report = evaluate(model, [(x, y)], threat, attacks, generator=torch.Generator(), audit=Audit(samples=8, steps=5))
    assert report.threat["views at once"] == 1 and "one view at a time" in str(report)
    assert attacks[1].gradient_free and not attacks[0].gradient_free
    assert certify(model, x, y, threat) is None
    joint = SingleViewAttack(JointAttack(steps=10))(model, x, y, threat)
    assert int(views_moved(x, joint.x).sum(1).max()) <= 1


# -- noise


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_is_as_large_as_the_ball_and_belongs_to_the_sample(norm: str) -> None:
    x = 0.5 * torch.ones(4, 10, dtype=DOUBLE) + 0.01 * samples(4)
    always = Linear(torch.zeros(10, dtype=DOUBLE), -1.0)  # right, whatever comes
    threat = MultiViewThreat(norm, 0.2, sizes=SIZES)
    found = NoiseAttack().run(_target(always), x, torch.zeros(4, dtype=torch.int64), threat, torch.Generator())
    order = {"linf": torch.inf, "l2": 2}[norm]
    for part in PARTS:
        size = torch.linalg.vector_norm((found - x)[:, part], order, dim=1)
        assert torch.allclose(size, torch.full_like(size, 0.2))
    alone = NoiseAttack().run(_target(always), x[2:3], torch.zeros(1, dtype=torch.int64), threat, torch.Generator())
    assert torch.equal(alone, found[2:3]) and not torch.allclose((found - x)[0], (found - x)[1], atol=0.02)


def test_more_draws_are_never_weaker() -> None:
    weight = torch.randn(10, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
    x, threat = samples(60), MultiViewThreat("l2", 0.3, sizes=SIZES)
    model, y = Linear(weight, -float(x.mean(0) @ weight)), (samples(60) @ weight > 0).long() * 0
    fell = [int(NoiseAttack(draws)(model, x, y, threat).success.sum()) for draws in (1, 4, 16)]
    assert fell == sorted(fell) and fell[0] < fell[2]


def _target(model: nn.Module):
    from jiio.attacks import Target

    return Target(model)


# -- the latent ensemble layer


def test_the_latent_ensemble_by_hand() -> None:
    torch.manual_seed(0)
    layer, x = LatentEnsemble(SIZES, 4).double(), samples()
    latent = [
        torch.relu(x[:, part] @ v.linear.weight.T + v.linear.bias) for part, v in zip(PARTS, layer.views, strict=True)
    ]  # type: ignore[union-attr,operator]
    said = torch.relu(torch.cat(latent, 1) @ layer.mix.weight.T + layer.mix.bias)
    assert torch.allclose(layer(x), said)
    assert float(layer.connections().detach()) == pytest.approx(float(layer.mix.weight.detach().abs().sum()))
    moved = 0.1 * torch.randn(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    assert bool(((layer(x + moved) - layer(x)).norm(dim=1) <= layer.lipschitz * moved.norm(dim=1) + 1e-12).all())
    assert torch.autograd.gradcheck(layer, (x.clone().requires_grad_(),), atol=1e-6)


def test_a_feature_of_one_source_is_deaf_to_the_others() -> None:
    torch.manual_seed(0)
    layer, x = LatentEnsemble(SIZES, 4).double(), samples()
    with torch.no_grad():
        layer.mix.weight[0, 4:] = 0.0  # of the first source alone
        layer.mix.bias.add_(3.0)
    assert layer.shares()[0].tolist() == [1.0, 0.0, 0.0]
    assert torch.allclose(layer.shares().sum(1), torch.ones(4, dtype=DOUBLE))
    other = x.clone()
    other[:, 3:] = samples(6, 7)[:, 3:]
    assert torch.equal(layer(x)[:, 0], layer(other)[:, 0]) and not torch.equal(layer(x)[:, 1], layer(other)[:, 1])


def joint() -> object:
    model = multi_view_classifier(SIZES, 3, features=4).eval()
    return JointAttack(steps=3)(model, samples().float(), torch.zeros(6, dtype=torch.int64), union())


BAD = {
    "no sizes": (lambda: OneViewThreat("l2", 1.0), "MultiViewThreat.sizes"),
    "sizes a word": (lambda: OneViewThreat("l2", 1.0, sizes="35"), "per view"),
    "radii of other views": (lambda: OneViewThreat("l2", (1.0, 2.0), sizes=SIZES), "3 of them"),
    "nothing to touch": (lambda: union(radii=(0.0, 0.0, 0.0)), "one view at least"),
    "a negative radius": (lambda: union(radii=(0.1, -0.1, 0.0)), "MultiViewThreat.radius"),
    "unknown norm": (lambda: union("l3"), "'linf'"),
    "samples of another size": (lambda: union().violation(samples()[:, 1:], samples()[:, 1:]), "3 \\+ 5 \\+ 2"),
    "a joint solve in a union": (joint, "SingleViewAttack"),
    "no draws": (lambda: NoiseAttack(0), "NoiseAttack.draws"),
    "half a draw": (lambda: NoiseAttack(0.5), "NoiseAttack.draws"),
    "an ensemble of nothing": (lambda: LatentEnsemble((), 4), "sizes"),
    "a view of nothing": (lambda: LatentEnsemble((3, 0), 4), "sizes"),
    "no features": (lambda: LatentEnsemble(SIZES, 0), "features"),
    "other samples": (lambda: LatentEnsemble(SIZES, 4)(samples()[:, 1:].float()), "3 \\+ 5 \\+ 2"),
    "an unknown fusion": (lambda: multi_view_classifier(SIZES, 3, fusion="max"), "'latent'"),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_mistakes_get_a_sentence(make, words: str) -> None:
    with pytest.raises(JiioError, match=words):
        make()
