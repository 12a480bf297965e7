"""One script per question, run from the repository's folder: ``python -m benchmarks.engine.joint_vs_nested --help``.

Rooms: ``engine`` (joint solves and what they cost), ``attacks``, ``restore``, ``generate``, ``language``. What all
share stands beside this file: ``harness`` (the command line), ``rows`` (finished figures, and going on after an
interruption), ``tables``, ``trainings`` (every network that is trained here) and ``arrivals`` (calls until a method is
there).
"""
