"""Words that were joined: the 8-bit network of dksplit, out of its package.

    pip install --no-deps dksplit
    pip install "anaphora[onnx]"
    python examples/split_words.py chatgptlogin recurrentnetworks

The package dksplit holds an ONNX file, three bidirectional LSTMs of 384 units whose weights are
8-bit integers (DynamicQuantizeLSTM, an operator of ONNX Runtime), and the scores of a conditional
random field, which `anaphora.ops.crf_decode` searches. Of the package nothing else is used.
"""

import argparse
import importlib.util
import itertools
from pathlib import Path

import numpy as np

from anaphora import no_grad, ops
from anaphora.interop.onnx import load

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
UNKNOWN, FIRST = 1, 2  # ids
LONGEST = 64  # characters


def folder():
    """The folder of the models in the package dksplit."""
    found = importlib.util.find_spec("dksplit")
    if found is None:
        raise SystemExit("the network is in a package: pip install --no-deps dksplit")
    return Path(found.submodule_search_locations[0], "models")


def ids(text):
    """The ids of the characters of a text."""
    return np.array(
        [CHARACTERS.index(c) + FIRST if c in CHARACTERS else UNKNOWN for c in text], np.int64
    )


class Splitter:
    """Splits texts into words."""

    def __init__(self, models):
        self.model = load(models / "dksplit-int8.onnx")
        with np.load(models / "dksplit.npz", allow_pickle=False) as arrays:
            self.transitions, self.start, self.end = (
                arrays[name].astype(np.float32)
                for name in ("transitions", "start_transitions", "end_transitions")
            )

    def split(self, text):
        """The words of a text of at most 64 characters."""
        text = text.lower()[:LONGEST]
        if not text:
            return []
        with no_grad():
            (emissions,) = self.model(ids(text)[None])
        scores = emissions.data.swapaxes(0, 1)  # [T, B, tags]
        tags = ops.crf_decode(scores, self.transitions, self.start, self.end)[:, 0]
        places = [0, *(np.flatnonzero(tags[1:]) + 1), len(text)]  # tag 1 begins a word
        return [text[a:b] for a, b in itertools.pairwise(places)]


def main(arguments=None):
    """Print the words of each text, and return them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    options = parser.parse_args(arguments)

    splitter = Splitter(folder())
    found = [splitter.split(text) for text in options.texts]
    for words in found:
        print(" ".join(words))
    return found


if __name__ == "__main__":
    main()
