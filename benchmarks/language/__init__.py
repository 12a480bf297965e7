"""Sequences: equilibria against layers, soft prompts, adversaries in embeddings, and two streams."""
