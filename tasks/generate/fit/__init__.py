"""``jiio fit``: a generator's code for a picture."""
