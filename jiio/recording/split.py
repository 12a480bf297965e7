"""A traced step in two: what depends on constants alone, computed once, and what is left for every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def parted(graph: fx.GraphModule, count: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Of a graph over ``count`` tensors of state and some constants, which returns nothing and writes to the state.

    Returns ``before``: (*constants) -> kept tensors, and ``step``: (*state, *constants, *kept) -> ().
    """
    nodes = list(graph.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    live = _live(nodes)
    moving = _moving(nodes, set(inputs[:count]))

    # What is ready beforehand and used by the step. Views cost nothing, and are taken in the step again.
    constant = {node for node in nodes if node in live and node not in moving and node.op == "call_function"}
    early = constant if len(inputs) > count else set()  # without constants nobody says when they have changed
    kept: list[fx.Node] = []
    again: set[fx.Node] = set()
    waiting = [node for node in nodes if node in live and node in moving]
    while waiting:
        for used in waiting.pop().all_input_nodes:
            if used not in early or used in again or used in kept:
                continue
            if _views(used):
                again.add(used)
                waiting.append(used)
            else:
                kept.append(used)

    before, step = fx.Graph(), fx.Graph()
    _copied(before, inputs[count:], [n for n in nodes if n in early or (n.op == "get_attr" and n in live)], kept)
    late = [n for n in nodes if n in live and (n not in early or n in again)]
    _copied(step, inputs, late, None, kept)
    return fx.GraphModule(graph, before), fx.GraphModule(graph, step)


def _copied(
    to: fx.Graph,
    inputs: list[fx.Node],
    nodes: list[fx.Node],
    results: list[fx.Node] | None,
    given: list[fx.Node] = [],  # noqa: B006 (never written to)
) -> None:
    """Copy nodes into a new graph, with ``inputs`` and ``given`` as what it is called with."""
    places: dict[fx.Node, fx.Node] = {}
    for i, node in enumerate([*inputs, *given]):
        places[node] = to.placeholder(f"given_{i}")

    for node in nodes:
        if node.op != "placeholder":
            places[node] = to.node_copy(node, lambda n: places[n])
    to.output(tuple(places[node] for node in results or ()))
    # Weights that this half never reads.
    for node in reversed(list(to.nodes)):
        if node.op == "get_attr" and not node.users:
            to.erase_node(node)


def _live(nodes: list[fx.Node]) -> set[fx.Node]:
    """What a result hangs on: here, whatever is written to a tensor, and all that leads there."""
    found = {node for node in nodes if _writes(node)}
    waiting = list(found)
    while waiting:
        for used in waiting.pop().all_input_nodes:
            if used not in found:
                found.add(used)
                waiting.append(used)
    return found


def _moving(nodes: list[fx.Node], state: set[fx.Node]) -> set[fx.Node]:
    """What changes from step to step: the state, what is computed from it or drawn, and what that is written to."""
    moving = set(state)
    while True:
        before = len(moving)
        for node in nodes:
            if node.op == "call_function" and (_draws(node) or any(n in moving for n in node.all_input_nodes)):
                moving.add(node)

        # A constant that a step writes to is none; nor is anything that it may share its memory with.
        waiting = [node for node in nodes if node in moving and _writes(node)]
        while waiting:
            for used in waiting.pop().all_input_nodes:
                if used.op == "call_function" and used not in moving:
                    moving.add(used)
                    waiting.append(used)
        if len(moving) == before:
            return moving


def _schema(node: fx.Node) -> Any:
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def _writes(node: fx.Node) -> bool:
    schema = _schema(node)
    return schema is not None and schema.is_mutable


def _views(node: fx.Node) -> bool:
    """Whether a result is another look at what the operation was given."""
    schema = _schema(node)
    return schema is not None and any(part.alias_info is not None for part in schema.returns)


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
