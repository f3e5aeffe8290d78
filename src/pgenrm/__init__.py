"""Personalised generative reward models: judge responses for one user, with reasons."""

__version__ = "0.1.0"
