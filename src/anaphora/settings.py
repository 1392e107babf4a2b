"""The environment variables of the package, read and checked in one place."""

import os

ENGINES = ("native", "numpy")
INSTRUCTION_SETS = ("amx", "avx512", "avx2", "baseline")
EMULATED_SETS = ("amx-emulated",)  # slow, with the bits of what they emulate: for tests
MAX_THREADS = 1024


class SettingError(ValueError):
    """An environment variable has an invalid value; the message names both."""


def engine() -> str:
    """Which engine to use: "native" or "numpy".

    Raises:
        SettingError: ``ANAPHORA_ENGINE`` is neither.
    """
    value = os.environ.get("ANAPHORA_ENGINE") or "native"
    if value not in ENGINES:
        raise SettingError(
            f"ANAPHORA_ENGINE is {value!r}; expected 'native' (the default) or 'numpy'; set it to "
            "one of them, or unset it"
        )
    return value


def num_threads() -> int | None:
    """The number of threads to use; None if it is not set.

    Without ``ANAPHORA_NUM_THREADS`` it is that of ``OMP_NUM_THREADS``, which joblib and dask set in
    the processes that they start, and scripts of clusters for each task.

    Raises:
        SettingError: ``ANAPHORA_NUM_THREADS`` is not an integer from 1 to 1,024.
    """
    value = os.environ.get("ANAPHORA_NUM_THREADS")
    if not value:
        of_openmp = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
        given = of_openmp.isdecimal() and len(of_openmp) < 9 and int(of_openmp) > 0
        return min(int(of_openmp), MAX_THREADS) if given else None
    if not (value.isdecimal() and len(value) < 9 and 1 <= int(value) <= MAX_THREADS):
        raise SettingError(
            f"ANAPHORA_NUM_THREADS is {value!r}; expected an integer from 1 to {MAX_THREADS:,}; "
            "correct it, or unset it to use all processors"
        )
    return int(value)


def instruction_set() -> str | None:
    """Which instruction set to use; None if it is not set."""
    return os.environ.get("ANAPHORA_INSTRUCTION_SET") or None


def may_share_memory() -> bool:
    """Whether processes of one machine may share memory: unless ``ANAPHORA_SHARED_MEMORY`` is 0.

    Raises:
        SettingError: it is neither 0 nor 1.
    """
    value = os.environ.get("ANAPHORA_SHARED_MEMORY") or "1"
    if value not in ("0", "1"):
        raise SettingError(
            f"ANAPHORA_SHARED_MEMORY is {value!r}; expected 0, for messages between processes of "
            "one machine too, or 1; correct it, or unset it"
        )
    return value == "1"


def api_key() -> str | None:
    """The key that requests to ``anaphora serve`` must have; None if it is not set."""
    return os.environ.get("ANAPHORA_API_KEY") or None


def unavailable_instruction_set(name: str) -> SettingError:
    """The error for an instruction set that is not available."""
    return SettingError(
        f"ANAPHORA_INSTRUCTION_SET is {name!r}, which this machine or build does not have; "
        f"expected one of {', '.join(INSTRUCTION_SETS[:-1])} and {INSTRUCTION_SETS[-1]}; set it "
        "to another one, or unset it for the machine's best"
    )
