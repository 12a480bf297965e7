"""Every linear physics of deepinv that can be made here: it is accepted, its adjoint is exact, and the bare function of
it is the same map."""

from __future__ import annotations

import pytest
import torch

from deepinv_cases import ALONE, N, cases, draw
from jiio import ArgumentError
from jiio.tasks.maps.base import LinearMap
from jiio.tasks.maps.physics import Curved, as_map, packed
from jiio.tasks.maps.probing import adjoint_gap

pytest.importorskip("deepinv", reason="deepinv is not installed")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def made(request):
    """(the physics, images, their measurement)."""
    import deepinv.physics  # pyright: ignore[reportMissingImports]
    import deepinv.transform  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    physics, channels = cases(deepinv.physics, deepinv.transform)[request.param]()
    side = N + 4 if request.param == "PhysicsCropper" else N
    x = draw(2, channels, side, side)
    wanted = x.to(torch.cfloat) if request.param.endswith("complex") else x
    return physics.A if request.param in ALONE else physics, x, physics.A(wanted)


NAMES = sorted(cases(None, None))


def test_there_are_at_least_25():
    assert len({name.partition(",")[0] for name in NAMES}) >= 25


@pytest.mark.parametrize("made", NAMES, indirect=True)
def test_a_linear_physics_is_accepted_with_an_exact_adjoint(made):
    physics, x, y = made
    operator, v = as_map(physics, y, sigma=0.01, shape=tuple(x.shape[1:])), packed(y)
    assert isinstance(operator, LinearMap) and operator.start(v).shape == x.shape
    assert adjoint_gap(operator.A, operator.A_adjoint, x, v) < 1e-5
    torch.testing.assert_close(operator.A(x), v, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("made", NAMES, indirect=True)
def test_the_bare_function_is_the_same_map(made):
    physics, x, y = made
    operator, v = as_map(physics, y, sigma=0.01, shape=tuple(x.shape[1:])), packed(y)
    alone = as_map(getattr(physics, "A", physics), y, sigma=0.01, shape=tuple(x.shape[1:]))
    assert type(alone) is type(operator)
    torch.testing.assert_close(alone.start(v), operator.start(v), atol=2e-3, rtol=0.0)
    assert alone.norm_bound(x) == pytest.approx(operator.norm_bound(x), rel=1e-3)


@pytest.mark.parametrize("name", ALONE)
def test_an_adjoint_that_is_none_is_refused_with_the_way_out(name):
    import deepinv.physics  # pyright: ignore[reportMissingImports]

    physics, channels = cases(deepinv.physics, None)[name]()
    with pytest.raises(ArgumentError, match="pass A alone"):
        as_map(physics, physics.A(draw(2, channels, N, N)), sigma=0.01)


def test_films_are_refused_in_a_sentence():
    import deepinv.physics  # pyright: ignore[reportMissingImports]

    physics = deepinv.physics.DynamicMRI(draw(1, 2, 4, 16, 16), (4, 16, 16))
    with pytest.raises(ArgumentError, match="expected images \\(B, C, H, W\\), got"):
        as_map(physics, physics.A(draw(2, 2, 4, 16, 16)))


def test_what_is_not_linear_there_is_not_here():
    import deepinv.physics  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    physics = deepinv.physics.RandomPhaseRetrieval(4 * 64, (1, 8, 8))
    x = draw(2, 1, 8, 8)
    operator = as_map(physics, physics.A(x.to(torch.cfloat)))
    assert isinstance(operator, Curved) and operator.start(operator.A(x)).shape == x.shape
    assert float((operator.start(operator.A(x)) - x).abs().mean()) < 0.1
