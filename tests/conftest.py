"""What every test shares: one thread, the draws of hypothesis, and the data sets where there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from pretended import pretending

torch.set_num_threads(1)  # small tensors; and sums do not depend on the machine's number of cores

# The default run draws the same examples for everybody, so that no first run fails by luck. The slow run draws new
# ones, and remembers what failed; what it finds becomes an explicit @example.
hypothesis.settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("random", derandomize=False, deadline=None, print_blob=True)
hypothesis.settings.load_profile("fixed")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "slow":
        hypothesis.settings.load_profile("random")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow run repeats the tests that draw, with draws of its own."""
    if config.option.markexpr == "slow":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that JIIO_DATA names; tests that need it are skipped without it."""
    named = os.environ.get("JIIO_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("needs data sets: set JIIO_DATA to their folder")
    return Path(named)


@pytest.fixture(params=["pretended", pytest.param("cuda", marks=pytest.mark.cuda)])
def gpu(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A GPU that is only pretended, and again a real one where there is one: what the double says is held to it."""
    if request.param == "pretended":
        with pretending() as device:
            yield device
    elif not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    else:
        yield torch.device("cuda")
