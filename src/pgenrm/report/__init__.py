"""The results of a bench for people: one HTML page, tables, and a fragment for a model card."""
