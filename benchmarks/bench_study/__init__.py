"""The bench study: all rows of table 1 on the simulated world, and the pages about it."""
