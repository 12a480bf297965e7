"""The faces of other packages: torchattacks and the original AutoAttack as attacks of this one.

torchattacks and AutoAttack (package ``pyautoattack``) expect images in [0, 1], models whose parameters tell their
device, and the global random state. Here they get a face of the model that shows them just that, whatever the bounds,
the normalisation and the mode; what they return is verified as every result is (:mod:`jiio.attacks.base`).
Both come with the extra ``attacks``: pip install "jiio[attacks]".
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import ArgumentTypeError, check_choice, check_integer, fail

from ..base import AbstractAttack
from ..target import Target
from ..threat import ThreatModel

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}  # ours -> theirs

# torchattacks' attacks for a fixed norm; those with an argument ``norm`` take Linf and L2.
LINF = (
    "FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD", "DIFGSM", "TIFGSM", "Jitter", "NIFGSM",
    "PGDRS", "SINIFGSM", "VMIFGSM", "VNIFGSM", "SPSA",
)  # fmt: skip
L2 = ("CW", "PGDL2", "DeepFool", "PGDRSL2")
BOTH = ("APGD", "APGDT", "FAB", "Square", "AutoAttack")


class _Face(nn.Module):
    """The model as the tools want it: images in [0, 1], one parameter that says where it lives, scores that they may
    write to. The model itself is not a part of it, so that nobody changes its mode.
    """

    def __init__(self, target: Target, x: Tensor, low: Tensor, span: float) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros((), device=x.device), requires_grad=False)
        self.eval()
        self._call = lambda unit: target.forward(self.from_unit(unit).to(x.dtype))[0]
        self.low, self.span = low, span
        self.plain = span == 1.0 and not bool((low != 0).any())

    def from_unit(self, unit: Tensor) -> Tensor:
        """[0, 1] -> the bounds of the threat."""
        return unit if self.plain else unit.to(self.low) * self.span + self.low

    def to_unit(self, x: Tensor) -> Tensor:
        """The bounds of the threat -> [0, 1], single precision, as the tools compute."""
        unit = x if self.plain else (x - self.low) / self.span
        return unit.float().clamp(0.0, 1.0).contiguous()

    def forward(self, unit: Tensor) -> Tensor:
        return self._call(unit).clone()


def _face(name: str, target: Target, x: Tensor, threat: ThreatModel) -> tuple[_Face, float]:
    """The face, and the radius in its units."""
    if x.dim() != 4:
        fail("x", f"images (B, C, H, W), as {name} is made for", x, "Use the attacks of this package for vectors.")
    if isinstance(threat.radius, (Tensor, tuple)):
        fail("threat.radius", f"one number for all samples, as {name} takes no other", threat.radius)
    low, high = threat.box(x)
    span = high - low
    if not bool(torch.isfinite(span).all()) or float(span.max() - span.min()) > 1e-6 * float(span.max()):
        came = f"a span from {float(span.min()):g} to {float(span.max()):g}"
        remedy = "A ball of one radius would not stay one."
        fail("threat.bounds", f"finite bounds of one width, as {name} works in [0, 1]", came, remedy)
    width = float(span.max())
    return _Face(target, x, low, width), threat.radius / width


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = 'Install the extra: pip install "jiio[attacks]".'
        fail("attacks", f"the package {name}", f"no such package ({error})", remedy)


def _seed(seed: int | None, generator: torch.Generator) -> int:
    if seed is not None:
        return seed
    return int(torch.randint(2**31, (), generator=generator, device=generator.device))


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
        check_choice("AutoAttack.version", self.version, ("standard", "plus", "rand"))
        check_integer("AutoAttack.queries", self.queries, 1)
        if self.seed is not None:
            check_integer("AutoAttack.seed", self.seed, 0)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        package = _package("pyautoattack")
        face, radius = _face("AutoAttack", model, x, threat)
        classes = model.predict(x[:1]).logits.shape[1]
        seed = _seed(self.seed, generator)

        options = {"norm": NORMS[threat.norm], "eps": radius, "seed": seed, "device": x.device, "version": self.version}
        if classes < 4 and self.version == "standard":
            few = ["apgd-ce", *(["apgd-dlr"] if classes == 3 else []), "fab", "square"]
            options |= {"version": "custom", "attacks": few}
        tool = self._set(package.AutoAttack(face, **options), classes)

        trace = sys.gettrace()  # one of its checks takes away whatever debugger or coverage tool is at work
        try:
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

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        kind = getattr(_package("torchattacks"), self.attack)
        if threat.norm not in self.norms:
            fail("threat.norm", " or ".join(repr(n) for n in self.norms) + f" for {self.attack}", threat.norm)
        known = inspect.signature(kind).parameters
        strange = sorted(set(self.options) - set(known))
        if strange:
            fail("TorchAttack.options", f"options of {self.attack} ({', '.join(known)})", ", ".join(strange))

        # Of what the threat and the model decide, each class takes only a part.
        face, radius = _face(self.attack, model, x, threat)
        mine = {"eps": radius, "norm": NORMS[threat.norm], "n_classes": model.predict(x[:1]).logits.shape[1]}
        mine["seed"] = seed = _seed(self.seed, generator)
        tool = kind(face, **({name: value for name, value in mine.items() if name in known} | dict(self.options)))
        tool.set_device(x.device)

        torch.manual_seed(seed)  # the global state is put back by the caller
        with torch.enable_grad():
            return face.from_unit(tool(face.to_unit(x), y).detach())
