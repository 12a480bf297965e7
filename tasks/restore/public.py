"""A trained restorer as one call: ``Restorer.load("prior-grey")(y, physics)``.

A restorer is an ``nn.Module``: it moves by ``.to(device)``, and lies inside other models. It computes in the number
type and on the device of its weights; measurements come and images go in those of the caller, and the physics is called
with images as the caller's measurement is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jiio.checks import check_finite, check_instance, fail
from jiio.tasks.frame.machine import check_device
from jiio.tasks.maps.base import Denoise
from jiio.tasks.maps.noise import Gaussian
from jiio.tasks.maps.physics import as_map, packed

from .base import AbstractRestorer, Restoration
from .load import load_restorer


class Restorer(nn.Module):
    """Restores images from measurements by any map. restorer: what does it, such as an ``ImageRestorer``."""

    def __init__(self, restorer: AbstractRestorer) -> None:
        super().__init__()
        self.restorer = check_instance("restorer", restorer, AbstractRestorer)

    @classmethod
    def load(
        cls,
        weights: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        allow: Iterable[str] = (),
    ) -> Restorer:
        """The restorer in shipped weights (``prior-grey``, ``prior-colour``), a checkpoint or the folder of a training.

        device, dtype: of the weights, in which everything is computed. allow: import paths, modules or packages of
        one's own that the file may name.

        Errors: InputError where there is none, CheckpointError where it is damaged, ArgumentError for a device that
        this machine has not, or a number type that no image has.
        """
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            fail("dtype", "a floating-point type such as torch.float32", dtype)
        place = check_device(str(device))
        return cls(load_restorer("weights", str(weights), allow=allow)).to(place, dtype).eval()

    @property
    def channels(self) -> int:
        """Of the images that the weights were trained on; grey weights take others channel by channel."""
        return self.restorer.channels

    @torch.no_grad()
    def forward(
        self,
        y: Any,
        physics: Any = None,
        *,
        sigma: float | Tensor | None = None,
        noise: Any = None,
        shape: tuple[int, int, int] | None = None,
        **settings: Any,
    ) -> Restoration:
        """The images behind a batch of measurements, and an account of how they were found.

        Args:
            y: measurements, batch first: real or complex, of any number type and device, or a stack of tensors.
            physics: a function of images, an object with ``A``, a map of jiio; None for images with noise, or for what
                the weights were trained against, where that is one map.
            sigma, noise, shape: see :func:`jiio.tasks.maps.physics.as_map`.
            settings: of :func:`jiio.solve`, such as ``max_steps=200`` or ``trace=True``.

        Returns: a ``Restoration``: ``image`` (B, C, H, W), not clipped, as y is in type and device; ``status`` (B,) and
        the whole ``solution``.

        Errors: ArgumentError, one sentence.
        """
        measured = check_finite("y", packed(y))
        operator = as_map(Denoise(0.0) if physics is None else physics, y, sigma=sigma, noise=noise, shape=shape)
        weight = next(self.restorer.parameters())
        given = measured.to(weight)
        silent = physics is None and isinstance(operator.noise, Gaussian) and operator.sigma == 0.0
        if silent and self.restorer.own_map(given) is None:
            fail("sigma", "the level of the noise, where there is no physics", "none", "Pass sigma= or noise=.")
        done = self.restorer.restore(given, operator, **settings)
        return dataclasses.replace(done, image=done.image.to(measured))


class Denoiser(nn.Module):
    """The prior of a restorer as a denoiser in the manner of ``deepinv.models.Denoiser``: ``denoiser(x, sigma)``.

    For plug-and-play algorithms of others. restorer: one that has a prior on images. sigma: a number, (B,), or any
    shape with one number for each image.
    """

    def __init__(self, restorer: Restorer) -> None:
        super().__init__()
        self.restorer = check_instance("restorer", restorer, Restorer)

    @classmethod
    def load(cls, weights: str, **options: Any) -> Denoiser:
        """From weights and options as :meth:`Restorer.load` takes them."""
        return cls(Restorer.load(weights, **options))

    def forward(self, x: Tensor, sigma: float | Tensor, **_: Any) -> Tensor:
        """x (B, C, H, W) without its noise, of level ``sigma`` in the units of x. Other arguments, which some
        algorithms hand on, are not used here.
        """
        if isinstance(sigma, Tensor):
            levels = sigma.detach().flatten().cpu().clamp_min(1e-6)
            sigma = float(levels) if levels.numel() == 1 else levels
        return self.restorer(x, sigma=max(sigma, 1e-6) if isinstance(sigma, float | int) else sigma).image


class Reconstructor(nn.Module):
    """A restorer in the manner of ``deepinv.models.Reconstructor``: ``model(y, physics)`` is the image alone.

    restorer: what restores. settings: of :func:`jiio.solve`, for every call.
    """

    def __init__(self, restorer: Restorer, **settings: Any) -> None:
        super().__init__()
        self.restorer = check_instance("restorer", restorer, Restorer)
        self.settings = settings

    @classmethod
    def load(cls, weights: str, **options: Any) -> Reconstructor:
        """From weights and options as :meth:`Restorer.load` takes them."""
        return cls(Restorer.load(weights, **options))

    def forward(self, y: Any, physics: Any, **_: Any) -> Tensor:
        """The image (B, C, H, W) behind measurements y by ``physics``, as :class:`Restorer` takes both. Other
        arguments, which trainers hand on, are not used here.
        """
        return self.restorer(y, physics, **self.settings).image
