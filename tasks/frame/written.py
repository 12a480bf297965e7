"""What a command line that trains names: the configuration, before its options are known."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .shipped import shipped

if TYPE_CHECKING:
    from .config import RunConfig

MOST_WORDS = 100  # of a command line, among which the name of the file is looked for


def named_config(argv: Sequence[str]) -> type[RunConfig]:
    """The class of the configuration that a command line names; where it names none that can be read, the default.

    What is wrong with the file is said when the command runs.
    """
    from safetensors import SafetensorError

    from .load import read_yaml
    from .paths import only
    from .registry import config_class
    from .sealed import UNUSABLE, configured

    for word in argv[1:MOST_WORDS]:
        with contextlib.suppress(*UNUSABLE, SafetensorError):
            path = shipped("CONFIG", word, "configs", ".yaml")
            if not path.is_dir():
                return config_class(read_yaml("CONFIG", path))
            with only(()):  # a file names code that nobody has allowed yet
                return config_class(configured(sorted(path.glob("step-*.safetensors"))[-1]))
    return config_class({})
