"""Generating text from a trained language model."""

from anaphora.generation.ctc import CTCHypothesis, ctc_beam_search, ctc_greedy
from anaphora.generation.generate import generate, generate_ids
from anaphora.generation.sampling import Sampler

__all__ = ["CTCHypothesis", "Sampler", "ctc_beam_search", "ctc_greedy", "generate", "generate_ids"]
