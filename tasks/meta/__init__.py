"""Few-shot learning: a joint solve adapts to each task."""

TASKS = {"meta": (".task:Meta", ".task:MetaConfig")}
KINDS = {"adaptation": ".adaptation:AbstractAdaptation"}
CHOICES = {
    "adaptation": {name: f".adaptation:{name}Adaptation" for name in ("Joint", "Nested", "FirstOrder")},
    "family": {"glyphs": ".glyphs:Glyphs", "omniglot": ".omniglot:Omniglot"},
}
