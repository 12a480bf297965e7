"""Restoration: the image as the unknown, the training of its prior, tiles, and expected errors."""
