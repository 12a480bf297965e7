"""The operations of a function on tensors, in order, as a graph of torch.fx.

What is seen is what torch dispatches below autograd: reverse passes are operations like any other, modules and Python
are gone. An operation whose result is a number, or whose shape hangs on numbers, ends it, as it would end the capture
of a CUDA graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .base import refuse

LOOKS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class _Tracer(TorchDispatchMode):
    """Writes down every operation while it happens. Tensors that nobody made here are constants of the graph."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph, self.root = fx.Graph(), torch.nn.Module()
        self.nodes = WeakTensorKeyDictionary()  # a tensor that is gone lends its number to others
        for i, t in enumerate(inputs):
            self.nodes[t] = self.graph.placeholder(f"given_{i}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(tag in func.tags for tag in LOOKS):
            refuse(f"one that looks at the numbers of a tensor ({func.name()})")
        named = _pytree.tree_map(lambda t: self._node(t) if isinstance(t, Tensor) else t, (args, kwargs))
        out = func(*args, **kwargs)
        node = self.graph.call_function(func, *named)
        if isinstance(out, Tensor):
            self.nodes[out] = node
        elif isinstance(out, (tuple, list)):
            for i, part in enumerate(out):
                if isinstance(part, Tensor):
                    self.nodes[part] = self.graph.call_function(operator.getitem, (node, i))
        return out

    def _node(self, t: Tensor) -> fx.Node:
        found = self.nodes.get(t)
        if found is None:
            # By reference: a weight that is trained later is read as it is then.
            name = f"constant_{len(self.root.__dict__)}"
            self.root.__dict__[name] = t
            found = self.nodes[t] = self.graph.get_attr(name)
        return found


def traced(function: Callable[..., object], inputs: Sequence[Tensor]) -> fx.GraphModule:
    """``function(*inputs)``, which returns nothing and writes to some of its inputs, as a graph that does the same."""
    tracer = _Tracer(inputs)
    with tracer:
        function(*inputs)
    tracer.graph.output(())
    return fx.GraphModule(tracer.root, tracer.graph)
