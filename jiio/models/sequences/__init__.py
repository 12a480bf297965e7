"""Equilibria on sequences of tokens."""
