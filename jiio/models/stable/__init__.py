"""Equilibria with a Lyapunov function, and with regulated inputs."""
