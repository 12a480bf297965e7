"""Classifiers, clean or hard to fool, and what an adversary leaves of them."""

TASKS = {"classify": (".task:Classify", ".task:ClassifyConfig")}
COMMANDS = {"attack": ("attack a trained classifier", ".command:declare_attack", ".command:run_attack")}
KINDS = {"defence": ".defences:AbstractDefence"}
CHOICES = {
    "defence": {
        "Clean": ".defences:CleanTraining",
        "JacobianPenalty": ".defences:JacobianPenalty",
        "DensityHead": ".density:DensityHead",
        "RedundancyReduction": ".redundancy:RedundancyReduction",
        **{name: f".adversarial:{name}" for name in ("PGDTraining", "JointTraining", "TRADES")},
        **{name: f".layers:{name}" for name in ("TiedLayers", "UntiedLayers")},
        **{name: f".sources:{name}" for name in ("MaxSSN", "AlternatingSources", "AllSources", "SparseSources")},
        **{name: f".sources:{name}" for name in ("AdversarialMaxSSN", "AdversarialAllSources")},
        **{name: f".stability:{name}" for name in ("Lyapunov", "LyapunovFeature", "RegulatedDynamics")},
    }
}
