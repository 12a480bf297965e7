"""Amortised starts: a linear map or a small network, taught by finished solves, says where a new one begins.

An :class:`AmortisedStart` reads an observation (the image to fit, the corrupted image and where it was measured, the
features of a support set) and proposes the whole answer: input x, state z and multiplier mu, and with them the scales
of the problem. Amortised inference is old (Gershman, Goodman 2014), and so is refining what a network says by
optimisation (Kim, Wiseman, Miller, Sontag, Rush 2018); to propose state and multiplier as well is what a joint solve
adds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import CheckpointError, check_choice, check_integer, fail
from jiio.layout import Spec, Tree, leaves, map_tree
from jiio.models.files import looks_like_pickle
from jiio.outputs.atomic import write_whole
from jiio.problem import initial_state
from jiio.tasks.frame.files import check_file, reason

from .starts import AbstractStart, Start, safeguarded

MAX_BYTES = 1 << 30
BLOCKS = {"x": ("x",), "xz": ("x", "z"), "xzmu": ("x", "z", "mu")}


@dataclass(frozen=True)
class Sizes:
    """What goes in and out. observed, state: numbers per element of the set (of which there is one without sets).

    input: numbers in x. sets: whether observations are (B, M, observed) and the leaves of the state (B, M, ...).
    """

    observed: int
    input: int
    state: int
    sets: bool = False

    def __post_init__(self) -> None:
        for name in ("observed", "input", "state"):
            check_integer(name, getattr(self, name), 1)

    @classmethod
    def of(cls, x: Tree, z: Tree, observation: Tensor) -> Sizes:
        """Of a batch."""
        sets = observation.dim() == 3
        return cls(observation.shape[-1], Spec.of(x).size, Spec.of(elements(z, sets)).size, sets)


def elements(tree: Tree, sets: bool) -> Tree:
    """The leaves (B, M, ...) of a set's state as (B * M, ...); any other tree as it is."""
    return map_tree(lambda leaf: leaf.flatten(0, 1), tree) if sets else tree


class AmortisedStart(nn.Module, AbstractStart):
    """A linear map, and beside it two hidden layers where ``hidden`` > 0: observation -> (x, z, mu), sample by sample.

    In a set every element sees itself and the mean of all, so that the order of the elements, and their number, are
    free. ``propose`` says what is proposed: "x", "xz" or "xzmu"; a state that is not proposed starts where the cell
    says, a multiplier at zero. The scales of the problem are the middle ones of the training.
    :mod:`jiio.tasks.solving.learning` sets the weights.
    """

    observed_mean: Tensor
    observed_scale: Tensor
    x_mean: Tensor
    x_scale: Tensor
    scaling: Tensor

    def __init__(self, sizes: Sizes, *, hidden: int = 0, propose: str = "xzmu") -> None:
        super().__init__()
        self.sizes, self.hidden = sizes, check_integer("hidden", hidden, 0)
        self.propose = check_choice("propose", propose, BLOCKS)

        # The linear maps, and beside them the layers with a hidden width.
        seen = sizes.observed * (2 if sizes.sets else 1)
        self.to_input = nn.Linear(seen, sizes.input, bias=False)
        self.to_state = nn.Linear(seen, 2 * sizes.state, bias=False)
        ends = [self.to_input, self.to_state]
        if hidden:
            self.body = nn.Sequential(nn.Linear(seen, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
            self.more_input, self.more_state = nn.Linear(hidden, sizes.input), nn.Linear(hidden, 2 * sizes.state)
            ends += [self.more_input, self.more_state]

        for layer in ends:
            for parameter in layer.parameters():  # before any training, the mean of the finished solves
                nn.init.zeros_(parameter)
        self.hold_moments(sizes)

    def hold_moments(self, sizes: Sizes) -> None:
        """Buffers for the units of what is seen and said, and the scales of the problem; none are known yet."""
        self.register_buffer("observed_mean", torch.zeros(sizes.observed))
        self.register_buffer("observed_scale", torch.ones(()))
        for block, size in (("x", sizes.input), ("z", sizes.state), ("mu", sizes.state)):
            self.register_buffer(f"{block}_mean", torch.zeros(size))
            self.register_buffer(f"{block}_scale", torch.ones(()))  # one for a block: its coordinates share a unit
        self.register_buffer("scaling", torch.ones(2))  # sigma and kappa

    def seen(self, observation: Tensor) -> Tensor:
        """(B, M, p) what the network sees of each element."""
        sizes = self.sizes
        if observation.dim() != 2 + sizes.sets or observation.shape[-1] != sizes.observed:
            shape = f"(B, {'M, ' if sizes.sets else ''}{sizes.observed})"
            fail("observation", f"a tensor {shape}, as this start was trained on", observation)
        scaled = (observation - self.observed_mean) / self.observed_scale
        return torch.cat([scaled, scaled.mean(1, keepdim=True).expand_as(scaled)], 2) if sizes.sets else scaled[:, None]

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, n), z and mu (B * M, m) in units in which the finished solves vary by one around zero."""
        seen = self.seen(observation)
        x, states = self.to_input(seen.mean(1)), self.to_state(seen)
        if self.hidden:
            more = self.body(seen)
            x, states = x + self.more_input(more.mean(1)), states + self.more_state(more)
        z, mu = states.flatten(0, 1).chunk(2, dim=1)
        return x, z, mu

    def natural(self, block: str, scaled: Tensor) -> Tensor:
        """A block in the units of the problem."""
        return getattr(self, f"{block}_mean") + getattr(self, f"{block}_scale") * scaled

    def proposal(self, problem: jiio.Problem, x0: Tree, observation: Tensor) -> Start:
        """What the network says, unchecked; with its graph where grad mode is on.

        Errors: ArgumentError where the problem has other shapes than those of the training.
        """
        with torch.no_grad():
            z0 = initial_state(problem.cell, x0, None, leaves(x0)[0])
        came = Sizes.of(x0, z0, observation)
        if came != self.sizes:
            fail("problem", f"the shapes that this start was trained on, {self.sizes}", f"{came}")

        # All blocks are computed; which are said is a matter of ``propose``.
        x, z, mu = self(observation)
        states = [self.unpacked("z", z, z0), self.unpacked("mu", mu, z0)]
        given = BLOCKS[self.propose]
        return Start(
            Spec.of(x0).unpack(self.natural("x", x)),
            states[0] if "z" in given else None,
            states[1] if "mu" in given else None,
            (self.scaling[0], self.scaling[1]),
        )

    def unpacked(self, block: str, scaled: Tensor, like: Tree) -> Tree:
        """A block (B * M, m) of the state's shape as a tree like the state."""
        sets = self.sizes.sets
        tree = Spec.of(elements(like, sets)).unpack(self.natural(block, scaled))
        return map_tree(lambda leaf: leaf.unflatten(0, (len(leaves(like)[0]), -1)), tree) if sets else tree

    def begin(self, problem: jiio.Problem, x0: Tree, observation: Tensor) -> Start:
        """The proposal, checked by :func:`jiio.tasks.solving.starts.safeguarded`."""
        with torch.no_grad():
            return safeguarded(problem, x0, self.proposal(problem, x0, observation))


def support_observation(features: Tensor, ways: int) -> Tensor:
    """(B, M, 2 F) what an amortised start sees of a support set with features (B, M, F), class by class.

    Each image's own features and the mean of its class.
    """
    kinds = features.unflatten(1, (ways, -1))
    return torch.cat([kinds, kinds.mean(2, keepdim=True).expand_as(kinds)], 3).flatten(1, 2)


def save_start(path: Path, start: AmortisedStart, model: str) -> None:
    """Write a start for the model of that fingerprint."""
    from safetensors.torch import save as to_bytes

    about = {"sizes": asdict(start.sizes), "hidden": start.hidden, "propose": start.propose, "model": model}
    tensors = {name: t.detach().cpu().contiguous() for name, t in start.state_dict().items()}
    write_whole(path, to_bytes(tensors, metadata={"jiio-start": json.dumps(about)}))


def load_start(path: Path, model: str) -> AmortisedStart:
    """The start in a file, in eval mode.

    Errors: CheckpointError where the file is no start, or one that was trained for another model.
    """
    from safetensors import SafetensorError

    check_file("start", path, "an amortised start (safetensors)", MAX_BYTES)
    with path.open("rb") as file:
        if looks_like_pickle(file.read(9)):
            fail("start", "an amortised start (safetensors)", f"{path}, a pickle", error=CheckpointError)

    # The file may be anybody's: whatever its bytes bring up is one sentence.
    try:
        start = opened(path, model)
    except CheckpointError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"start: {path} is damaged or not an amortised start ({reason(error)}).") from error
    return start.eval().requires_grad_(False)


def opened(path: Path, model: str) -> AmortisedStart:
    """The start in a file that is trusted to be one; raises what its parts raise."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})["jiio-start"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if about["model"] != model:
        came = f"{path}, trained for the model {about['model']}"
        fail("start", f"a start for the model {model}", came, "Train a start for this model.", CheckpointError)
    start = AmortisedStart(Sizes(**about["sizes"]), hidden=about["hidden"], propose=about["propose"])
    start.to(tensors["observed_mean"].dtype).load_state_dict(tensors)
    return start
