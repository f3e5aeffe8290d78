"""Chains without a language model: measured text attributes and a Bayesian preference model."""
