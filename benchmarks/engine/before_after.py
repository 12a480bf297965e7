"""Is a default solve as fast as it was? The processor's time of several states of the code, in turn, in one run.

    git worktree add ../before COMMIT
    python -m benchmarks.engine.before_after --trees ../before . --output before_after.json   # 2 minutes

Latent codes are fitted by ``jiio.solve`` with its defaults: ``tiny`` (16 images) and a dense cell of 96 units (32),
both untrained, and a dense decoder trained on faces (32 held-out ones). Every tree has a process of its own, and the
processes take turns, solve by solve, so that whatever else the machine does weighs on all alike. Ratios are of each
round, to the first tree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save

from benchmarks.engine import served
from benchmarks.engine.networks import RECIPES, Place, images, setting
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show, spread
from jiio.holding import module_of
from jiio.outputs.atomic import write_whole

CASES = ("tiny", "dense 96", "decoder")
START = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import served; served.serve(pathlib.Path(sys.argv[2]))"


class Served:
    """One state of the code, in a process of its own."""

    def __init__(self, tree: Path, weights: Path) -> None:
        words = [sys.executable, "-c", START, str(Path(served.__file__).parent), str(weights)]
        variables = os.environ | {"PYTHONPATH": str(tree.resolve() / "src"), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, env=variables, text=True, cwd=weights.parent, stdin=pipe, stdout=pipe)

    def solve(self, case: str) -> Row:
        """What one solve took."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End of the lines, and of the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def trained(options: argparse.Namespace, folder: Path) -> Path:
    """The decoder and the images that it is to make, in a file."""
    place = Place(0, 32, options.cache, options.data_root)
    recipe = RECIPES["dense decoder"]
    model = module_of(setting(recipe.name, place).whole().cell)
    assert model is not None
    pictures = images("celeba", "faces", recipe.size, options.data_root)[1]
    held = {"images": pictures.test[:32].contiguous(), "mean": pictures.train.mean(0).contiguous()}
    state = {name: part.contiguous() for name, part in model.state_dict().items()}
    write_whole(folder / "decoder.safetensors", save(state | held))
    return folder / "decoder.safetensors"


def measured(options: argparse.Namespace) -> dict[str, dict[str, list[Row]]]:
    """Tree -> case -> what every round took."""
    with tempfile.TemporaryDirectory() as folder:
        # One process for each tree, all of which wait for their turn.
        weights = trained(options, Path(folder))
        trees = {str(tree): Served(tree, weights) for tree in options.trees}
        found: dict[str, dict[str, list[Row]]] = {name: {case: [] for case in options.cases} for name in trees}
        try:
            for turn in range(options.rounds + 1):
                for case in options.cases:
                    # The order changes, so that nobody always comes first.
                    for name in list(trees)[:: 1 if turn % 2 else -1]:
                        told = trees[name].solve(case)
                        if turn:  # the first round warms up
                            found[name][case].append(told)
        finally:
            for tree in trees.values():
                tree.close()
    return found


def lines(found: dict[str, dict[str, list[Row]]]) -> list[Row]:
    """The table: what a solve took in every tree, and what it took of the first one's time, round by round."""
    first, table = next(iter(found)), []
    for case in found[first]:
        for tree, of_case in found.items():
            rounds = of_case[case]
            pairs = zip(rounds, found[first][case], strict=True)
            about = {key: rounds[0][key] for key in ("evaluations", "VJPs", "steps", "converged", "objective")}
            seconds = statistics.median(row["seconds"] for row in rounds)
            ratio = spread([row["seconds"] / base["seconds"] for row, base in pairs])
            table.append({"problem": case, "tree": tree, **about, "s": seconds, "over the first": ratio})
    return table


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All rounds at once: a turn that is taken up again later is another one."""
    show("Processor time of a default solve", lines(rows.each(" ".join(options.cases), measured, options)))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"rounds": 3})
    made.add_argument("--trees", type=Path, nargs="+", required=True, help="folders of the states, the oldest first")
    made.chosen("--cases", CASES, CASES, "problems")
    made.number("--rounds", 15, "solves of each problem in each tree")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
