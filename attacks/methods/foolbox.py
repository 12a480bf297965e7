"""foolbox as attacks of this package: minimal perturbations, few pixels, decisions alone.

It comes with the extra ``foolbox``: pip install "jiio[foolbox]". The model gets a face (:mod:`.face`), and what is
found is verified as every result is.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jiio.checks import ArgumentTypeError, check_choice, check_integer, fail

from ..base import AbstractAttack
from ..target import Target
from ..threat import ThreatModel
from .face import Face, check_faced, default_dtype, package, seeded

# foolbox's attacks by what they make small. The last ones make the number of pixels small,
# or a strength of their own.
LINF = (
    "LinfPGD", "LinfFastGradientAttack", "LinfBasicIterativeAttack", "LinfDeepFoolAttack", "LInfFMNAttack",
    "LinfinityBrendelBethgeAttack", "LinfAdditiveUniformNoiseAttack", "LinfRepeatedAdditiveUniformNoiseAttack",
)  # fmt: skip
L2 = (
    "L2PGD", "L2FastGradientAttack", "L2BasicIterativeAttack", "L2DeepFoolAttack", "L2CarliniWagnerAttack", "DDNAttack",
    "L2FMNAttack", "NewtonFoolAttack", "L2BrendelBethgeAttack", "BoundaryAttack", "HopSkipJumpAttack",
    "L2AdditiveGaussianNoiseAttack", "L2RepeatedAdditiveGaussianNoiseAttack", "LinearSearchContrastReductionAttack",
)  # fmt: skip
L1 = ("L1FMNAttack", "L1BrendelBethgeAttack", "EADAttack", "SparseL1DescentAttack", "L1PGD")
ANY = (
    "L0FMNAttack", "L0BrendelBethgeAttack", "PointwiseAttack", "SaltAndPepperNoiseAttack", "GaussianBlurAttack",
    "LinearSearchBlendedUniformNoiseAttack", "InversionAttack",
)  # fmt: skip
NORMS = {"linf": LINF, "l2": L2, "l1": L1}
FREE = ("Noise", "Boundary", "HopSkip", "Pointwise", "Blur", "Contrast", "Inversion")  # they ask for no gradient


@dataclass(frozen=True)
class FoolboxAttack(AbstractAttack):
    """An attack of foolbox by its class name, for example ``FoolboxAttack("HopSkipJumpAttack", {"steps": 10})``.

    options: of that class, without the radius, which the threat decides. Attacks for the smallest perturbation, in
    their norm or in pixels (L0), know no radius: what they find is projected onto the ball, and counts where it still
    works. seed: of its random numbers (None: from the generator).
    """

    attack: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        check_choice("FoolboxAttack.attack", self.attack, (*LINF, *L2, *L1, *ANY))
        if not isinstance(self.options, Mapping):
            fail("FoolboxAttack.options", "a mapping of options", self.options, error=ArgumentTypeError)
        if self.seed is not None:
            check_integer("FoolboxAttack.seed", self.seed, 0)

    @property
    def gradient_free(self) -> bool:  # type: ignore[override]
        """Whether it asks for decisions or scores alone."""
        return any(word in self.attack for word in FREE)

    def fits(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        known = inspect.signature(self._kind()).parameters
        strange = sorted(set(self.options) - set(known))
        if strange:
            fail("FoolboxAttack.options", f"options of {self.attack} ({', '.join(known)})", ", ".join(strange))
        own = [norm for norm, names in NORMS.items() if self.attack in names]
        if own and threat.norm not in own:
            fail("threat.norm", f"{own[0]!r} for {self.attack}", threat.norm)
        check_faced(self.attack, x, threat)

    def _kind(self) -> type:
        return getattr(package("foolbox", "foolbox").attacks, self.attack)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        face, tool, radius = Face(model, x, threat), self._kind()(**self.options), threat.radius
        assert isinstance(radius, float | int)
        wrapped = package("foolbox", "foolbox").PyTorchModel(face, bounds=(0, 1), device=x.device)

        # Attacks of decisions begin at a misclassified point, and what is misclassified already breaks some of them.
        right = torch.nonzero(model.predict(x).label == y)[:, 0]
        found = face.to_unit(x)
        with _seeds(seeded(self.seed, generator)), torch.enable_grad(), default_dtype(torch.float32):
            if len(right):
                found[right] = self._found(tool, wrapped, found[right], y[right], radius / face.span)
        return face.from_unit(found.detach())

    def _found(self, tool: Any, wrapped: Any, images: Tensor, labels: Tensor, radius: float) -> Tensor:
        """What the tool finds for images (B, C, H, W); where it finds no point to begin with, the image itself."""
        epsilons = None if self._minimal(tool) else [radius]
        try:
            found = tool(wrapped, images, labels, epsilons=epsilons)[1]
            return found if epsilons is None else found[0]
        except ValueError:  # for all, as one had no start: one by one, then
            if len(images) == 1:
                return images
        parts = zip(images.split(1), labels.split(1), strict=True)
        return torch.cat([self._found(tool, wrapped, image, label, radius) for image, label in parts])

    @staticmethod
    def _minimal(tool: Any) -> bool:
        return isinstance(tool, package("foolbox", "foolbox").attacks.base.MinimizationAttack)


@contextlib.contextmanager
def _seeds(seed: int) -> Iterator[None]:
    """foolbox draws from torch and from numpy; the state of torch is put back by the caller, that of numpy here."""
    before = np.random.get_state()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
