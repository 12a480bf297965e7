"""``jiio restore``: people's own pictures."""
