"""What leaves a program: whole files, tables, pages; and the seeds and fingerprints that make it repeatable.

The ground that models, attacks and tasks share. The standard library, and PyTorch where a tensor is at hand.
"""
