"""torchattacks and the original AutoAttack as attacks of this package, through a face of the model (:mod:`.face`).

Both come with the extra ``attacks``: pip install "jiio[attacks]". What they cannot do is a table, looked up before
anything runs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jiio.checks import ArgumentTypeError, check_choice, check_integer, fail

from ..base import AbstractAttack
from ..target import Target
from ..threat import ThreatModel
from .face import NORMS, Face, check_classes, check_faced, check_squares, default_dtype, package, seeded

# torchattacks' attacks for a fixed norm; those with an argument ``norm`` take Linf and L2.
LINF = (
    "FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD", "DIFGSM", "TIFGSM", "Jitter", "NIFGSM",
    "PGDRS", "SINIFGSM", "VMIFGSM", "VNIFGSM", "SPSA",
)  # fmt: skip
L2 = ("CW", "PGDL2", "DeepFool", "PGDRSL2")
BOTH = ("APGD", "APGDT", "FAB", "Square", "AutoAttack")
CHANNELS = {"TIFGSM": 3}  # how many it is made for
CLASSES = {"APGDT": 4, "AutoAttack": 4}  # the fewest that it can work with
VERSIONS = {"standard": 2, "plus": 4, "rand": 3}  # of AutoAttack, and the fewest classes for each
SQUARES = ("Square", "AutoAttack")  # not for every size: see check_squares


@dataclass(frozen=True)
class AutoAttack(AbstractAttack):
    """The original AutoAttack (Croce and Hein 2020) from the package pyautoattack: APGD-CE, targeted APGD and FAB,
    Square, with 100 steps and 5,000 queries.

    version: "standard", "plus" or "rand". queries: of its Square attack. seed: its seed (None: from the generator).
    With fewer than ten classes it takes as many targets as there are; with two or three its targeted attacks do not
    exist, and APGD-CE, FAB and Square (with three also APGD-DLR) run in their place.
    """

    version: str = "standard"
    queries: int = 5000
    seed: int | None = None

    def __post_init__(self) -> None:
        check_choice("AutoAttack.version", self.version, tuple(VERSIONS))
        check_integer("AutoAttack.queries", self.queries, 1)
        if self.seed is not None:
            check_integer("AutoAttack.seed", self.seed, 0)

    def fits(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        package("pyautoattack")
        check_faced("AutoAttack", x, threat)
        check_classes(f"AutoAttack({self.version!r})", model, x, VERSIONS[self.version])
        if self.version != "rand":  # which has no Square
            check_squares("AutoAttack", x, threat)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        face, radius = Face(model, x, threat), threat.radius
        assert isinstance(radius, float | int)
        classes, seed = model.predict(x[:1]).logits.shape[1], seeded(self.seed, generator)

        options = {"norm": NORMS[threat.norm], "eps": radius / face.span, "seed": seed}
        options |= {"device": x.device, "version": self.version}
        if classes < 4 and self.version == "standard":
            few = ["apgd-ce", *(["apgd-dlr"] if classes == 3 else []), "fab", "square"]
            options |= {"version": "custom", "attacks": few}
        tool = self._set(package("pyautoattack").AutoAttack(face, **options), classes)

        trace = sys.gettrace()  # one of its checks takes away whatever debugger or coverage tool is at work
        try:
            with default_dtype(torch.float32):
                found, _ = tool.run_standard_evaluation(face.to_unit(x), y, batch_size=len(x))
        finally:
            sys.settrace(trace)
        return face.from_unit(found)

    def _set(self, tool: Any, classes: int) -> Any:
        """What its constructor does not take: there cannot be more targets than wrong classes."""
        targets = min(classes - 1, tool.apgd_targeted.n_target_classes)
        tool.apgd_targeted.n_target_classes = tool.fab.n_target_classes = targets
        tool.square.n_queries = self.queries
        tool.verbose = False
        return tool


@dataclass(frozen=True)
class TorchAttack(AbstractAttack):
    """An attack of torchattacks by its class name, for example ``TorchAttack("MIFGSM", {"steps": 20})``.

    options: of that class, without ``eps`` and ``norm``, which the threat decides. Minimum-norm attacks (CW, DeepFool)
    know no radius: what they find is projected onto the ball, and counts where it still works. seed: as in
    :class:`AutoAttack`.
    """

    attack: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        check_choice("TorchAttack.attack", self.attack, (*LINF, *L2, *BOTH))
        if not isinstance(self.options, Mapping):
            fail("TorchAttack.options", "a mapping of options", self.options, error=ArgumentTypeError)
        for name in {"eps", "norm"} & set(self.options):
            fail("TorchAttack.options", "options other than eps and norm", name, "Those come from the threat.")
        if self.seed is not None:
            check_integer("TorchAttack.seed", self.seed, 0)

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms it can be used for."""
        return ("linf", "l2") if self.attack in BOTH else ("linf",) if self.attack in LINF else ("l2",)

    def fits(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        known = inspect.signature(getattr(package("torchattacks"), self.attack)).parameters
        if threat.norm not in self.norms:
            fail("threat.norm", " or ".join(repr(n) for n in self.norms) + f" for {self.attack}", threat.norm)
        strange = sorted(set(self.options) - set(known))
        if strange:
            fail("TorchAttack.options", f"options of {self.attack} ({', '.join(known)})", ", ".join(strange))
        check_faced(self.attack, x, threat)
        self._check_table(model, x, threat)

    def _check_table(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        """Raise where the attack is known to fail, before it does."""
        channels, least = CHANNELS.get(self.attack, x.shape[1]), CLASSES.get(self.attack, 2)
        if x.shape[1] != channels:
            fail("x", f"images of {channels} channels, as {self.attack} is made for", f"{x.shape[1]} channels")
        if self.attack in SQUARES:
            check_squares(self.attack, x, threat)
        check_classes(self.attack, model, x, least)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        kind = getattr(package("torchattacks"), self.attack)
        face, radius, known = Face(model, x, threat), threat.radius, inspect.signature(kind).parameters
        assert isinstance(radius, float | int)

        # Of what the threat and the model decide, each class takes only a part.
        mine = {"eps": radius / face.span, "norm": NORMS[threat.norm], "seed": seeded(self.seed, generator)}
        mine["n_classes"] = model.predict(x[:1]).logits.shape[1]
        tool = kind(face, **({name: value for name, value in mine.items() if name in known} | dict(self.options)))
        tool.set_device(x.device)

        torch.manual_seed(mine["seed"])  # the global state is put back by the caller
        with torch.enable_grad(), default_dtype(torch.float32):
            return face.from_unit(tool(face.to_unit(x), y).detach())
