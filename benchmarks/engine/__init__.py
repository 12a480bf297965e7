"""What joint solves cost beside nested ones, layer by layer of the engine: steps, gradients, starts, adaptation."""
