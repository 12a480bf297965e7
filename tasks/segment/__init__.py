"""The class of a scene and of each of its pixels from one equilibrium."""

TASKS = {"segment": (".task:Segment", ".task:SegmentConfig")}
