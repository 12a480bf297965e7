"""Attacks, one way to search a file."""
