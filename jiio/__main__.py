"""``python -m jiio``: the command line."""

import sys

from jiio.tasks.cli import main

if __name__ == "__main__":
    sys.exit(main())
