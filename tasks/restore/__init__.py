"""Images restored: the latent restorer, image priors, and the commands that use them."""

TASKS = {
    "restore": (".latent:Restore", ".latent:RestoreConfig"),
    "prior": (".prior:Prior", ".prior:PriorConfig"),
    "direct": (".prior:Direct", ".prior:PriorConfig"),
}
COMMANDS = {
    "restore": ("make better pictures of your own ones", ".photos.command:declare", ".photos.command:run"),
    "demo": ("show the whole idea on small pictures", ".demo.command:declare_demo", ".demo.command:run_demo"),
}
