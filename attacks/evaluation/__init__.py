"""What a set of attacks leaves of a model's accuracy, and whether the figure can be believed."""
