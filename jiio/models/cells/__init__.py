"""Cells of equilibrium networks, maps (z, injected input) -> z, each beside the configuration that it is made from."""
