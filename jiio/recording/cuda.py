"""A traced step as a CUDA graph: one launch, whatever it consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import AbstractRecorder, AbstractReplay, Step, refuse
from .traced import TracedRecorder, TracedReplay, first_line

WARM = 3  # runs on a side stream before the capture: libraries choose their kernels and workspaces


class CudaReplay(AbstractReplay):
    """The captured operations. What a solve keeps from :meth:`begin` lies at fixed addresses as well."""

    def __init__(self, found: TracedReplay) -> None:
        self.found, self.state, self.constants = found, found.state, found.constants
        self.device = self.state[0].device
        found.begin()
        found.kept = tuple(t.clone() for t in found.kept)
        self.kept = found.kept
        self.graph = self._captured()

    def begin(self) -> None:
        self.found.begin()
        for old, new in zip(self.kept, self.found.kept, strict=True):
            old.copy_(new)
        self.found.kept = self.kept

    def __call__(self) -> None:
        self.graph.replay()

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Of one step, in a memory pool of its own."""
        with torch.cuda.device(self.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    self.found()
            torch.cuda.current_stream().wait_stream(side)

            graph = torch.cuda.CUDAGraph()
            # Other threads may go on with what a capture forbids, reading pinned memory for example.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                self.found()
            return graph


@dataclass(frozen=True)
class CudaRecorder(AbstractRecorder):
    """Traces a step, and captures what was traced as a CUDA graph. fused: as in :class:`TracedRecorder`."""

    fused: bool = False

    def record(self, step: Step, state: Sequence[Tensor], constants: Sequence[Tensor]) -> AbstractReplay:
        for tensor in (*state, *constants):
            if tensor.device.type != "cuda":
                refuse(f"one with a tensor on {tensor.device}, which is not launched by CUDA")
        found = TracedRecorder(self.fused).record(step, state, constants)
        try:
            return CudaReplay(found)
        except RuntimeError as error:
            refuse(f"one that CUDA does not capture ({first_line(error)})", error)
