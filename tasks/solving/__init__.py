"""Around a joint solve: its settings, networks and decoders, nested baselines, learnt starts."""

KINDS = {
    "solver": "jiio:AbstractSolver",
    "rule": "jiio:AbstractRule",
    "adjoint": "jiio:AbstractAdjoint",
    "cell": "jiio.models:AbstractCellConfig",
    "network": "jiio.models:AbstractCellConfig",
}
CELLS = {name: f"jiio.models:{name}Config" for name in ("Dense", "Monotone", "Conv", "Multiscale")}
CHOICES = {
    "solver": {name: f"jiio:{name}" for name in ("Picard", "Anderson", "Broyden")},
    "rule": {
        name: f"jiio:{name}" for name in ("GradientStep", "MomentumStep", "NormalizedStep", "SignStep", "AdamStep")
    },
    "adjoint": {name: f"jiio:{name}" for name in ("Envelope", "KKT", "Implicit", "Phantom", "Unrolled", "Detached")},
    "cell": CELLS,
    "network": {**CELLS, "Reference": ".networks:ReferenceConfig"},
}
