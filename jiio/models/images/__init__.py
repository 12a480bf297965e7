"""Equilibria on images of any size, and the energy of an image that one defines."""
