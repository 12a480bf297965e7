"""The engine on a pretended GPU: the answers of the CPU, and draws and buffers where the data are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import jiio
from jiio import diagnostics
from jiio.draws import normal_like, uniform_like
from jiio.persample import share_of
from pretended import Generator, pretending

SIZE, INPUT = 4, 3
LOOSE = jiio.Tolerance(1e-5, 1e-5)


def parts(device: str | torch.device = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the state, weights of the input, and observations."""
    draws = torch.Generator().manual_seed(0)
    shapes = (SIZE, SIZE), (INPUT, SIZE), (2, SIZE)
    w, u, y = (torch.randn(shape, generator=draws, dtype=torch.float64) for shape in shapes)
    return (0.2 * w).to(device), u.to(device), y.to(device)


def cell_of(w: Tensor, u: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, x: torch.tanh(z @ w + x @ u)


def solved(device: str | torch.device, prox: jiio.AbstractProx, **settings) -> tuple[Tensor, Tensor]:
    """x and the gradient of its sum with respect to the observations."""
    w, u, y = parts(device)
    y = y.requires_grad_()
    problem = jiio.Problem(cell_of(w, u), lambda z, x: (z - y).square().sum(1), prox)
    zeros = torch.zeros(2, INPUT, dtype=y.dtype, device=y.device)
    state = torch.zeros(2, SIZE, dtype=y.dtype, device=y.device)
    solution = jiio.solve(problem, zeros, state, tolerance=LOOSE, max_steps=300, **settings)
    assert bool(solution.converged.all())
    (slope,) = torch.autograd.grad(solution.x.square().sum() + solution.value.sum(), y)
    return solution.x.detach().cpu(), slope.cpu()


SETTINGS: dict[str, tuple[jiio.AbstractProx, dict]] = {
    "Anderson, KKT": (jiio.L2Ball(0.3), {"adjoint": jiio.KKT()}),
    "Anderson I, Implicit": (jiio.Box(-0.2, 0.2), {"solver": jiio.Anderson(kind="I"), "adjoint": jiio.Implicit()}),
    "Broyden, Phantom": (jiio.QuadraticPrior(0.5), {"solver": jiio.Broyden(), "adjoint": jiio.Phantom()}),
    "momentum, L1": (jiio.L1Ball(0.3), {"rule": jiio.MomentumStep()}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_solve_and_its_gradient_are_those_of_the_cpu(name: str, gpu: torch.device) -> None:
    prox, settings = SETTINGS[name]
    x, slope = solved("cpu", prox, **settings)
    there, slope_there = solved(gpu, prox, **settings)
    assert torch.allclose(x, there, atol=1e-7) and torch.allclose(slope, slope_there, atol=1e-6)


def penalties(device: str | torch.device, generator: torch.Generator) -> dict[str, Callable[[], object]]:
    """Every diagnostic that draws, on tensors of a device."""
    w, u, y = parts(device)
    cell, x = cell_of(w, u), torch.zeros(2, INPUT, dtype=w.dtype, device=w.device)
    few: dict = {"generator": generator, "max_steps": 60}
    loose: dict = {"generator": generator, "tolerance": LOOSE}
    return {
        "spectral_radius": lambda: diagnostics.spectral_radius(cell, y, x, steps=8, generator=generator),
        "jacobian_penalty": lambda: diagnostics.jacobian_penalty(cell, y, x, generator=generator),
        "adjoint_error": lambda: diagnostics.adjoint_error(cell, x, jiio.Phantom(), y, **few).cosine,
        "dependence_on_z0": lambda: diagnostics.dependence_on_z0(cell, x, y, starts=2, **loose),
    }


DRAWERS = ["spectral_radius", "jacobian_penalty", "adjoint_error", "dependence_on_z0"]


@pytest.mark.parametrize("name", DRAWERS)
def test_a_generator_of_the_cpu_serves_the_data_of_any_device(name: str, gpu: torch.device) -> None:
    here = torch.as_tensor(penalties("cpu", torch.Generator().manual_seed(3))[name]())
    there = penalties(gpu, torch.Generator().manual_seed(3))[name]()
    on_it = penalties(gpu, torch.Generator("cuda").manual_seed(3))[name]()
    assert isinstance(there, Tensor) and isinstance(on_it, Tensor) and there.is_cuda and on_it.is_cuda
    assert torch.allclose(here, there.cpu(), atol=1e-8)


# What the four did before there was a rule, and another way to forget it.
PLANTS: dict[str, Callable[[Tensor, torch.Generator | None], Tensor]] = {
    "on the device of the data": lambda like, g: torch.randn(
        like.shape, dtype=like.dtype, device=like.device, generator=g
    ),
    "on the CPU": lambda like, g: torch.randn(like.shape, dtype=like.dtype, generator=g),
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", DRAWERS)
def test_a_planted_draw_that_works_on_the_cpu_alone_is_found(
    name: str, plant: str, monkeypatch: pytest.MonkeyPatch, gpu: torch.device
) -> None:
    monkeypatch.setattr(diagnostics, "normal_like", PLANTS[plant])
    assert torch.isfinite(torch.as_tensor(penalties("cpu", torch.Generator().manual_seed(3))[name]())).all()
    with pytest.raises(RuntimeError, match="device"):
        penalties(gpu, torch.Generator().manual_seed(3))[name]()


def test_what_cuda_refuses_and_what_it_lets_through(gpu: torch.device) -> None:
    there, here = torch.arange(4.0, device=gpu), torch.ones(4)
    refused: list[Callable[[], object]] = [
        lambda: there + here,
        lambda: torch.stack([there.sum(), here.sum()]),
        lambda: here.index_select(0, there.long()),
        lambda: here.add_(there),
        lambda: torch.randn(2, device=gpu, generator=torch.Generator()),
        lambda: torch.randn(2, generator=torch.Generator("cuda")),
        lambda: there.uniform_(generator=torch.Generator()),
    ]
    for forbidden in refused:
        with pytest.raises(RuntimeError, match="device"):
            forbidden()
    with pytest.raises((RuntimeError, TypeError), match="device type tensor to numpy"):
        there.numpy()

    # Numbers of the CPU, copies over devices, and indices of the CPU are allowed on CUDA as well.
    assert (there + here.sum()).tolist() == [4.0, 5.0, 6.0, 7.0]
    assert there[torch.tensor([0, 2])].tolist() == [0.0, 2.0] and f"{there.sum():.1f}" == "6.0"
    assert there.device.type == "cuda" and there.is_cuda and not there.cpu().is_cuda
    tall = there[:, None].clone()
    tall.squeeze_(-1)
    assert tall.shape == (4,) and (tall + there).tolist() == [0.0, 2.0, 4.0, 6.0] and tall.is_cuda
    here.copy_(there)
    assert here.tolist() == [0.0, 1.0, 2.0, 3.0] and type(here) is Tensor


def test_nothing_is_left_of_the_double() -> None:
    with pretending():
        assert torch.Generator is Generator and torch.cuda.is_available()
    assert torch.Generator is not Generator and torch.zeros(1).device.type == "cpu"


@pytest.mark.parametrize("draw", [normal_like, uniform_like])
def test_one_seed_means_the_same_numbers_on_every_device(draw: Callable[..., Tensor], gpu: torch.device) -> None:
    here = draw(torch.zeros(2, 3), torch.Generator().manual_seed(1), (5,))
    there = draw(torch.zeros(2, 3, device=gpu), torch.Generator().manual_seed(1), (5,))
    assert there.is_cuda and here.tolist() == there.tolist()
    assert draw(torch.zeros(2, device=gpu), None).is_cuda


def test_mps_is_refused_in_a_sentence() -> None:
    class Apple(Tensor):
        @staticmethod
        def __new__(cls) -> Apple:
            return Tensor._make_wrapper_subclass(cls, (2, 3), device="mps")  # pyright: ignore

        @classmethod
        def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
            raise AssertionError("refused before anything is computed")

    with pytest.raises(jiio.ArgumentError, match="float64 numbers, which MPS has not"):
        jiio.equilibrium(lambda z, x: z, Apple(), torch.zeros(2, 3))


def test_samples_are_taken_where_their_values_lie(gpu: torch.device) -> None:
    """A mask of the CPU, and a batch on the GPU of which two samples go on."""
    mask, index = torch.arange(6.0).view(3, 2), torch.tensor([2, 0], device=gpu)
    assert share_of(mask, index, 3, 2).tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert share_of(mask.to(gpu), index, 3, 2).is_cuda and share_of(mask, index, 9, 2) is mask


def test_cuda_does_not_launch_what_lies_elsewhere() -> None:
    with pytest.raises(jiio.UnrecordableError, match="a tensor on cpu, which is not launched by CUDA"):
        jiio.CudaRecorder().record(lambda state, constants: state, [torch.ones(2)], [])
