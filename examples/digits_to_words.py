"""Vector to sequence: pictures of digits to their names, letter by letter.

    python examples/digits_to_words.py --epochs 40

The pictures are the 1,797 of 8 x 8 pixels that come with scikit-learn (pip install
"anaphora[examples]"); one in five is held out. The vector of 64 pixels gives the decoder's initial
state, and the decoder writes "zero", "one", ... "nine". In training some pictures are shifted by a
pixel, sampled again for each epoch.
"""

import argparse

import numpy as np

from anaphora import optim, random
from anaphora.data import CharacterTokenizer, pair_batches
from anaphora.generation import beam_search
from anaphora.models import VectorToSequence

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load(seed):
    """Pictures [N, 64] from -1 to 1 and their digits [N], for training and for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit(
            'the pictures come with scikit-learn: pip install "anaphora[examples]"'
        ) from error
    pictures, digits = load_digits(return_X_y=True)
    pictures = (pictures / 8 - 1).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(digits))
    held_out, rest = np.split(order, [len(digits) // 5])
    return pictures[rest], digits[rest], pictures[held_out], digits[held_out]


def moved(pictures, generator):
    """One picture in two shifted by a pixel, up, down, left or right."""
    padded = np.pad(pictures.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    places = np.array([(1, 1)] * 4 + [(0, 1), (2, 1), (1, 0), (1, 2)])
    corners = places[generator.integers(len(places), size=len(pictures))]
    cut = [picture[y : y + 8, x : x + 8] for picture, (y, x) in zip(padded, corners, strict=True)]
    return np.stack(cut).reshape(-1, 64)


def main(argv=None):
    """Train, name the test pictures, and return the share of exact names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--beam-size", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)

    random.seed(arguments.seed)  # initial weights
    pictures, digits, test_pictures, test_digits = load(arguments.seed)
    tokenizer = CharacterTokenizer.fit(["\n".join(WORDS)])
    (end,) = tokenizer.encode("\n")
    names = "".join(WORDS[digit] + "\n" for digit in digits)
    ids = tokenizer.encode(names)

    model = VectorToSequence(
        input_size=64,
        vocabulary_size=tokenizer.vocabulary_size,
        hidden_size=arguments.hidden_size,
        cell=arguments.cell,
        end_id=int(end),
    )
    optimizer = optim.Adam(model.parameters(), arguments.learning_rate)
    generator = np.random.default_rng(arguments.seed)
    for epoch in range(1, arguments.epochs + 1):
        total = 0.0
        batches = pair_batches(moved(pictures, generator), ids, arguments.batch_size, int(end))
        for batch in batches.shuffled(generator):
            loss, _ = model.loss(batch)
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * batch.tokens
        if epoch % max(1, arguments.epochs // 5) == 0:
            print(f"epoch {epoch}: {total / batches.tokens:.4f} nats per letter")

    found = beam_search(model, test_pictures, beam_size=arguments.beam_size, max_length=8)
    written = [tokenizer.decode(hypotheses[0].ids) for hypotheses in found]
    wrong = [
        (word, WORDS[digit])
        for word, digit in zip(written, test_digits, strict=True)
        if word != WORDS[digit]
    ]
    exact = 1 - len(wrong) / len(written)
    print(f"{exact:.2%} of {len(written)} words exact")
    for word, expected in wrong[:5]:
        print(f"  wrote {word!r}, expected {expected!r}")
    return {"exact": exact, "words": written}


if __name__ == "__main__":
    main()
