"""Tell the nationality of a surname from its letters.

    python examples/surnames.py FOLDER

The folder has one text file per nationality, with one name per line: the data of PyTorch's
tutorial. A name in several files counts in each. A tenth of each file, sampled with the seed, is
held out.
"""

import argparse
from pathlib import Path

import numpy as np

from anaphora import no_grad, optim, random
from anaphora.data import CharacterTokenizer, ClassifierCodec, SequenceBatches
from anaphora.models import SequenceClassifier
from anaphora.training import Trainer, TrainingOptions


def read_names(folder, generator):
    """The classes, and the training and test names with their class numbers."""
    files = sorted(folder.glob("[!.]*.txt"))
    train, test = [], []
    for number, file in enumerate(files):
        names = sorted(set(file.read_text(encoding="utf-8").split("\n")) - {""})
        held_out = set(generator.permutation(len(names))[: -(-len(names) // 10)].tolist())
        for k, name in enumerate(names):
            (test if k in held_out else train).append((name, number))
    return [file.stem for file in files], train, test


def main(arguments=None):
    """Train, print the confusion matrix of the held-out names, and return it with the accuracy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--embedding-size", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="save the model here")
    options = parser.parse_args(arguments)

    random.seed(options.seed)  # initial weights and dropout
    classes, train, test = read_names(options.folder, np.random.default_rng(options.seed))
    tokenizer = CharacterTokenizer.fit([name for name, _ in train], minimum_count=2)

    def batches(names):
        ids = [tokenizer.encode(name) for name, _ in names]
        return SequenceBatches(ids, [number for _, number in names], options.batch_size)

    model = SequenceClassifier(
        len(classes),
        hidden_size=options.hidden_size,
        vocabulary_size=tokenizer.vocabulary_size,
        embedding_size=options.embedding_size,
        cell=options.cell,
        bidirectional=True,
        dropout=options.dropout,
    )
    optimizer = optim.Adam(model.parameters(), options.learning_rate)
    limits = TrainingOptions(epochs=options.epochs, seed=options.seed)
    Trainer(model, optimizer, batches(train), limits).run()

    model.eval()
    confusion = np.zeros((len(classes), len(classes)), int)  # [true, answered]
    with no_grad():
        for batch in batches(test):
            answers = model(batch.inputs, batch.lengths).data.argmax(axis=1)
            np.add.at(confusion, (batch.targets, answers), 1)
    accuracy = float(np.trace(confusion) / confusion.sum())
    for name, row in zip(classes, confusion, strict=True):
        print(f"{name:>12}", *(f"{count:3}" if count else "  ." for count in row))
    print(f"accuracy {accuracy:.2%} of {confusion.sum():,} names, {len(classes)} classes")
    if options.out is not None:
        model.codec = ClassifierCodec(tuple(classes), tokenizer)
        model.save(options.out)
    return {"accuracy": accuracy, "confusion": confusion}


if __name__ == "__main__":
    main()
