"""Generators without an encoder, and pictures fitted by them."""

TASKS = {"generate": (".task:Generate", ".task:GenerateConfig")}
COMMANDS = {"fit": ("fit a generator's code to a picture", ".fit.command:declare_fit", ".fit.command:run_fit")}
KINDS = {"inference": ".inference:AbstractInference"}
CHOICES = {"inference": {name: f".inference:{name}Inference" for name in ("Joint", "Nested", "Variational")}}
