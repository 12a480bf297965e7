"""Who has which training examples: evenly at random, or by classes with a Dirichlet distribution."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jiio.checks import fail
from jiio.outputs.seeds import derive
from jiio.tasks.frame.load import ConfigError

LEAST = 2  # examples of every client
TRIES = 200


def shared_out(labels: Tensor, clients: int, *, alpha: float | None, seed: int) -> tuple[Tensor, ...]:
    """For every client the numbers of its examples, ascending; together they are all of them, each once.

    labels: the class (N,) of every example. alpha: None for shares of one size at random; else of every class, the
    clients get shares drawn from a symmetric Dirichlet distribution with this concentration (Hsu, Qi and Brown 2019):
    0.1 leaves most clients two or three classes, 100 is nearly even. A function of these arguments alone.

    Errors: ConfigError where there are too few examples for everybody to get some.
    """
    if len(labels) < LEAST * clients:
        remedy = "Take fewer clients, or more data."
        fail(
            "clients",
            f"at most {len(labels) // LEAST} of them for {len(labels)} examples",
            clients,
            remedy,
            ConfigError,
        )
    # Numbers of the clients alone, whatever else the seed is used for.
    source = np.random.default_rng(derive(seed, "clients", clients))
    if alpha is None:
        parts = np.array_split(source.permutation(len(labels)), clients)
        return tuple(torch.from_numpy(np.sort(part)) for part in parts)

    # Drawn again until nobody is left out: with a small alpha whole clients can come away with nothing.
    classes = [np.flatnonzero(labels.cpu().numpy() == k) for k in labels.unique().tolist()]
    for _ in range(TRIES):
        owned: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for members in classes:
            shares = source.dirichlet(np.full(clients, alpha))
            cuts = (np.cumsum(shares)[:-1] * len(members)).round().astype(int)
            for mine, piece in zip(owned, np.split(source.permutation(members), cuts), strict=True):
                mine.append(piece)
        parts = [np.sort(np.concatenate(mine)) for mine in owned]
        if min(map(len, parts)) >= LEAST:
            return tuple(torch.from_numpy(part) for part in parts)
    remedy = "Raise alpha, or take fewer clients."
    came = f"{alpha:g}, which left somebody without any in {TRIES} draws"
    fail(
        "alpha",
        f"a concentration that gives each of {clients} clients at least {LEAST} examples",
        came,
        remedy,
        ConfigError,
    )
