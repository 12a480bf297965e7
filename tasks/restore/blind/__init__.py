"""Blurs of unknown kernel."""
