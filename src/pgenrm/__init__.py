"""Personalised generative reward models: judge responses for one user, with reasons."""
