"""Generating text from a trained model, and scoring it."""

from anaphora.generation.beam_search import Hypothesis, beam_search, greedy_search
from anaphora.generation.ctc import CTCHypothesis, ctc_beam_search, ctc_greedy
from anaphora.generation.generate import (
    NextToken,
    generate,
    generate_batch,
    generate_ids,
    next_tokens,
)
from anaphora.generation.sampling import Sampler
from anaphora.generation.scoring import TextScore, score
from anaphora.generation.translation import Translation, translate

__all__ = [
    "CTCHypothesis",
    "Hypothesis",
    "NextToken",
    "Sampler",
    "TextScore",
    "Translation",
    "beam_search",
    "ctc_beam_search",
    "ctc_greedy",
    "generate",
    "generate_batch",
    "generate_ids",
    "greedy_search",
    "next_tokens",
    "score",
    "translate",
]
