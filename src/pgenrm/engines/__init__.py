"""Engines write completions for chat prompts; see `protocol` for the contract."""
