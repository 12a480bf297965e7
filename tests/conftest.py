"""What every test shares: one thread, and the data sets where there are any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # small tensors; and sums do not depend on the machine's number of cores


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that JIIO_DATA names; tests that need it are skipped without it."""
    named = os.environ.get("JIIO_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("needs data sets: set JIIO_DATA to their folder")
    return Path(named)
