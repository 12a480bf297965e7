"""Generators: three ways to train them, fits of images, inversion, and images of another kind."""
