"""Dense prediction under attack: a class for every pixel."""
