"""Small Python programs and their output: learning to execute (Zaremba & Sutskever 2014)."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Program", "sample_program"]

OPERATIONS = ("add", "subtract", "multiply", "assign", "condition", "loop")
VARIABLES = "abcdefghijklmnopqrstuvwyz"  # x counts loops


@dataclass(frozen=True)
class Program:
    """A program, and the number that it prints.

    Attributes:
        text: Its source, without a line end after the last line.
        answer: The number that it prints.

    >>> Program("print((7+12))", 19).answer
    19
    """

    text: str
    answer: int


def sample_program(generator: np.random.Generator, length: int, nesting: int) -> Program:
    """Sample a program that prints one number.

    It starts with a number and applies `nesting` operations, each to the result of the previous
    one: add or subtract a number, multiply by a small one, assign to a variable, choose by a
    condition, add the same number in a loop. Small numbers, in products and loops, are from 1 to
    4 * length.

    Source: Zaremba & Sutskever 2014, "Learning to Execute"; theirs also combine two results.

    Args:
        generator: The source of randomness.
        length: The maximum number of digits of a number, at least 1.
        nesting: The number of operations, from 0 to 25.

    Raises:
        ValueError: the length or the nesting is out of range.

    >>> program = sample_program(np.random.default_rng(5), length=3, nesting=3)
    >>> print(program.text)
    y=(897 if 493<666 else 393)
    for x in range(1):y+=677
    print((y+959))
    >>> program.answer
    2533
    """
    if length < 1 or not 0 <= nesting <= len(VARIABLES):
        raise ValueError(
            f"sample_program: length {length} and nesting {nesting}; expected a length of at least "
            f"1 and a nesting from 0 to {len(VARIABLES)}"
        )
    names = iter(generator.permutation(list(VARIABLES)))

    def number() -> int:
        return int(generator.integers(1, 10**length))

    def small() -> int:
        return int(generator.integers(1, 4 * length + 1))

    lines: list[str] = []
    value = number()
    text = str(value)  # an expression for the value
    for operation in generator.choice(OPERATIONS, nesting):
        other = number()
        first = bool(generator.integers(2))  # whether the value so far is the first operand
        left, right = (text, other) if first else (other, text)
        if operation == "add":
            text, value = f"({left}+{right})", value + other
        elif operation == "subtract":
            text, value = f"({left}-{right})", (value - other) if first else (other - value)
        elif operation == "multiply":
            factor = small()
            text = f"({text}*{factor})" if first else f"({factor}*{text})"
            value *= factor
        elif operation == "assign":
            name = next(names)
            lines.append(f"{name}={text}")
            text = name
        elif operation == "condition":
            a, b = number(), number()
            text = f"({left} if {a}<{b} else {right})"
            value = value if first == (a < b) else other
        else:
            name, times = next(names), small()
            lines += [f"{name}={text}", f"for x in range({times}):{name}+={other}"]
            text, value = name, value + times * other
    return Program("\n".join([*lines, f"print({text})"]), value)
