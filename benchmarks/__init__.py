"""Anaphora and its peers, in one process run: ``python -m benchmarks``."""
