"""Every method on the same comparisons: records, statistics that stand up, two runs compared."""
