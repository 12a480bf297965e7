"""What every training shares: configurations, the loop, checkpoints, files. Knows no task."""

KINDS = {"task": ".task:AbstractTask", "logger": ".logs:AbstractLogger"}
CHOICES = {
    "logger": {
        "Tensorboard": ".logs:TensorboardLogger",
        "WandB": ".trackers:WandBLogger",
        "MLflow": ".trackers:MLflowLogger",
    }
}
