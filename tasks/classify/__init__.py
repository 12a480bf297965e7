"""Classifiers, clean or hard to fool, and what an adversary leaves of them."""

TASKS = {"classify": (".task:Classify", ".task:ClassifyConfig")}
COMMANDS = {"attack": ("attack a trained classifier", ".command:declare", ".command:run")}
KINDS = {"defence": ".defences:AbstractDefence"}
CHOICES = {
    "defence": {
        **{
            name: f".defences:{name}" for name in ("Clean", "PGDTraining", "JointTraining", "TRADES", "JacobianPenalty")
        },
        **{name: f".stability:{name}" for name in ("Lyapunov", "LyapunovFeature", "RegulatedDynamics")},
    }
}
