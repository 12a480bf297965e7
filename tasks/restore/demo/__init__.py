"""``jiio demo``: the whole idea on small pictures."""
