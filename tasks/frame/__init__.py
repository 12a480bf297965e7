"""What every training shares: configurations, the loop, checkpoints, files. Knows no task."""

KINDS = {"task": ".loop:Task", "logger": ".logs:AbstractLogger"}
CHOICES = {"logger": {"Tensorboard": ".logs:TensorboardLogger"}}
