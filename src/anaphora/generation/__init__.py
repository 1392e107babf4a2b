"""Generating text from a trained language model."""

from anaphora.generation.generate import generate, generate_ids
from anaphora.generation.sampling import Sampler

__all__ = ["Sampler", "generate", "generate_ids"]
