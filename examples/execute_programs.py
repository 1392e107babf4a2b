"""Running small Python programs, character by character (Zaremba & Sutskever 2014).

    python examples/execute_programs.py --length 3 --nesting 2 --minutes 20

An encoder reads a program such as

    y=(897 if 493<666 else 393)
    for x in range(1):y+=677
    print((y+959))

and a decoder writes its output, "2533". Programs are sampled for each batch. The curriculum is the
paper's "combined" one: half of the programs have the difficulty reached so far, which rises when
most answers are right, and half have any difficulty.
"""

import argparse
import time

import numpy as np

from anaphora import no_grad, optim, random
from anaphora.data import CharacterTokenizer, pad, pair_batches
from anaphora.generation import greedy_search
from anaphora.models import EncoderDecoder
from anaphora.synthetic.programs import sample_program

END = "."
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789+-*<=():\n " + END


class Curriculum:
    """The difficulty reached: the length rises to its maximum, then the nesting by one, ..."""

    def __init__(self, length, nesting, enabled):
        self.levels = [(n, k) for k in range(1, nesting + 1) for n in range(1, length + 1)]
        self.level = 0 if enabled else len(self.levels) - 1
        self.enabled = enabled

    def sample(self, generator, count):
        """Sample programs of this level and of any, or uniformly without a curriculum."""
        programs = []
        for n in range(count):
            level = self.levels[self.level]
            if not self.enabled or n % 2:
                level = self.levels[generator.integers(len(self.levels))]
            programs.append(sample_program(generator, *level))
        return programs

    def report(self, accuracy):
        """Go to the next level when the answers at this one are good enough."""
        if accuracy > 0.9 and self.level + 1 < len(self.levels):
            self.level += 1


def encode(programs, tokenizer):
    """The ids of sources and answers, as two texts, and that of the end mark."""
    sources = tokenizer.encode("".join(program.text + END for program in programs))
    answers = tokenizer.encode("".join(f"{program.answer}{END}" for program in programs))
    return sources, answers, int(tokenizer.encode(END)[0])


def evaluate(model, tokenizer, programs):
    """Return the share of exact answers, and of characters right given the previous ones."""
    sources, answers, end = encode(programs, tokenizer)
    batches = pair_batches(sources, answers, 100, end, end)
    right = 0
    model.eval()
    with no_grad():
        for batch in batches:
            logits, _ = model(batch.source, batch.inputs, batch.source_lengths)
            right += (logits.data.argmax(axis=2) == batch.targets).sum()
    source, lengths = pad([tokenizer.encode(program.text + END) for program in programs])
    found = greedy_search(model, source, lengths, max_length=40)
    model.train()
    exact = [
        tokenizer.decode(answer.ids) == str(program.answer)
        for answer, program in zip(found, programs, strict=True)
    ]
    return float(np.mean(exact)), right / batches.tokens


def main(argv=None):
    """Train, and return the accuracy for each length and nesting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=3, help="maximum digits of a number")
    parser.add_argument("--nesting", type=int, default=2, help="maximum operations of a program")
    parser.add_argument("--curriculum", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--max-steps", type=int, default=1_000_000)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument(
        "--attention", choices=("none", "multiplicative", "additive"), default="none"
    )
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--evaluate-every", type=int, default=100, help="steps between evaluations")
    parser.add_argument("--test-programs", type=int, default=200, help="for each difficulty")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)

    random.seed(arguments.seed)  # initial weights
    generator = np.random.default_rng(arguments.seed)
    tokenizer = CharacterTokenizer.fit([CHARACTERS])
    curriculum = Curriculum(arguments.length, arguments.nesting, arguments.curriculum)
    model = EncoderDecoder(
        tokenizer.vocabulary_size,
        tokenizer.vocabulary_size,
        hidden_size=arguments.hidden_size,
        embedding_size=32,
        num_layers=arguments.num_layers,
        attention=None if arguments.attention == "none" else arguments.attention,
        end_id=int(tokenizer.encode(END)[0]),
        forget_bias=1.0,
    )
    optimizer = optim.Adam(model.parameters(), arguments.learning_rate)
    begin = time.monotonic()
    for step in range(1, arguments.max_steps + 1):
        sources, answers, end = encode(
            curriculum.sample(generator, arguments.batch_size), tokenizer
        )
        (batch,) = pair_batches(sources, answers, arguments.batch_size, end, end)
        loss, _ = model.loss(batch)
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.monotonic() - begin
        if step % arguments.evaluate_every == 0:
            level = curriculum.levels[curriculum.level]
            programs = [sample_program(generator, *level) for _ in range(100)]
            exact, characters = evaluate(model, tokenizer, programs)
            print(
                f"step {step}, {seconds:.0f} s: loss {loss.item():.3f}; length {level[0]}, nesting "
                f"{level[1]}: {exact:.0%} of answers exact, {characters:.1%} of characters",
                flush=True,
            )
            curriculum.report(characters)
        if seconds > 60 * arguments.minutes:
            break

    # Separate from training; but there are few programs of one digit, so the same ones recur.
    generator = np.random.default_rng((arguments.seed, 1))
    accuracy = {}
    for length, nesting in curriculum.levels:
        programs = [
            sample_program(generator, length, nesting) for _ in range(arguments.test_programs)
        ]
        exact, characters = accuracy[length, nesting] = evaluate(model, tokenizer, programs)
        print(
            f"length {length}, nesting {nesting}: {exact:.2%} of answers exact, "
            f"{characters:.2%} of characters"
        )
    return {
        "exact": {level: exact for level, (exact, _) in accuracy.items()},
        "characters": {level: characters for level, (_, characters) in accuracy.items()},
        "steps": step,
    }


if __name__ == "__main__":
    main()
