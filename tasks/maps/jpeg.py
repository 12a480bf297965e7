"""What a JPEG file keeps of a picture, as a linear map: the frequencies of its blocks, each in units of its own error.

The encoder turns colours into luma and chroma, makes the chroma coarser by a mean over 2 x 2 pixels (mostly), cuts each
plane into blocks of 8 x 8, takes their cosine transform and rounds every frequency to a multiple of its step. All but
the rounding is linear, and the rounding is an error of known size: even over a cell as wide as the step, so of standard
deviation step / sqrt(12). In units of it all errors are alike, and a prior for Gaussian noise serves (Robertson and
Stevenson, "DCT quantization noise in compressed images", IEEE Trans. CSVT 15, 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from jiio.checks import check_number, fail

from .base import LinearMap, check_images, check_window, fill

SIDE = 8  # of a block
UNDONE = 12  # rounds, each of which halves what is left of an interpolation
TO_LUMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF, without its offset


def cosines(like: Tensor | None = None) -> Tensor:
    """(8, 8), the orthonormal cosine transform: frequencies by pixels."""
    k = torch.arange(SIDE, dtype=torch.float64)
    rows = torch.cos(math.pi * k[:, None] * (k + 0.5) / SIDE) * math.sqrt(2 / SIDE)
    rows[0] /= math.sqrt(2)
    return rows if like is None else rows.to(like)


def blockwise(plane: Tensor, turn: Tensor) -> Tensor:
    """``turn`` from both sides of every block of planes (B, H, W) whose sides are multiples of 8."""
    batch, height, width = plane.shape
    blocks = plane.reshape(batch, height // SIDE, SIDE, width // SIDE, SIDE)
    return torch.einsum("ij,bhjwk,lk->bhiwl", turn, blocks, turn).reshape(plane.shape)


@dataclass(frozen=True)
class Along:
    """The pixels of a window along one axis, in blocks of the picture's own grid.

    length: of the window. before, after: pixels that are missing of the first and of the last block. ends: whether the
    picture ends with the window, where the encoder has repeated the last pixel.
    """

    length: int
    before: int = 0
    after: int = 0
    ends: bool = True

    @classmethod
    def of(cls, length: int, step: int) -> Along:
        """A whole axis; step: of the coarsest grid of blocks."""
        return cls(length, 0, -length % step)

    @property
    def count(self) -> int:
        """Pixels of all blocks."""
        return self.before + self.length + self.after

    def index(self) -> Tensor:
        """(count,), the pixel of the window at each place."""
        return (torch.arange(self.count) - self.before).clamp(0, self.length - 1)

    def whole(self, step: int) -> Tensor:
        """(count,) of truth values: places in blocks of so many pixels that the window alone explains."""
        first = -(-self.before // step) * step
        last = self.count if self.ends else (self.before + self.length) // step * step
        place = torch.arange(self.count)
        return (place >= first) & (place < last)

    def window(self, start: int, length: int, step: int) -> tuple[Along, slice]:
        """Of a part of the window, and which places of this axis are its blocks."""
        first = (self.before + start) // step * step
        before, ends = self.before + start - first, self.ends and start + length == self.length
        after = -(before + length) % step
        found = Along(length, before, after, ends)
        return found, slice(first, first + found.count)


@dataclass(frozen=True, eq=False)
class Jpeg(LinearMap):
    """Images (B, C, H, W) to the frequencies of their blocks, (B, C, H', W') with H' and W' full blocks.

    Chroma that is coarser stands in the first 8 x 8 places of blocks that are as many times larger.

    Args:
        errors: (C, 8, 8), standard deviation of each frequency, in units of the image range [0, 1].
        rows, columns: the pixels in blocks.
        coarse: by how much chroma is coarser along rows and columns, 1 or 2.
        sigma: the least of the errors.
        level: of noise, at which a prior serves best, where it is known.
    """

    errors: Tensor
    rows: Along
    columns: Along
    coarse: tuple[int, int] = (1, 1)
    sigma: float = 0.0
    level: float | None = None

    def of_samples(self, index: Tensor, batch: int) -> LinearMap:
        return self

    @classmethod
    def of(
        cls, errors: Tensor, size: tuple[int, int], coarse: tuple[int, int] = (1, 1), *, level: float | None = None
    ) -> Jpeg:
        """For whole images of this size."""
        if not isinstance(errors, Tensor) or errors.ndim != 3 or errors.shape[1:] != (SIDE, SIDE):
            fail("errors", "a tensor (1 or 3, 8, 8)", errors)
        if len(errors) not in (1, 3) or not bool((errors > 0).all()):
            fail("errors", "the errors of one plane or three, above 0", errors)
        if any(n not in (1, 2) for n in coarse):
            fail("coarse", "1 or 2 along rows and columns", coarse)
        coarse = coarse if len(errors) == 3 else (1, 1)
        rows, columns = (Along.of(n, SIDE * step) for n, step in zip(size, coarse, strict=True))
        return cls(errors, rows, columns, coarse, check_number("errors", float(errors.min()), 0.0), level)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.rows.length, self.columns.length

    @property
    def measured(self) -> tuple[int, int]:
        """Height and width of the frequencies."""
        return self.rows.count, self.columns.count

    @property
    def _steps(self) -> tuple[int, int]:
        return SIDE * self.coarse[0], SIDE * self.coarse[1]

    def A(self, x: Tensor) -> Tensor:
        planes = self._planes(x)
        return self._encoded(planes[:, :1], self._coarser(planes))

    def decoded(self, x: Tensor) -> Tensor:
        """The measurement that a decoder made the picture x (B, C, H, W) of, whose chroma it had interpolated."""
        planes = self._planes(x)
        chroma = coarse = self._coarser(planes)
        if self.coarse != (1, 1):
            for _ in range(UNDONE):
                again = F.interpolate(chroma, size=planes.shape[2:], mode="bilinear", align_corners=False)
                chroma = chroma + coarse - F.avg_pool2d(again, self.coarse)
        return self._encoded(planes[:, :1], chroma)

    def _planes(self, x: Tensor) -> Tensor:
        """Luma and chroma of images, in full blocks."""
        check_images("x", x, size=self.size)
        x = x.index_select(2, self.rows.index().to(x.device)).index_select(3, self.columns.index().to(x.device))
        return self._mixed(x, TO_LUMA)

    def _coarser(self, planes: Tensor) -> Tensor:
        """The chroma of these planes, by a mean; that of grey ones has no channel."""
        return planes[:, 1:] if self.coarse == (1, 1) else F.avg_pool2d(planes[:, 1:], self.coarse)

    def _encoded(self, luma: Tensor, chroma: Tensor) -> Tensor:
        """The frequencies of the planes, weighted."""
        turn = cosines(luma)
        fine = blockwise(luma[:, 0], turn)[:, None] * self._weights(luma, 0)
        if len(self.errors) == 1:
            return fine
        chroma = blockwise(chroma.flatten(0, 1), turn).view_as(chroma)
        return torch.cat([fine, self._spread(chroma) * self._weights(luma, 1)], 1)

    def A_adjoint(self, y: Tensor) -> Tensor:
        check_images("y", y, size=self.measured)
        turn = cosines(y).T
        planes = blockwise((y[:, :1] * self._weights(y, 0))[:, 0], turn)[:, None]
        if len(self.errors) == 3:
            chroma = self._gather(y[:, 1:] * self._weights(y, 1))
            chroma = blockwise(chroma.flatten(0, 1), turn).view_as(chroma)
            planes = torch.cat([planes, self._repeated(chroma) / (self.coarse[0] * self.coarse[1])], 1)
        x = self._mixed(planes, tuple(zip(*TO_LUMA, strict=True)))

        # Repeated pixels add up.
        rows, columns = self.rows.index().to(y.device), self.columns.index().to(y.device)
        x = y.new_zeros(*x.shape[:2], self.size[0], x.shape[3]).index_add(2, rows, x)
        return y.new_zeros(*x.shape[:2], *self.size).index_add(3, columns, x)

    def about(self, x: Tensor, step: Tensor) -> Tensor:
        """Exact for grey pictures that end with their blocks."""
        if len(self.errors) > 1 or self.measured != self.size:
            return x
        w = self._weights(x, 0)
        planes = blockwise(x[:, 0], cosines(x))[:, None] / (1.0 + step * w.square())
        return blockwise(planes[:, 0], cosines(x).T)[:, None]

    def start(self, y: Tensor) -> Tensor:
        """The decoded picture; chroma by bilinear interpolation."""
        check_images("y", y, size=self.measured)
        turn = cosines(y).T
        planes = blockwise((y[:, :1] / self._weights(y, 0, masked=False))[:, 0], turn)[:, None]
        seen = self._seen(y, 0).expand_as(planes)
        planes = fill(planes * seen, seen)
        if len(self.errors) == 3:
            chroma = self._gather(y[:, 1:] / self._weights(y, 1, masked=False))
            chroma = blockwise(chroma.flatten(0, 1), turn).view_as(chroma)
            seen = self._seen(y, 1)[:, :, :: self.coarse[0], :: self.coarse[1]].expand_as(chroma)
            chroma = fill(chroma * seen, seen)
            chroma = F.interpolate(chroma, size=planes.shape[2:], mode="bilinear", align_corners=False)
            planes = torch.cat([planes, chroma], 1)
        back = torch.linalg.inv(torch.tensor(TO_LUMA, dtype=torch.float64)).tolist()
        x = self._mixed(planes, back)
        top, left = self.rows.before, self.columns.before
        return x[..., top : top + self.size[0], left : left + self.size[1]]

    def window(self, top: int, left: int, height: int, width: int) -> Jpeg:
        check_window(top, left, height, width, size=self.size)
        rows, _ = self.rows.window(top, height, self._steps[0])
        columns, _ = self.columns.window(left, width, self._steps[1])
        return replace(self, rows=rows, columns=columns)

    def window_of(self, y: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
        check_images("y", y, size=self.measured)
        part = self.window(top, left, height, width)
        _, rows = self.rows.window(top, height, self._steps[0])
        _, columns = self.columns.window(left, width, self._steps[1])
        seen = torch.cat([part._seen(y, i) for i in range(min(2, len(self.errors)))], 1)
        seen = seen[:, [0, 1, 1]] if len(self.errors) == 3 else seen
        return y[..., rows, columns] * seen

    def _mixed(self, x: Tensor, matrix: object) -> Tensor:
        """Channels mixed by a matrix; grey stays."""
        return x if len(self.errors) == 1 else torch.einsum("ij,bjhw->bihw", x.new_tensor(matrix), x)

    def _seen(self, like: Tensor, plane: int) -> Tensor:
        """(1, 1, H', W'), 1 in blocks that the window alone explains; plane: 0 for luma, 1 for chroma."""
        rows, columns = self._steps if plane else (SIDE, SIDE)
        return (self.rows.whole(rows)[:, None] & self.columns.whole(columns)).to(like)[None, None]

    def _weights(self, like: Tensor, plane: int, *, masked: bool = True) -> Tensor:
        """(1, 1 or 2, H', W'), one over the errors in units of the smallest; 0 where nothing is explained."""
        errors = self.errors[:1] if plane == 0 else self.errors[1:]
        weights = (self.errors.min() / errors).to(like)
        steps = self._steps if plane else (SIDE, SIDE)
        if steps != (SIDE, SIDE):
            weights = F.pad(weights, (0, steps[1] - SIDE, 0, steps[0] - SIDE), value=1.0)
        tiled = weights.repeat(1, self.rows.count // steps[0], self.columns.count // steps[1])[None]
        return tiled * self._seen(like, plane) if masked else tiled

    def _spread(self, chroma: Tensor) -> Tensor:
        """Blocks of coarse planes (B, 2, h, w) into the first places of larger ones."""
        batch, planes, height, width = chroma.shape
        blocks = chroma.view(batch, planes, height // SIDE, SIDE, width // SIDE, SIDE)
        blocks = F.pad(blocks, (0, self._steps[1] - SIDE, 0, 0, 0, self._steps[0] - SIDE))
        return blocks.reshape(batch, planes, height * self.coarse[0], width * self.coarse[1])

    def _gather(self, spread: Tensor) -> Tensor:
        """The way back of :meth:`_spread`."""
        batch, planes, height, width = spread.shape
        blocks = spread.view(batch, planes, -1, self._steps[0], width // self._steps[1], self._steps[1])
        blocks = blocks[:, :, :, :SIDE, :, :SIDE]
        return blocks.reshape(batch, planes, height // self.coarse[0], width // self.coarse[1])

    def _repeated(self, chroma: Tensor) -> Tensor:
        """Every value as often as the mean has pixels."""
        return chroma.repeat_interleave(self.coarse[0], 2).repeat_interleave(self.coarse[1], 3)
