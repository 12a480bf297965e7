"""The commands that know no task: train, evaluate, push, doctor."""

COMMANDS = {
    "train": ("train what a YAML file describes", ".train:declare_train", ".train:run_train"),
    "evaluate": (
        "measure a trained model on test images",
        ".evaluate:declare_evaluate",
        ".evaluate:run_evaluate",
    ),
    "push": ("put trained weights on the Hugging Face hub", ".push:declare_push", ".push:run_push"),
    "doctor": (
        "versions, devices, extras, and a gradient check on this machine",
        ".doctor:declare_doctor",
        ".doctor:run_doctor",
    ),
}
