"""Sampled programs: Python itself prints the answer that each claims."""

import contextlib
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anaphora.synthetic.programs import sample_program


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 25))
def test_python_prints_the_answer(seed, length, nesting):
    program = sample_program(np.random.default_rng(seed), length, nesting)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program.text, {})
    assert printed.getvalue() == f"{program.answer}\n"
    assert max(len(digits) for digits in re.findall(r"\d+", program.text)) <= max(length, 2)
    assert sample_program(np.random.default_rng(seed), length, nesting) == program


def test_operations_are_equally_likely_and_in_both_orders():
    generator = np.random.default_rng(1)
    texts = [sample_program(generator, 3, 1).text for _ in range(600)]
    forms = {
        "add": r"print\(\(\d+\+\d+\)\)",
        "subtract": r"print\(\(\d+-\d+\)\)",
        "multiply": r"print\(\(\d+\*\d+\)\)",
        "assign": r"(\w)=\d+\nprint\(\1\)",
        "condition": r"print\(\(\d+ if \d+<\d+ else \d+\)\)",
        "loop": r"(\w)=\d+\nfor x in range\(\d+\):\1\+=\d+\nprint\(\1\)",
    }
    counts = {name: sum(bool(re.fullmatch(form, t)) for t in texts) for name, form in forms.items()}
    assert sum(counts.values()) == len(texts)
    assert min(counts.values()) > 70, counts


def test_parameters_out_of_range_are_refused():
    for length, nesting in ((0, 1), (1, -1), (1, 26)):
        with pytest.raises(
            ValueError, match="expected a length of at least 1 and a nesting from 0"
        ):
            sample_program(np.random.default_rng(1), length, nesting)
