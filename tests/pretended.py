"""A test double of a GPU: tensors that say ``cuda``, compute on the CPU, and refuse what CUDA would refuse.

Within :func:`pretending` a tensor of the device "cuda" is a wrapper around a CPU tensor. Every operation passes through
:func:`_computed`, which raises the sentences of CUDA where tensors of two devices meet, where a generator is of another
device than what it fills, or where numbers are read without ``.cpu()``. Numbers, gradients and data-dependent loops are
real, so that whole trainings and commands run, slowly. What it cannot tell: streams, kernels, memory, rounding.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

HERE = torch.device("cuda", 0)  # what the tensors say
BACKEND = "pretended"  # what torch itself takes them for: a backend of its own, with streams that do nothing
RealGenerator = torch.Generator
_registered: list[str] = []  # once in a process

# What CUDA lets a tensor of the CPU take part in: copies over devices, and the indices of a look-up.
COPIES = {"copy_", "_to_copy", "_copy_from"}
LOOKUPS = {"index", "index_put_", "index_put", "_index_put_impl_"}
NO_SCALARS = {"cat", "stack"}  # where a number on the CPU is a tensor like any other


class DeviceError(RuntimeError):
    """What CUDA would have raised."""


class Pretended(Tensor):
    """A tensor of the pretended device; ``inner`` holds its numbers, on the CPU."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(BACKEND),
        )
        made.inner = inner
        return made

    def __init__(self, inner: Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


class _Backend(backend_registration._DummyBackendModule):
    """What torch asks a backend for."""

    def get_rng_state(self, *_: Any) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, *_: Any) -> None:
        torch.set_rng_state(state)


class Generator(RealGenerator):
    """A generator that knows which device it was made for; its numbers are those of the CPU."""

    pretends: bool

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls)
        made.pretends = torch.device(device).type == HERE.type
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return HERE if self.pretends else torch.device("cpu")


@functools.cache
def _named(function: Any) -> tuple[str, int]:
    """The name of an operation, and which argument it writes to (-1 where to none)."""
    written = [
        i for i, a in enumerate(function._schema.arguments) if a.alias_info is not None and a.alias_info.is_write
    ]
    return function._schema.name.split("::")[1], written[0] if written else -1


def _computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation on the CPU, after what CUDA would look at."""
    wanted = kwargs.get("device")
    flat = [t for t in _pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    ours = any(type(t) is Pretended for t in flat)
    goes = wanted.type if wanted is not None else BACKEND if ours else "cpu"
    if not ours and goes == "cpu":
        return function(*args, **kwargs)

    name, written = _named(function)
    _check_devices(name, args, flat)
    plain = {**kwargs, "device": torch.device("cpu")} if wanted is not None else kwargs
    plain_args, plain = _pytree.tree_map(lambda t: t.inner if type(t) is Pretended else t, (args, plain))
    out = function(*plain_args, **plain)
    if name == "is_pinned" or goes != BACKEND:
        return out
    return _wrapped(function, written, args, kwargs, out)


def _wrapped(function: Any, written: int, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
    """Results on the pretended device; what was written to in place is returned as the object that it is."""
    if written >= 0 and isinstance(out, Tensor):
        target = args[written] if written < len(args) else kwargs[function._schema.arguments[written].name]
        if target.shape != out.shape:  # squeeze_ and its kin
            Tensor.data.__set__(target, Pretended(out))  # pyright: ignore[reportAttributeAccessIssue]
            target.inner = out
        return target
    if isinstance(out, Tensor):
        return Pretended(out)
    return _pytree.tree_map(lambda t: Pretended(t) if isinstance(t, Tensor) else t, out)


def _check_devices(name: str, args: Any, flat: list[Tensor]) -> None:
    """Raise where tensors of two devices meet."""
    if name in COPIES or not any(isinstance(t, Pretended) for t in flat):
        return
    if name in LOOKUPS and isinstance(args[0], Pretended):  # indices may be elsewhere; the values may not
        flat = [args[0], *(t for t in args[2:3] if isinstance(t, Tensor))]
    strangers = [t for t in flat if not isinstance(t, Pretended) and (t.dim() > 0 or name in NO_SCALARS)]
    if strangers:
        raise DeviceError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{HERE} and {strangers[0].device}! (when calling {name})"
        )


def _check_generator(args: Any, kwargs: dict[str, Any]) -> None:
    """Raise where a generator fills what is on another device."""
    generator, wanted = kwargs.get("generator"), kwargs.get("device")
    if generator is None:
        return
    ours = any(isinstance(t, Pretended) for t in _pytree.tree_leaves(args))
    goes = _translated(wanted) if wanted is not None else torch.device(BACKEND if ours else "cpu")
    goes, made = HERE.type if torch.device(goes).type == BACKEND else "cpu", generator.device.type
    if made != goes:
        raise DeviceError(f"Expected a {goes!r} device type for generator but found {made!r}")


class _Operations(TorchDispatchMode):
    """Factories that name the device, and copies to it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


def _translated(value: Any) -> Any:
    """The name of the device as torch knows it; everything else is what it is."""
    named = isinstance(value, (str, torch.device)) and str(value).partition(":")[0] == HERE.type
    return torch.device(BACKEND, 0) if named else value


def _made(function: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """``torch.tensor`` and its kin, which torch carries out below everything that could look on."""
    device, taped, dtype = kwargs.pop("device", None), kwargs.pop("requires_grad", False), kwargs.get("dtype")
    data = args[0] if args else kwargs["data"]
    if isinstance(data, Pretended):
        made = data.to(dtype=dtype or data.dtype, device=device or data.device, copy=function is torch.tensor)
        made = made.detach() if function is torch.tensor else made
    else:
        made = function(*args, **kwargs)
        made = made if device is None else made.to(device)
    return made.requires_grad_() if taped else made


def _check_cotangents(outputs: Any, given: Any) -> None:
    """Raise where a gradient begins on another device than what it is of."""
    for output, start in zip(_pytree.tree_leaves(outputs), _pytree.tree_leaves(given), strict=False):
        if start is not None and isinstance(start, Pretended) != isinstance(output, Pretended):
            raise DeviceError(f"Expected all tensors to be on the same device, but a gradient on {start.device} begins")


MAKERS = (torch.tensor, torch.as_tensor, torch.asarray)
PASSES = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)


class _Calls(TorchFunctionMode):
    """The names of devices, and what never reaches an operation: tensors from lists, numbers read into Python."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.device:  # what our code compares
            return function(*args, **(kwargs or {}))
        args, kwargs = tuple(_translated(a) for a in args), {k: _translated(v) for k, v in (kwargs or {}).items()}
        _check_generator(args, kwargs)
        if function in MAKERS:
            return _made(function, args, kwargs)
        if function is torch.autograd.grad:
            _check_cotangents(args[0], args[2] if len(args) > 2 else kwargs.get("grad_outputs"))
        if function in PASSES:  # on this thread, whatever torch.inference_mode(False) has switched on
            with torch.autograd.set_multithreading_enabled(False):
                return function(*args, **kwargs)
        if args and isinstance(args[0], Pretended):
            face = FACES.get(function)
            if face is not None:
                return face(*args, **kwargs)
        return function(*args, **kwargs)


def _refuse_numpy(t: Pretended, *args: Any, **kwargs: Any) -> Any:
    raise DeviceError(
        f"can't convert {HERE} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
    )


def _formatted(t: Pretended, spec: str) -> str:
    return format(t.item(), spec) if t.dim() == 0 else object.__format__(t, spec)


def _new_tensor(t: Pretended, data: Any, **kwargs: Any) -> Tensor:
    return _made(torch.tensor, (data,), {"dtype": t.dtype, "device": torch.device(BACKEND, 0), **kwargs})


FACES: dict[Any, Any] = {
    Tensor.new_tensor: _new_tensor,
    Tensor.device.__get__: lambda t: HERE,  # pyright: ignore[reportAttributeAccessIssue]
    Tensor.is_cuda.__get__: lambda t: True,  # pyright: ignore[reportAttributeAccessIssue]
    Tensor.get_device: lambda t: 0,
    Tensor.tolist: lambda t: t.detach().cpu().tolist(),
    Tensor.numpy: _refuse_numpy,
    Tensor.__array__: _refuse_numpy,
    Tensor.__format__: _formatted,
    Tensor.__repr__: lambda t, **_: f"{t.inner!r} on {HERE}",
}


@contextlib.contextmanager
def pretending() -> Iterator[torch.device]:
    """Within, this machine seems to have one GPU."""
    if not _registered:
        backend_registration._setup_privateuseone_for_python_backend(BACKEND, _Backend())
        _registered.append(BACKEND)
        # It stays registered: what looks for a device afterwards, as DataParallel does, must not find this one.
        getattr(torch, BACKEND).is_available = lambda: False
    properties = mock.Mock(total_memory=8 * 2**30)
    properties.name = "a pretended GPU"
    faces = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: False,
        "is_bf16_supported": lambda *_, **__: True,
        "get_device_properties": lambda *_: properties,
        "synchronize": lambda *_: None,
    }
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for name, face in faces.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, face))
        stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(_Operations())
        stack.enter_context(_Calls())
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        yield HERE
