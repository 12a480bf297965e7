"""Federated training of any recipe: clients that keep their data, and a server that averages weights, by Flower."""

COMMANDS = {
    "federate": (
        "train a recipe with clients that keep their data",
        ".command:declare_federate",
        ".command:run_federate",
    )
}
KINDS = {"weighting": ".weighting:AbstractWeighting"}
CHOICES = {"weighting": {name: f".weighting:{name}" for name in ("ByExamples", "IterationAware")}}
