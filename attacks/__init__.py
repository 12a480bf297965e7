"""Adversarial evaluation of equilibrium networks; imports jiio, and is imported by tasks."""
