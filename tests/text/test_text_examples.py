"""The examples in the docstrings run, and what is public is documented."""

import doctest
import importlib
import subprocess
import sys

import pytest

import anaphora.text

MODULES = [
    "errors",
    "sources",
    "corpus",
    "batches",
    "tokenizers.base",
    "tokenizers.character",
    "tokenizers.word",
    "tokenizers.bpe",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    if name == "tokenizers.bpe":
        pytest.importorskip("tokenizers", reason="needs the extra bpe")
    module = importlib.import_module(f"anaphora.text.{name}")
    failed, attempted = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("name", sorted(set(anaphora.text.__all__) - {"IGNORE_INDEX"}))
def test_public_names_are_documented(name):
    assert getattr(anaphora.text, name).__doc__


def test_import_needs_no_extra():
    code = "import sys, anaphora.text; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
