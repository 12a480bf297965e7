"""Parts of one's own, as somebody outside jiio would write them: nothing in jiio knows this folder."""
