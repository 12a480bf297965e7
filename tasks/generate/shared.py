"""Several decoders that share one mixture of Gaussians over their codes, a component for each class.

Deep variational transfer: what is known of the classes in one domain (labels of MNIST) is said in the codes, which both
domains use, and so serves the other (USPS), of whose images few or none have a label. A class k is drawn, a code from
the component of the class, and an image from the decoder of the domain with noise of variance v:

    p(y, x, k) = w_k N(x; m_k, 1) N(y; d(x), v)

There is no encoder. The code of an image minimises, by the joint solve,

    |d(x) - y|^2 - 2 v log (w_k N(x; m_k, 1))          where the class k is known,
    |d(x) - y|^2 - 2 v log sum_k w_k N(x; m_k, 1)      where it is not,

and around it stands a Gaussian q of a learnt spread. Decoders and mixture are trained on minus 2 v times the evidence
bound at that q, with the class summed over where it is not known (Kingma, Rezende, Mohamed, Welling 2014). The class of
an image is the component that answers for its code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.checks import check_choice, check_finite, check_instance, check_integer, check_number, fail
from jiio.tasks.solving.latent import LatentRestorer

UNKNOWN = -1  # in the place of a label
APART = 0.5  # standard deviation of the means at the beginning, in widths of a component
TOLERANCE = jiio.Tolerance(1e-5, 1e-3)


class SharedMixture(nn.Module):
    """A Gaussian of width one for every class. means: (K, n). shares: (K,), before the softmax."""

    def __init__(self, classes: int, latent: int) -> None:
        super().__init__()
        check_integer("classes", classes, 1)
        check_integer("latent", latent, 1)
        self.means = nn.Parameter(APART * torch.randn(classes, latent))
        self.shares = nn.Parameter(torch.zeros(classes))

    def components(self, x: Tensor) -> Tensor:
        """(B, K) log of share times density of codes (B, n)."""
        distance = (x[:, None] - self.means).square().sum(2)
        return self.shares.log_softmax(0) - 0.5 * distance - 0.5 * x.shape[1] * math.log(2 * math.pi)

    def log_density(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B,) of codes together with their class, where labels (B,) say it, and of codes alone where they are -1."""
        components = self.components(x)
        own = components.gather(1, labels.clamp_min(0)[:, None])[:, 0]
        return torch.where(labels == UNKNOWN, components.logsumexp(1), own)


@dataclass(frozen=True, eq=False)
class Coded:
    """Codes of images: x (B, n), detached; what their solves said, as calls of the batch and converged (B,)."""

    x: Tensor
    calls: int
    converged: Tensor


class SharedDecoders(nn.Module):
    """A decoder (:class:`LatentRestorer`, whose ``prior`` is v) for each domain, and what their codes share.

    Errors: ArgumentError, ArgumentTypeError where they do not fit together.
    """

    def __init__(self, domains: Mapping[str, LatentRestorer], mixture: SharedMixture, *, max_steps: int = 40) -> None:
        super().__init__()
        check_instance("domains", domains, Mapping)
        if not domains:
            fail("domains", "at least one decoder", "none")
        self.mixture = check_instance("mixture", mixture, SharedMixture)
        self.max_steps = check_integer("max_steps", max_steps, 2)
        latent = mixture.means.shape[1]
        for name, decoder in domains.items():
            check_instance(f"domains.{name}", decoder, LatentRestorer)
            check_number(f"domains.{name}.prior", decoder.prior, 0.0, open_low=True)
            if decoder.decoder.config.input != (latent,):
                came = f"one of {decoder.decoder.config.input}"
                fail(f"domains.{name}", f"a decoder of codes of {latent} numbers, as the mixture has", came)
        self.domains = nn.ModuleDict(domains)
        self.log_spread = nn.Parameter(torch.full((latent,), -1.0))

    def decoder(self, domain: str) -> LatentRestorer:
        """That of a domain."""
        found = self.domains[check_choice("domain", domain, list(self.domains))]
        assert isinstance(found, LatentRestorer)
        return found

    def problem(self, domain: str, images: Tensor, labels: Tensor | None = None) -> jiio.Problem:
        """Whose answer is the code of images (B, C, H, W). labels: (B,), -1 or None where the class is not known."""
        model, known = self.decoder(domain), self._labels(domain, images, labels)
        mixture, mean, prior = self.mixture, model.mean, model.prior

        def objective(image: Tensor, x: Tensor, y: Tensor, label: Tensor) -> Tensor:
            error = (image + mean - y).square().flatten(1).sum(1)
            return error - 2 * prior * mixture.log_density(x, label)

        return model.decoder.problem(jiio.PerSample(objective, images, known))

    def _labels(self, domain: str, images: Tensor, labels: Tensor | None) -> Tensor:
        """Checked; (B,) int64."""
        shape, classes = self.decoder(domain).mean.shape, len(self.mixture.means)
        if not isinstance(images, Tensor) or images.dim() != 4 or images.shape[1:] != shape or not len(images):
            fail("images", f"images (B, {', '.join(map(str, shape))}), as {domain} has them", images)
        check_finite("images", images)
        if labels is None:
            return torch.full((len(images),), UNKNOWN, device=images.device)
        if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.dtype != torch.int64:
            fail("labels", f"{len(images)} whole numbers, a class or -1 for each image", labels)
        if int(labels.min()) < UNKNOWN or int(labels.max()) >= classes:
            came = f"labels from {int(labels.min())} to {int(labels.max())}"
            fail("labels", f"classes from 0 to {classes - 1}, or -1", came)
        return labels

    def solved(
        self, domain: str, images: Tensor, labels: Tensor | None, adjoint: jiio.AbstractAdjoint
    ) -> jiio.Solution:
        """The joint solve, begun at the mean of the components."""
        problem = self.problem(domain, images, labels)
        start = (self.mixture.shares.softmax(0) @ self.mixture.means).detach()
        x0 = start.expand(len(images), -1).contiguous()
        settings = {"solver": jiio.Anderson(memory=12), "tolerance": TOLERANCE, "on_failure": "ignore"}
        return jiio.solve(problem, x0, adjoint=adjoint, max_steps=self.max_steps, **settings)

    @torch.no_grad()
    def codes(self, domain: str, images: Tensor, labels: Tensor | None = None) -> Coded:
        """By the joint solve; labels as in :meth:`problem`."""
        solution = self.solved(domain, images, labels, jiio.Detached())
        return Coded(solution.x, solution.evaluations.total, solution.converged)

    def recognition(self, domain: str, images: Tensor, labels: Tensor) -> Tensor:
        """(B,) minus the log probability of the class of images, by the component that answers for the code that is
        found without it. The gradient goes through the joint solve (:class:`jiio.KKT`), into decoder and mixture.
        """
        known = self._labels(domain, images, labels)
        x = self.solved(domain, images, None, jiio.KKT(rtol=1e-2, max_steps=30)).x
        return F.cross_entropy(self.mixture.components(x), known, reduction="none")

    def bound(self, domain: str, images: Tensor, labels: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        """(B,) minus 2 v times the evidence bound (without its constants) at q = N(x, spread^2), by one draw of it.

        x: (B, n), the codes. noise: (B, n), standard normal.
        """
        model, known = self.decoder(domain), self._labels(domain, images, labels)
        drawn = x + self.log_spread.exp() * noise
        z = model.decoder.solve(drawn, tolerance=TOLERANCE, on_failure="ignore").z
        error = (model.decode(z) - images).square().flatten(1).sum(1)
        return error - 2 * model.prior * (self.mixture.log_density(drawn, known) + self.log_spread.sum())

    def classes(self, domain: str, images: Tensor) -> Tensor:
        """(B, K) how likely every class is, by the component that answers for the code."""
        return self.mixture.components(self.codes(domain, images).x).softmax(1).detach()
