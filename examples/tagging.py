"""Tag the part of speech of each word in a sentence, by its spelling and all other words.

    python examples/tagging.py en_ewt-ud-train.conllu en_ewt-ud-dev.conllu

The files are from Universal Dependencies (universaldependencies.org), which has such pairs for more
than a hundred languages. Words are identified by their lower-case form, and a layer below reads
their characters. In training rare words are randomly made unknown, so that the model learns to
handle words that it has never seen.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from anaphora import no_grad, optim, random
from anaphora.data import CharacterTokenizer, SequenceBatches, pad, read_conllu
from anaphora.models import SequenceTagger

UNKNOWN = 0  # the id of words not seen in training


class Encoder:
    """Encodes words: their ids, and those of their characters."""

    def __init__(self, sentences):
        spellings = [word for words, _ in sentences for word in words]
        self.counts = Counter(word.lower() for word in spellings)
        self.ids = {word: id for id, word in enumerate(self.counts, start=UNKNOWN + 1)}
        self.tokenizer = CharacterTokenizer.fit(spellings, minimum_count=2)

    def words(self, sentence):
        """The ids of the words of a sentence."""
        return np.array([self.ids.get(word.lower(), UNKNOWN) for word in sentence])

    def characters(self, sentence):
        """The ids of the characters of each word of a sentence."""
        return [self.tokenizer.encode(word) for word in sentence]


def tag_sentence(model, encoder, tags, sentence):
    """The model's tags for the words of a sentence."""
    characters, lengths = pad(encoder.characters(sentence))
    with no_grad():
        logits, _ = model(
            encoder.words(sentence)[:, None],
            characters=characters[:, :, None],
            character_lengths=lengths[:, None],
        )
    return [tags[number] for number in logits.data[:, 0].argmax(axis=-1)]


def train_model(model, encoder, tags, sentences, options):
    """Train by Adam with a cosine schedule; print the loss of each epoch."""
    a = options.unknown
    unknown = np.array([0, *(a / (n + a) for n in encoder.counts.values())])  # [V] shares
    words = [encoder.words(sentence) for sentence, _ in sentences]
    characters = [encoder.characters(sentence) for sentence, _ in sentences]
    targets = [[tags.index(name) for name in expected] for _, expected in sentences]
    number_of_words = sum(map(len, targets))

    generator = np.random.default_rng(options.seed)
    optimizer = optim.Adam(model.parameters(), options.learning_rate)
    steps_per_epoch = -(-len(sentences) // options.batch_size)
    schedule = optim.Cosine(optimizer, total_steps=options.epochs * steps_per_epoch)
    for epoch in range(options.epochs):
        batches = SequenceBatches(
            [np.where(generator.random(len(w)) < unknown[w], UNKNOWN, w) for w in words],
            targets,
            options.batch_size,
            per_step=True,
            characters=characters,
        )
        total = 0.0
        for step, batch in enumerate(batches.shuffled(generator)):
            schedule.on_step(epoch * steps_per_epoch + step)
            loss, _ = model.loss(batch)
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * batch.tokens
        print(f"epoch {epoch + 1}: {total / number_of_words:.4f} nats per word", flush=True)


def main(arguments=None):
    """Train on the first file, and return the results on the second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument(
        "--column", type=int, default=4, help="column of the tags; 2 for word<TAB>tag"
    )
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--embedding-size", type=int, default=128)
    parser.add_argument("--character-embedding-size", type=int, default=32)
    parser.add_argument("--character-hidden-size", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.4)
    parser.add_argument(
        "--unknown",
        type=float,
        default=1.0,
        metavar="A",
        help="a word that occurs n times is made unknown in a share A / (n + A)",
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.004)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="save the model here")
    options = parser.parse_args(arguments)

    train = read_conllu(options.train, options.column)
    test = read_conllu(options.test, options.column)
    tags = sorted({name for _, expected in train for name in expected})
    encoder = Encoder(train)
    random.seed(options.seed)  # initial weights and dropout
    model = SequenceTagger(
        len(tags),
        hidden_size=options.hidden_size,
        vocabulary_size=len(encoder.ids) + 1,
        embedding_size=options.embedding_size,
        num_characters=encoder.tokenizer.vocabulary_size,
        character_embedding_size=options.character_embedding_size,
        character_hidden_size=options.character_hidden_size,
        num_layers=options.num_layers,
        cell=options.cell,
        bidirectional=True,
        dropout=options.dropout,
        initialization=0.1,  # the vector of a rare word changes little, so it must start small
    )
    train_model(model, encoder, tags, train, options)
    if options.out is not None:
        tokenizer = encoder.tokenizer.to_dict()
        model.save(options.out, tags=tags, words=list(encoder.ids), tokenizer=tokenizer)

    model.eval()
    confusion, unseen = Counter(), Counter()  # of pairs (expected, answered)
    for number, (sentence, expected) in enumerate(test):
        answered = tag_sentence(model, encoder, tags, sentence)
        pairs = list(zip(expected, answered, strict=True))
        confusion.update(pairs)
        unseen.update(pairs[k] for k in np.flatnonzero(encoder.words(sentence) == UNKNOWN))
        if number < 2:
            print(*(f"{word}/{name}" for word, name in zip(sentence, answered, strict=True)))
    report_worst(confusion)
    accuracy, of_unseen = share_right(confusion), share_right(unseen)
    print(
        f"accuracy {accuracy:.2%} of {confusion.total():,} words, "
        f"{of_unseen:.2%} of the {unseen.total():,} not seen in training"
    )
    return {"accuracy": accuracy, "unseen_accuracy": of_unseen, "confusion": confusion}


def share_right(confusion):
    """The share of pairs (expected, answered) that are equal."""
    right = sum(count for (expected, answered), count in confusion.items() if expected == answered)
    return right / max(confusion.total(), 1)


def report_worst(confusion, count=6):
    """Print the tags that are missed most often, and what is answered instead."""
    missed = {}
    for (expected, answered), times in confusion.most_common():
        if expected != answered:
            missed.setdefault(expected, Counter())[answered] = times
    for expected in sorted(missed, key=lambda name: -missed[name].total())[:count]:
        total = sum(times for (name, _), times in confusion.items() if name == expected)
        instead = ", ".join(f"{name} {times:,}" for name, times in missed[expected].most_common(3))
        print(
            f"{expected:>8}: missed {missed[expected].total():,} of {total:,}, answered {instead}"
        )


if __name__ == "__main__":
    main()
