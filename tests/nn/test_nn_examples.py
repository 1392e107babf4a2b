"""The examples in the docstrings run, and what is public is documented."""

import doctest
import importlib

import pytest

import anaphora.nn


@pytest.mark.parametrize("name", ["module", "layers", "recurrent"])
def test_examples(name):
    failed, attempted = doctest.testmod(importlib.import_module(f"anaphora.nn.{name}"))
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("name", anaphora.nn.__all__)
def test_public_names_are_documented(name):
    assert getattr(anaphora.nn, name).__doc__
