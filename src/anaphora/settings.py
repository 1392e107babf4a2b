"""The environment variables that the package obeys, read and checked in one place."""

import os

ENGINES = ("native", "numpy")
INSTRUCTION_SETS = ("amx", "avx512", "avx2", "baseline")
MAX_THREADS = 1024


class SettingError(ValueError):
    """An environment variable has a value that it cannot have; the message names both."""


def engine() -> str:
    """Which engine to use: "native" or "numpy".

    Raises:
        SettingError: ``ANAPHORA_ENGINE`` is neither.
    """
    asked = os.environ.get("ANAPHORA_ENGINE") or "native"
    if asked not in ENGINES:
        raise SettingError(
            f"ANAPHORA_ENGINE is {asked!r}; it is 'native' (the default) or 'numpy'; set it to one "
            "of them, or unset it"
        )
    return asked


def num_threads() -> int | None:
    """The number of threads to use; None if it is not set.

    Raises:
        SettingError: ``ANAPHORA_NUM_THREADS`` is not an integer from 1 to 1,024.
    """
    asked = os.environ.get("ANAPHORA_NUM_THREADS")
    if not asked:
        return None
    if not (asked.isdecimal() and len(asked) < 9 and 1 <= int(asked) <= MAX_THREADS):
        raise SettingError(
            f"ANAPHORA_NUM_THREADS is {asked!r}; it is a number of at least 1 and at most "
            f"{MAX_THREADS:,}; set it to one, or unset it for all processors"
        )
    return int(asked)


def instruction_set() -> str | None:
    """Which instruction set to use; None if it is not set."""
    return os.environ.get("ANAPHORA_INSTRUCTION_SET") or None


def no_instruction_set(asked: str) -> SettingError:
    """The error of an instruction set that cannot be had."""
    return SettingError(
        f"ANAPHORA_INSTRUCTION_SET is {asked!r}, which this machine or build does not have; it is "
        f"one of {', '.join(INSTRUCTION_SETS[:-1])} and {INSTRUCTION_SETS[-1]}; set it to another "
        "one, or unset it for the machine's best"
    )
