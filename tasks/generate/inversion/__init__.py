"""Inversion of feed-forward generators, layer by layer."""
