"""Anaphora: a deep-learning framework for recurrent networks."""

__version__ = "0.1.0"
