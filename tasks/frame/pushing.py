"""Weights into a repository of the Hugging Face hub, with a card that says what they are; see :mod:`.hub`."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from jiio.checks import check_instance

from .checkpoint import AVERAGE, Checkpoint
from .hub import PREFIX, Address, library, talking
from .place import WEIGHTS

CARD = "README.md"
PAGE = """\
---
library_name: jiio
tags: [deep-equilibrium, {task}]
---
# {name}

Weights of the task `{task}` after {step} steps ({made}).

```python
from jiio import tasks

checkpoint = tasks.load("{word}")
rows = tasks.evaluate(checkpoint)
```

The same on the command line: `jiio evaluate {word}`. The training:

```yaml
{text}```
"""


def push(
    checkpoint: Checkpoint, repository: str, *, private: bool = False, message: str | None = None, argument: str = "hub"
) -> str:
    """Put the weights of a checkpoint into a repository of the hub, which is made where it is not there.

    Without the state of the optimiser, and with the moving average in place of the weights where there is one. A card
    is written where the repository has none.

    repository: OWNER/NAME, or OWNER/NAME@BRANCH. private: for a repository that is made. message: of the commit.
    argument: what the user calls the repository. Returns the address of the commit.

    Errors: InputError, one sentence; ArgumentTypeError for what is no checkpoint.
    """
    check_instance("checkpoint", checkpoint, Checkpoint)
    address = Address.of(argument, repository)
    api, bare = library(argument).HfApi(), bare_weights(checkpoint)
    about = message or f"{bare.config.task}, {bare.step} steps"

    with tempfile.TemporaryDirectory() as place, talking(argument, address):
        api.create_repo(address.repository, private=private, exist_ok=True)
        if address.revision is not None:
            api.create_branch(address.repository, branch=address.revision, exist_ok=True)

        # Somebody may have written a better card.
        if not api.file_exists(address.repository, CARD, revision=address.revision):
            (Path(place) / CARD).write_text(card(bare, address), encoding="utf-8")
        bare.write(Path(place) / WEIGHTS)
        done = api.upload_folder(
            repo_id=address.repository, folder_path=place, revision=address.revision, commit_message=about
        )
        return str(done.commit_url)


def bare_weights(checkpoint: Checkpoint) -> Checkpoint:
    """What others need of a checkpoint; the folder on this machine, whose name is nobody's business, is left out."""
    weights = checkpoint.named("model.") | checkpoint.named(AVERAGE)
    tensors = {f"model.{name}": t for name, t in weights.items()}
    config = dataclasses.replace(checkpoint.config, output=type(checkpoint.config).output)
    return dataclasses.replace(checkpoint, tensors=tensors, config=config)


def card(checkpoint: Checkpoint, address: Address) -> str:
    """What the page of the repository says: what this is, how it is loaded, how it was made."""
    import yaml

    config = dataclasses.asdict(checkpoint.config)
    text = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, allow_unicode=True)
    made = ", ".join(f"{name} {checkpoint.versions[name]}" for name in ("jiio", "torch") if name in checkpoint.versions)
    name, word = address.repository.partition("/")[2], f"{PREFIX}{address}"
    return PAGE.format(task=config["task"], step=checkpoint.step, made=made, name=name, word=word, text=text)
