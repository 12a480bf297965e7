# %% [markdown]
# # My cluster
#
# Jobs are killed, queues are long, and a training of a week has to go on where it stopped. Here the cluster is this
# machine; the lines are the same in a job script.

# %%
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from jiio import attacks
from jiio.models import MonotoneConfig, classifier


def job(output, *words):
    """What stands in a job script: jiio train restore-faces ..."""
    recipe = ["restore-faces", "--steps", "24", "--checkpoint_every", "6", "--optimiser.warmup", "2"]
    command = [sys.executable, "-m", "jiio", "train", *recipe, "--threads", "1", "--output", output, *words]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


# %% [markdown]
# A training that runs through, and one that is told to stop (SIGTERM, as a queue does) when its first checkpoint is
# there, and is called again with `--resume`.

# %%
assert job("whole").wait() == 0

stopped = job("cut")
while stopped.poll() is None and not list(Path("cut").glob("*.safetensors")):
    time.sleep(0.05)
stopped.terminate()
print("exit code of the stopped job:", stopped.wait())  # 143, or 0 where it was faster than the signal
assert job("cut", "--resume").wait() == 0

# %% [markdown]
# Both end with the same weights, to the last bit: what a step draws at random depends on seed and step alone.

# %%
whole, cut = (load_file(sorted(Path(name).glob("*.safetensors"))[-1]) for name in ("whole", "cut"))
assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
print(len(whole), "tensors, all equal")

# %% [markdown]
# An evaluation in parts. Every job takes its share of the batches (`jiio attack --shard 1/3 --state shared`, or
# `RANK` and `WORLD_SIZE` under `torchrun`) and keeps what it has finished in a folder that all of them see; a job that
# is killed is called again. Whoever asks for the whole gets the report of a single run.

# %%
torch.manual_seed(0)
model = classifier(MonotoneConfig(8), image=(1, 4, 4), classes=3)
batches = [(torch.rand(6, 1, 4, 4), torch.randint(3, (6,))) for _ in range(3)]
threat, suite = attacks.ThreatModel("l2", 0.2), [attacks.PGD(steps=5), attacks.JointAttack(steps=10)]
settings = {"generator": torch.Generator().manual_seed(0), "audit": None}

for part in range(3):
    settings["generator"] = torch.Generator().manual_seed(0)
    attacks.evaluate(model, batches, threat, suite, state_path="shared", shard=(part, 3), **settings)
settings["generator"] = torch.Generator().manual_seed(0)
together = attacks.evaluate(model, batches, threat, suite, state_path="shared", **settings)

settings["generator"] = torch.Generator().manual_seed(0)
alone = attacks.evaluate(model, batches, threat, suite, **settings)
assert together.robust == alone.robust and together.samples == alone.samples
print(together.robust)
