"""A simulated world in which the truth is known."""
