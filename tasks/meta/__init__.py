"""Few-shot learning: a joint solve adapts to each task."""

TASKS = {"meta": (".task:Meta", ".task:MetaConfig")}
KINDS = {"adaptation": ".adaptation:AbstractAdaptation"}
CHOICES = {
    "adaptation": {
        "Joint": ".adaptation:JointAdaptation",
        "Nested": ".adaptation:NestedAdaptation",
        "FirstOrder": ".adaptation:FirstOrderAdaptation",
    },
    "family": {"glyphs": ".glyphs:Glyphs", "omniglot": ".omniglot:Omniglot"},
}
