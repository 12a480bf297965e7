"""Language models on equilibria: training, writing, soft prompts, adversaries of embeddings."""

TASKS = {"language": (".task:Language", ".config:LanguageConfig")}
COMMANDS = {
    "write": ("continue a text with a trained language model", ".commands:declare_write", ".commands:run_write"),
    "prompt": (
        "find the soft prompt that makes a language model say a text",
        ".commands:declare_prompt",
        ".commands:run_prompt",
    ),
}
KINDS = {"depth": ".depths:AbstractDepth", "adversary": ".adversaries:AbstractAdversary"}
CHOICES = {
    "depth": {name: f".depths:{name}" for name in ("Equilibrium", "Trellis", "WeightTied", "Explicit")},
    "adversary": {name: f".adversaries:{name}" for name in ("JointAdversary", "PGDAdversary", "Unperturbed")},
}
