"""A character language model from layers, with an explicit training loop.

    python examples/language_model.py book.txt --cell gru --epochs 5

Without a text it learns from the source of one module of the standard library. `anaphora train`
does the same, and more, on the command line.
"""

import argparse
import math
from pathlib import Path

from anaphora import detach, nn, no_grad, ops, optim, random
from anaphora.cells import CELLS
from anaphora.data import CharacterTokenizer, batchify, cover
from anaphora.generation import Sampler, generate


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, and scores of every possible next character.

    Shapes: ids [T, B]; state as for `nn.Recurrent`; returns logits [T, B, V], state.
    """

    def __init__(self, vocabulary_size, hidden_size, num_layers, cell):
        self.embedding = nn.Embedding(vocabulary_size, hidden_size)
        self.recurrent = nn.Recurrent(cell, hidden_size, hidden_size, num_layers, dropout=0.1)
        self.output = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, ids, state=None):
        """Score the characters that may follow each character."""
        y, state = self.recurrent(self.embedding(ids), state)
        return self.output(y), state


def train_epoch(model, batches, optimizer):
    """Train on the text once, window by window; return the mean loss in nats per character."""
    model.train()
    total, state = 0.0, None
    for batch in batches:
        logits, state = model(batch.inputs, state)
        loss = ops.cross_entropy(logits, batch.targets)
        loss.backward()  # through this window,
        state = detach(state)  # no further:
        optim.clip_grad_norm(model.parameters(), 5.0)
        optimizer.step()  # truncated backpropagation through time
        optimizer.zero_grad()
        total += loss.item() * batch.tokens
    return total / batches.tokens


def evaluate(model, batches):
    """Return the mean loss in nats per character, the state carried through the text."""
    model.eval()
    total, state = 0.0, None
    with no_grad():
        for batch in batches:
            logits, state = model(batch.inputs, state)
            total += ops.cross_entropy(logits, batch.targets, reduction="sum").item()
    return total / batches.tokens


def main():
    """Train, print the losses after each epoch, and generate text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="?", type=Path, default=Path(argparse.__file__))
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    random.seed(arguments.seed)  # initial weights and dropout
    text = arguments.text.read_text(encoding="utf-8")
    tokenizer = CharacterTokenizer.fit([text])
    ids = tokenizer.encode(text)
    held_out = len(ids) // 10
    batches = batchify(ids[:-held_out], arguments.batch_size, arguments.window)
    validation = cover(ids[-held_out:], batch_size=1, window=1000)

    model = LanguageModel(
        tokenizer.vocabulary_size, arguments.hidden_size, arguments.num_layers, arguments.cell
    )
    print(model)
    optimizer = optim.Adam(model.parameters(), arguments.learning_rate)
    for epoch in range(1, arguments.epochs + 1):
        loss = train_epoch(model, batches, optimizer)
        validation_loss = evaluate(model, validation)
        print(
            f"epoch {epoch}: training loss {loss:.3f}, validation loss {validation_loss:.3f}, "
            f"{validation_loss / math.log(2):.3f} bits per character"
        )
    for piece in generate(model, tokenizer, length=300, sampler=Sampler(0.7, seed=arguments.seed)):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
