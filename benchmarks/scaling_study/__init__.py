"""The scaling study: every claim about prototypes and test-time scaling, on the simulated world."""
