"""What the spectrum of a picture says of the blur that it went through: the likelihood of a kernel, without its image.

The best image *and* kernel together are no blur at all: a blurred picture is as smooth as a prior could wish, and a
kernel of one pixel explains it (Levin, Weiss, Durand, Freeman, "Understanding and evaluating blind deconvolution
algorithms", 2009). The remedy is to ask for the kernel alone, with the image integrated out. For an image of which only
the power spectrum S is known, and white noise, that integral has a closed form, frequency by frequency (Whittle 1953):

    -log p(y | k) = sum_f P(f) / v(f) + log v(f),     v(f) = S(f) |K(f)|^2 + sigma^2.

The logarithm is what a narrow kernel pays: it leaves room for fine detail, and there is none. S falls as a power of
the frequency, a little differently in every direction; its few numbers are fitted along with each kernel. Phases do not
enter, so a kernel and its mirror image are alike here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RINGS, SECTORS = 48, 36  # of polar bins up to 1/2 cycle per pixel, in which the periodogram is averaged
LOWEST = 0.025  # cycles per pixel; below, the window's own spectrum is seen
LOW = 0.12  # below which scenes have more power than noise
POWER, SPREAD = 2.5, 0.05  # of 1/f in the power of scenes, and how far it is trusted: six pictures of Set12
GUESS = 0.2  # spread of the logarithm of the variance of the noise about what was estimated
TURNS = 0.5  # spread of the four numbers that say how the power depends on direction
STEPS = 16  # of Newton's method with damping


@dataclass(frozen=True, eq=False)
class Scene:
    """Power spectra of sharp scenes, one for each kernel. numbers: (G, 6)."""

    numbers: Tensor

    def power(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(G, n) at frequencies (n,), in units in which white noise has sigma^2."""
        return torch.exp(self.numbers @ features(rows, columns))


def features(rows: Tensor, columns: Tensor) -> Tensor:
    """(6, n): what the logarithm of the power is a sum of."""
    far = torch.hypot(rows, columns).clamp_min(1e-9)
    angle = torch.atan2(rows, columns)
    turns = [torch.cos(2 * angle), torch.sin(2 * angle), torch.cos(4 * angle), torch.sin(4 * angle)]
    return torch.stack([torch.ones_like(far), -far.log(), *turns])


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The periodogram of a picture in polar bins.

    power: (n,) mean of each bin. count: (n,) frequencies in it. rows, columns: (n,) its mean frequency, cycles per
    pixel.
    """

    power: Tensor
    count: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, picture: Tensor) -> Spectrum:
        """Of a picture (H, W), faded out towards its border."""
        picture = picture.double()
        sides = [torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1] for n in picture.shape]
        fade = torch.outer(*sides)
        faded = fade * (picture - (fade * picture).sum() / fade.sum())
        power = torch.fft.fft2(faded).abs().square() / fade.square().sum()

        # Half of the plane; the other half is the same again.
        grid = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) for n in picture.shape), indexing="ij")
        rows, columns = grid
        far = torch.hypot(rows, columns)
        kept = (far > LOWEST) & (far < 0.5) & ((columns > 0) | ((columns == 0) & (rows > 0)))
        rows, columns, far, power = rows[kept], columns[kept], far[kept], power[kept]

        sector = ((torch.atan2(rows, columns) / math.pi + 0.5) * SECTORS).long().clamp_max(SECTORS - 1)
        bins = (2 * RINGS * far).long() * SECTORS + sector
        count = torch.bincount(bins, minlength=RINGS * SECTORS).double()
        seen = count > 0
        means = [torch.bincount(bins, v, minlength=RINGS * SECTORS)[seen] / count[seen] for v in (power, rows, columns)]
        return cls(means[0], count[seen], means[1], means[2])

    def below(self, frequency: float) -> Spectrum:
        """The coarser half of it, as a smaller picture would have it."""
        kept = torch.hypot(self.rows, self.columns) < frequency
        return Spectrum(self.power[kept], self.count[kept], self.rows[kept], self.columns[kept])

    def gain(self, kernel: Tensor) -> Tensor:
        """(1, n) |K|^2 of a kernel (k, l)."""
        turned = [
            torch.exp(-2j * math.pi * torch.outer(at, torch.arange(n, dtype=torch.float64)))
            for at, n in zip((self.rows, self.columns), kernel.shape, strict=True)
        ]
        values = ((turned[0] @ kernel.to(turned[0])) * turned[1]).sum(1)
        return values.abs().square()[None]

    def cost(self, gains: Tensor, sigma: float) -> tuple[Tensor, Scene]:
        """-log p(picture | kernel) (G,), up to a constant, for kernels of ``gains`` |K|^2 (G, n), and the scenes.

        By Newton's method, damped as Levenberg and Marquardt do it, on the numbers of the scenes and the level of the
        noise, for which ``sigma`` is a guess.
        """
        about = features(self.rows, self.columns)
        floor = 2 * math.log(max(sigma, 1e-4))
        middle = torch.tensor([0.0, POWER, 0.0, 0.0, 0.0, 0.0, floor], dtype=torch.float64)
        trust = torch.tensor([0.0, SPREAD**-2, *[TURNS**-2] * 4, GUESS**-2], dtype=torch.float64)
        numbers = middle.repeat(len(gains), 1)

        # The height, where noise is least: at low frequencies, those in which the kernel leaves anything.
        low = torch.hypot(self.rows, self.columns) < LOW
        signal = (self.power - math.exp(floor)).clamp_min(0.1 * math.exp(floor))
        lost = signal / (torch.exp(middle[:6] @ about) * gains.clamp_min(1e-3))
        numbers[:, 0] = lost[:, low].median(1).values.clamp_min(1e-30).log()

        def value(numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            signal = torch.exp((numbers[:, :6] @ about).clamp(-60.0, 60.0)) * gains
            whole = signal + numbers[:, 6:].exp()
            fit = (self.count * (self.power / whole + whole.log())).sum(1)
            return fit + 0.5 * (trust * (numbers - middle).square()).sum(1), signal / whole, whole

        damping = torch.full((len(gains), 1), 1e-2, dtype=torch.float64)
        best, share, whole = value(numbers)
        for _ in range(STEPS):
            slope, bend = self._derivatives(about, share, whole)
            slope, bend = slope + trust * (numbers - middle), bend + trust.diag()
            heavier = bend + torch.diag_embed(damping * (bend.diagonal(dim1=1, dim2=2) + 1e-3))
            trial = numbers - torch.linalg.solve(heavier, slope)
            cost, shares, wholes = value(trial)
            good = (cost < best)[:, None]
            numbers, share, whole = (
                torch.where(good, new, old) for new, old in ((trial, numbers), (shares, share), (wholes, whole))
            )
            best, damping = torch.where(good[:, 0], cost, best), torch.where(good, damping / 3, 4 * damping)
        return best, Scene(numbers[:, :6])

    def _derivatives(self, about: Tensor, share: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Slope (G, 7) and expected curvature (G, 7, 7) of the fit, in the scene's numbers and the log of the floor.

        share: (G, n) of the scene in ``whole``; the rest is noise.
        """
        excess, rest = self.count * (1 - self.power / whole), 1 - share
        slope = torch.cat([(excess * share) @ about.T, (excess * rest).sum(1, keepdim=True)], 1)
        pairs = (about[:, None] * about[None]).flatten(0, 1)  # (36, n)
        corner = ((self.count * share.square()) @ pairs.T).view(-1, 6, 6)
        side = ((self.count * share * rest) @ about.T)[:, :, None]
        last = (self.count * rest.square()).sum(1)[:, None, None]
        return slope, torch.cat([torch.cat([corner, side], 2), torch.cat([side.mT, last], 2)], 1)
