"""Restorers beside tuned baselines on sets of pictures."""
