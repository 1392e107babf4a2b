"""Series of measurements with their classes, from files of the UEA and UCR archives."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anaphora.text.errors import TextError
from anaphora.text.sources import open_source

__all__ = ["moments", "read_series", "standardized"]

Series = list[NDArray[np.float64]]


def read_series(path: str | os.PathLike[str]) -> tuple[Series, list[str]]:
    r"""Read the series of a file of the UEA and UCR archives (timeseriesclassification.com).

    A line of a ``.ts`` file after ``@data`` is a series: its channels, apart by colons, each with
    its values, apart by commas, and behind a last colon its class. A ``.npy`` file has a row for
    each series: its class, a whole number, and the values of its one channel.

    Args:
        path: The file.

    Returns:
        The series, each [T, I], and their classes.

    Raises:
        TextError: what `open_source` raises; the file is not of this form, or has no series; a
            value is missing or no finite number; channels differ in length, or series in their
            number of channels.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "two.ts")
    ...     _ = path.write_text("@data\n1,2,3:4,5,6:rising\n3,2:9,8:falling\n")
    ...     series, classes = read_series(path)
    >>> series[1].tolist(), classes
    ([[3.0, 9.0], [2.0, 8.0]], ['rising', 'falling'])
    """
    path = Path(path)
    return _read_table(path) if path.suffix.lower() == ".npy" else _read_ts(path)


def _read_table(path: Path) -> tuple[Series, list[str]]:
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TextError(f"{path} cannot be read as an array: {error}") from error
    found = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else "several arrays"
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] < 2 or not len(table):
        raise TextError(f"{path} holds {found}; wanted rows of a class and the values of a series")
    if table.dtype.kind not in "iuf" or not np.isfinite(table).all():
        raise TextError(f"{path} holds {found}, not all of it finite numbers; wanted only these")
    if parts := table[:, 0][table[:, 0] % 1 != 0].tolist():
        raise TextError(f"{path} has a class {parts[0]} in column 0; wanted whole numbers there")
    return [row[1:, None] for row in table], [str(int(row[0])) for row in table]


def _read_ts(path: Path) -> tuple[Series, list[str]]:
    lines = "".join(open_source(path)).split("\n")
    start = next((n for n, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if start is None:
        raise TextError(f"{path} has no line @data, behind which a .ts file has its series")
    series: Series = []
    classes = []
    for number, line in enumerate(lines[start + 1 :], start=start + 2):
        if not line.strip():
            continue
        *channels, name = line.strip().split(":")
        where = f"{path}, line {number}"
        try:
            columns = [[float(value) for value in channel.split(",")] for channel in channels]
        except ValueError as error:
            raise TextError(
                f"{where}: {error}; wanted numbers between commas, and no missing ones or time "
                "stamps"
            ) from error
        steps = sorted({len(column) for column in columns})
        if len(steps) != 1:
            found = f"channels of {steps[0]} to {steps[-1]} steps" if steps else "no channel"
            raise TextError(
                f"{where}: {found}; wanted channels of one length, and a class behind a last colon"
            )
        values = np.array(columns).T
        if not np.isfinite(values).all():
            raise TextError(f"{where}: a value is not finite; mend or leave out that series")
        if series and values.shape[1] != series[0].shape[1]:
            raise TextError(
                f"{where}: {values.shape[1]} channels; those above have {series[0].shape[1]}"
            )
        series.append(values)
        classes.append(name.strip())
    if not series:
        raise TextError(f"{path} has no series behind its line @data")
    return series, classes


def moments(
    values: ArrayLike, what: str = "channel"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean and the deviation along the first axis; that of a constant channel counts as 1.

    They are computed in float64, whatever the dtype of the values.

    Args:
        values: [N, ...] finite numbers, such as the steps of all series [N, I].
        what: What a column is called in messages.

    Raises:
        TextError: a channel has a value that is not finite, or values so large that their squares
            overflow; the message names it. Or N is 0.

    >>> mean, deviation = moments([[1.0, 5.0], [3.0, 5.0]])
    >>> mean.tolist(), deviation.tolist()
    ([2.0, 5.0], [1.0, 1.0])
    """
    array = np.asarray(values)
    if len(array) == 0:
        raise TextError("there is no step of which to take a mean and a deviation; give some")
    with np.errstate(over="ignore", invalid="ignore"):  # told below, by channel
        mean = array.mean(axis=0, dtype=np.float64)
        deviation = array.std(axis=0, dtype=np.float64)
    overflowed = np.flatnonzero(~np.isfinite(mean + deviation))
    if len(overflowed):
        channel = int(overflowed[0])
        column = array.reshape(len(array), -1)[:, channel]
        wrong = column[~np.isfinite(column)]
        raise TextError(
            f"{what} {channel} has the value {wrong[0]}, which is not finite; leave it out or "
            "replace it"
            if len(wrong)
            else f"{what} {channel} has values as large as {np.abs(column).max():g}, whose squares "
            "overflow in float64, so it has no deviation; divide it by a power of ten"
        )
    # By rounding alone the deviation of a constant may be a little above 0.
    constant = (array.min(axis=0) == array.max(axis=0)) | (deviation == 0)
    return mean, np.where(constant, 1.0, deviation)


def standardized(
    series: NDArray[Any], mean: NDArray[Any], deviation: NDArray[Any], what: str = "a series"
) -> NDArray[np.float64]:
    """A series [T, I] less the mean of each channel, over its deviation, as `moments` gave them.

    Args:
        series: [T, I].
        mean: [I].
        deviation: [I].
        what: What the series is called in messages.

    Raises:
        TextError: a value is so far from the mean that no float32 can hold it then; the message
            names channel and step.

    >>> standardized(np.array([[1.0], [4.0]]), np.array([2.0]), np.array([0.5])).tolist()
    [[-2.0], [4.0]]
    """
    scaled: NDArray[np.float64] = (series - mean) / deviation
    beyond = np.argwhere(~(np.abs(scaled) <= np.finfo(np.float32).max))
    if len(beyond):
        step, channel = beyond[0]
        raise TextError(
            f"{what} has the value {series[step, channel]:g} in channel {channel} at step {step}, "
            f"which no float32 can hold when standardised by the mean {mean[channel]:g} and the "
            f"deviation {deviation[channel]:g} of the training; correct it or leave the series out"
        )
    return scaled
