"""A training loss with its gradient as one launch: forward, reverse pass and what is logged, recorded as one step.

For losses whose course does not depend on numbers (an unrolled network, say; not a solve to a tolerance). The result is
a tensor like any other: ``backward`` hands the weights the gradients that the launch has computed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .base import UnrecordableError
from .cuda import CudaRecorder
from .launch import AFTER, modes
from .parts import module_key
from .run import CHECKED, near
from .store import STORE, RecordedStep
from .traced import TracedRecorder
from .wish import wished

Measured = Callable[..., Sequence[Tensor]]


class _Ready(torch.autograd.Function):
    """A loss whose gradients are there already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, grads: list[Tensor], *weights: Tensor) -> Tensor:
        ctx.grads = grads
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return None, None, *(slopes[0] * grad for grad in ctx.grads)


def recorded_loss(
    measured: Measured, module: nn.Module, inputs: Sequence[Tensor], about: Hashable = ()
) -> list[Tensor]:
    """``measured(*inputs)``: a loss (), to be differentiated by the weights of ``module`` alone, and constants to log.

    By a record where :func:`jiio.recorded_steps` says so, else as it is. about: whatever else the loss depends on; two
    losses of one module that differ in anything but their inputs differ in it.
    """
    if not _wanted(inputs[0]):
        return list(measured(*inputs))
    try:
        key = ("loss", about, module_key(module), modes(), *((tuple(t.shape), t.dtype, t.device) for t in inputs))
    except UnrecordableError:
        return list(measured(*inputs))

    # From the time on when it pays.
    record, came = STORE.find(key), STORE.came(key)
    early = record is None and wished().when == "auto" and came < AFTER
    if early or key in STORE.refused:
        return list(measured(*inputs))

    found = list(measured(*inputs)) if record is None else None
    try:
        if record is None:
            assert found is not None
            record = _recorded(measured, module, inputs, found)
            STORE.keep(key, record, [module])
        return _replayed(record, measured, module, inputs)
    except UnrecordableError as error:
        STORE.refuse(key, str(error), [module])
        return list(measured(*inputs))


def _wanted(like: Tensor) -> bool:
    wish = wished()
    if wish.when == "never" or not torch.is_grad_enabled() or _get_current_dispatch_mode() is not None:
        return False
    return wish.when == "always" or wish.recorder is not None or like.device.type == "cuda"


def _weights(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def _recorded(measured: Measured, module: nn.Module, inputs: Sequence[Tensor], found: Sequence[Tensor]) -> RecordedStep:
    """A record over inputs, results and gradients; which weights have one is seen from the eager results ``found``."""
    weights, count = _weights(module), len(inputs)
    grads = torch.autograd.grad(found[0], weights, allow_unused=True)
    used = [i for i, grad in enumerate(grads) if grad is not None]

    def step(state: Sequence[Tensor], constants: Sequence[Tensor]) -> list[Tensor]:
        with torch.enable_grad():
            new = list(measured(*state[:count]))
            slopes = torch.autograd.grad(new[0], [weights[i] for i in used])
        return [*state[:count], *(t.detach() for t in new), *slopes]

    kind = CudaRecorder() if inputs[0].device.type == "cuda" else TracedRecorder()
    state = [*inputs, *found, *(grads[i] for i in used)]
    return RecordedStep((wished().recorder or kind).record(step, state, []), (count, len(found), tuple(used)), (0, 0))


def _replayed(record: RecordedStep, measured: Measured, module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """One launch; held against the eager loss at its first two."""
    count, results, used = record.structure
    state, weights = record.replay.state, _weights(module)
    for own, value in zip(state, inputs, strict=False):
        own.copy_(value)
    record.replay()

    values = [t.clone() for t in state[count : count + results]]
    grads, moved = [t.clone() for t in state[count + results :]], [weights[i] for i in used]

    record.used += 1
    if record.used <= CHECKED:
        eager = list(measured(*(t.detach().clone() for t in inputs)))
        right = [*eager, *torch.autograd.grad(eager[0], moved)]
        allowed = torch.finfo(inputs[0].dtype).eps ** 0.25  # layers may compute in bfloat16
        if not all(near(a, b.detach(), allowed) for a, b in zip([*values, *grads], right, strict=True)):
            raise UnrecordableError("A replay differed from the eager loss.")
    loss: Any = _Ready.apply(values[0], grads, *moved)
    return [loss, *values[1:]]
