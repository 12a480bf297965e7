"""``jiio demo``: the whole idea on one page; above the rooms whose work it shows."""

COMMANDS = {
    "demo": (
        "show what it does on one page: a photograph, an attack, faces",
        ".command:declare_demo",
        ".command:run_demo",
    )
}
