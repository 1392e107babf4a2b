"""Classify series of measurements: who said a vowel, what is wrong with a heartbeat.

    python examples/series.py JapaneseVowels_TRAIN.ts JapaneseVowels_TEST.ts
    python examples/series.py ECG5000_TRAIN.ts ECG5000_TEST.npy

The files are those of the UEA and UCR archives (timeseriesclassification.com): `.ts`, or `.npy`
with one row per series, the class and the values. The classifier is the one for scikit-learn, so
`fit` and `score` are all that is needed; `anaphora train --task classify` reads these files too.
"""

import argparse
from pathlib import Path

from anaphora.cells import CELLS
from anaphora.data import read_series
from anaphora.estimators import RecurrentClassifier


def main(arguments=None):
    """Fit on the first file, and return the accuracy on the second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--cell", choices=CELLS, default="gru")
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--pooling", choices=("last", "mean", "max"), default="max")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--min-updates", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    series, classes = read_series(options.train)
    classifier = RecurrentClassifier(
        options.cell,
        options.hidden_size,
        pooling=options.pooling,
        epochs=options.epochs,
        min_updates=options.min_updates,
        random_state=options.seed,
    ).fit(series, classes)
    accuracy = float(classifier.score(*read_series(options.test)))
    print(f"{options.test.stem}: accuracy {accuracy:.2%}, from {len(series):,} series")
    return {"accuracy": accuracy}


if __name__ == "__main__":
    main()
