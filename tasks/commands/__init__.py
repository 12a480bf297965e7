"""The commands that know no task: train, evaluate, doctor."""

COMMANDS = {
    "train": ("train what a YAML file describes", ".train:declare_train", ".train:run_train"),
    "evaluate": (
        "measure a trained model on test images",
        ".evaluate:declare_evaluate",
        ".evaluate:run_evaluate",
    ),
    "doctor": (
        "versions, devices, extras, and a gradient check on this machine",
        ".doctor:declare_doctor",
        ".doctor:run_doctor",
    ),
}
