"""Images restored: the latent restorer, image priors, and the commands that use them."""

TASKS = {
    "restore": (".latent:Restore", ".latent:RestoreConfig"),
    "prior": (".prior:Prior", ".prior:PriorConfig"),
    "direct": (".prior:Direct", ".prior:PriorConfig"),
}
COMMANDS = {
    "restore": (
        "make better pictures of your own ones",
        ".photos.command:declare_restore",
        ".photos.command:run_restore",
    ),
    "compare": (
        "measure restorers beside classical ones on a set of pictures",
        ".compare.command:declare_compare",
        ".compare.command:run_compare",
    ),
}
