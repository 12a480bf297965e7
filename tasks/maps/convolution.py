"""Blur and downsampling: one linear map, a convolution with a stride, and its exact adjoint.

What happens at the border is a matter of indices alone. Along each axis the image is first extended by repeating some
of its rows (which ones, the boundary says), then convolved where the kernel fits whole, at every ``stride``-th place.
The adjoint does the transposes in the opposite order. A window of the image is the same map with fewer indices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import check_choice, check_integer, check_number, fail

from .base import LinearMap, check_images, check_window
from .kernels import bicubic_kernel

BOUNDARIES = ("circular", "symmetric", "replicate", "valid")


@dataclass(frozen=True, eq=False)
class Axis:
    """How the measured values along one axis come from the pixels along it.

    length: of the image. index: which pixel stands at each place of the extended image. taps: of the kernel. stride:
    places between two measured values. origin: the pixel at which the block of the first measured value begins.
    """

    length: int
    index: Tensor
    taps: int
    stride: int
    origin: int

    @classmethod
    def of(cls, name: str, length: int, taps: int, stride: int, boundary: str) -> Axis:
        """The whole axis of an image under one of the BOUNDARIES."""
        before = (taps - stride) // 2  # pixels that the first value sees before its own block
        if boundary == "valid":
            if taps > length:
                remedy = "Use another boundary."
                fail("kernel", f"one that fits into the image, whose {name} is {length}", f"{taps} taps", remedy)
            return cls(length, torch.arange(length), taps, stride, before)

        # Every block is measured, the last one even where the image ends inside it.
        count = -(-length // stride)
        place = torch.arange(-before, stride * (count - 1) + taps - before)
        if boundary == "circular":
            index = place % length
        elif boundary == "replicate":
            index = place.clamp(0, length - 1)
        else:  # the mirror stands at the edge, so that the last pixel comes twice
            index = place % (2 * length)
            index = torch.minimum(index, 2 * length - 1 - index)

        return cls(length, index, taps, stride, 0)

    @property
    def count(self) -> int:
        """How many values are measured."""
        return (len(self.index) - self.taps) // self.stride + 1

    @property
    def circular(self) -> bool:
        """Whether every pixel is measured once and the border is the opposite side."""
        place = torch.arange(len(self.index)) + self.index[0]
        return self.stride == 1 and self.count == self.length and torch.equal(self.index, place % self.length)

    def kept(self, start: int, length: int) -> tuple[int, int]:
        """First and last-but-one of the values that see nothing outside the window."""
        seen = self.index.unfold(0, self.taps, self.stride)  # (count, taps)
        inside = ((seen >= start) & (seen < start + length)).all(1).nonzero().flatten().tolist()
        if not inside:
            came = f"one of {length} pixels"
            fail("window", f"a window in which the kernel of {self.taps} taps fits", came, "Use larger tiles.")
        return inside[0], inside[-1] + 1

    def window(self, start: int, length: int) -> Axis:
        """The axis of a window."""
        first, end = self.kept(start, length)
        index = self.index[first * self.stride : (end - 1) * self.stride + self.taps] - start
        return replace(self, length=length, index=index, origin=self.origin + first * self.stride - start)


@dataclass(frozen=True, eq=False)
class Convolution(LinearMap):
    """A convolution with a stride; made by :func:`blur` and :func:`downsample`.

    Args:
        kernel: (k, l), any real values; a convolution in the proper sense, so that one bright pixel in the image
            becomes a picture of the kernel.
        rows, columns: how the measured values come from the pixels, border included.
        sigma: standard deviation of the noise.
    """

    kernel: Tensor
    rows: Axis
    columns: Axis
    sigma: float = 0.0

    def of_samples(self, index: Tensor, batch: int) -> LinearMap:
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.rows.length, self.columns.length

    @property
    def measured(self) -> tuple[int, int]:
        """Height and width of the measurements."""
        return self.rows.count, self.columns.count

    def A(self, x: Tensor) -> Tensor:
        check_images("x", x, size=self.size)
        x = x.index_select(2, self.rows.index.to(x.device)).index_select(3, self.columns.index.to(x.device))
        return self._transform(x)[(..., *self._places)]

    def A_adjoint(self, y: Tensor) -> Tensor:
        check_images("y", y, size=self.measured)
        shape, long, wide = y.shape[:2], len(self.rows.index), len(self.columns.index)
        x = y.new_zeros(*shape, long, wide)
        x[(..., *self._places)] = y
        x = self._transform(x, adjoint=True)
        x = y.new_zeros(*shape, self.size[0], wide).index_add(2, self.rows.index.to(y.device), x)
        return y.new_zeros(*shape, *self.size).index_add(3, self.columns.index.to(y.device), x)

    @property
    def _places(self) -> tuple[slice, slice]:
        """Where in the convolved extended image the measured values stand: where the kernel fits whole."""
        return slice(self.rows.taps - 1, None, self.rows.stride), slice(
            self.columns.taps - 1, None, self.columns.stride
        )

    def _transform(self, x: Tensor, *, adjoint: bool = False) -> Tensor:
        """The circular convolution, which is right at :attr:`_places`, where nothing wraps; or its adjoint.

        By the Fourier transform, which on a CPU is the faster way from kernels of 5 x 5 on, and whose adjoint is as
        fast as itself.
        """
        height, width = x.shape[2:]
        grid = (good_length(height), good_length(width))
        factor = torch.fft.rfft2(self.kernel.to(x), s=grid)
        factor = factor.conj() if adjoint else factor
        return torch.fft.irfft2(torch.fft.rfft2(x, s=grid) * factor, s=grid)[..., :height, :width]

    def about(self, x: Tensor, step: Tensor) -> Tensor:
        """As if the border were the opposite side, and a reduction kept what it folds back to itself."""
        power = torch.fft.rfft2(self.kernel.to(x), s=x.shape[2:]).abs().square()
        power = power / (self.rows.stride * self.columns.stride)
        return torch.fft.irfft2(torch.fft.rfft2(x) / (1.0 + step * power), s=x.shape[2:])

    def start(self, y: Tensor) -> Tensor:
        """The measurement itself, enlarged by bicubic interpolation where it is coarser than the image.

        Pixels outside the measured blocks (a ``valid`` boundary, a window) repeat the nearest measured one.
        """
        check_images("y", y, size=self.measured)
        strides = (self.rows.stride, self.columns.stride)
        if strides != (1, 1):
            size = [n * s for n, s in zip(self.measured, strides, strict=True)]
            # antialias has nothing to smooth here; it selects Keys' a = -1/2, torch's plain bicubic has -3/4
            y = F.interpolate(y, size=size, mode="bicubic", antialias=True, align_corners=False)
        for dim, axis in ((2, self.rows), (3, self.columns)):
            place = (torch.arange(axis.length) - axis.origin).clamp(0, y.shape[dim] - 1)
            y = y.index_select(dim, place.to(y.device))
        return y

    def norm_bound(self, image: Tensor, *, rounds: int = 0) -> float:
        """Schur's bound, the root of the largest row sum times the largest column sum of the absolute matrix.

        Exact for a kernel of non-negative values under the circular boundary.
        """
        absolute = replace(self, kernel=self.kernel.abs())
        ones = torch.ones(1, 1, *self.measured, dtype=torch.float64)
        return float(self.kernel.abs().sum() * absolute.A_adjoint(ones).max()) ** 0.5

    def window(self, top: int, left: int, height: int, width: int) -> Convolution:
        check_window(top, left, height, width, size=self.size)
        return replace(self, rows=self.rows.window(top, height), columns=self.columns.window(left, width))

    def window_of(self, y: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        check_images("y", y, size=self.measured)
        check_window(top, left, height, width, size=self.size)
        first, start, rows, columns = self.seen(top, left, height, width)
        return y[..., first : first + rows, start : start + columns]

    def seen(self, top: int, left: int, height: int, width: int) -> tuple[int, int, int, int]:
        (first, last), (start, end) = self.rows.kept(top, height), self.columns.kept(left, width)
        return first, start, last - first, end - start


def blur(kernel: Tensor, size: tuple[int, int], *, boundary: str = "circular", sigma: float = 0.0) -> Convolution:
    """Convolution with a kernel.

    Args:
        kernel: (k, l), for example of :mod:`.kernels`; of an even side, the place k // 2 counts as the centre.
        size: height and width of the images.
        boundary: what lies beyond the border. ``circular``, the opposite side, as the deblurring literature has it
            (Zhang et al., "Plug-and-play image restoration with deep denoiser prior", TPAMI 2021); ``symmetric``, the
            mirror image; ``replicate``, the last pixel; ``valid``, nothing: values are measured only where the kernel
            lies inside the image, and the measurement is smaller than the image.
        sigma: standard deviation of the noise.
    """
    return _strided(kernel, size, 1, boundary, sigma)


def downsample(factor: int, size: tuple[int, int], *, boundary: str = "symmetric", sigma: float = 0.0) -> Convolution:
    """Bicubic downsampling with antialiasing by a whole factor, as MATLAB's ``imresize(x, 1/factor)`` does it.

    Where the factor does not divide the height or the width, the last measured row or column sees beyond the border;
    there are ``ceil(height / factor)`` rows. Away from the border Pillow and torch (``antialias=True``) agree with it.
    """
    if check_integer("factor", factor, 2) > 8:
        fail("factor", "a whole number from 2 to 8", factor)
    return _strided(bicubic_kernel(factor), size, factor, boundary, sigma)


def _strided(kernel: Tensor, size: tuple[int, int], stride: int, boundary: str, sigma: float) -> Convolution:
    check_number("sigma", sigma, 0.0)
    check_choice("boundary", boundary, BOUNDARIES)
    if not isinstance(kernel, Tensor) or kernel.ndim != 2 or not kernel.is_floating_point() or kernel.numel() == 0:
        fail("kernel", "a floating tensor (height, width)", kernel)
    height, width = (check_integer(f"size[{i}]", n, 1) for i, n in enumerate(size))
    rows = Axis.of("height", height, kernel.shape[0], stride, boundary)
    columns = Axis.of("width", width, kernel.shape[1], stride, boundary)
    return Convolution(kernel, rows, columns, sigma)


def good_length(n: int) -> int:
    """The least length of at least n that the Fourier transform is fast at: no prime factor above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1
