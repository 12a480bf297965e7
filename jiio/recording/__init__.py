"""Steps of a solve as single launches: recorded once, replayed as often as shapes repeat."""

from .base import AbstractRecorder, AbstractReplay, UnrecordableError
from .cuda import CudaRecorder
from .launch import Launch, forget_records
from .loss import recorded_loss
from .traced import TracedRecorder
from .wish import recorded_steps

__all__ = [
    "AbstractRecorder",
    "AbstractReplay",
    "CudaRecorder",
    "Launch",
    "TracedRecorder",
    "UnrecordableError",
    "forget_records",
    "recorded_loss",
    "recorded_steps",
]
