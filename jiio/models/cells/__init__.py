"""Cells of equilibrium networks: maps (z, injected input) -> z."""
