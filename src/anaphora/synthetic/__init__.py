"""Synthetic benchmark tasks for recurrent networks, sampled reproducibly from a generator.

Every generator takes a `numpy.random.Generator` and returns arrays, time-major as everywhere.
"""

from anaphora.synthetic.adding import adding_problem
from anaphora.synthetic.counting import COUNTING_TOKENS, count_block
from anaphora.synthetic.echo import signal_echo
from anaphora.synthetic.programs import Program, sample_program
from anaphora.synthetic.temporal_order import TEMPORAL_SYMBOLS, temporal_order

__all__ = [
    "COUNTING_TOKENS",
    "TEMPORAL_SYMBOLS",
    "Program",
    "adding_problem",
    "count_block",
    "sample_program",
    "signal_echo",
    "temporal_order",
]
