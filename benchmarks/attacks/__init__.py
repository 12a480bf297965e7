"""Attacks, defences and certificates: what they cost, and what of the published robustness is left."""
