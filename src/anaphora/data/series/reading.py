"""Reading series of any format."""

import os

from anaphora.data.errors import DataError
from anaphora.data.formats import FORMATS, format_of
from anaphora.data.series.arff import read_arff
from anaphora.data.series.arrays import read_npy, read_npz, read_ucr
from anaphora.data.series.ts import Answers, Series, read_ts

__all__ = ["read_series"]


def read_series(
    path: str | os.PathLike[str],
    encoding: str = "utf-8",
    format: str | None = None,
    *,
    targets: bool = False,
    channels_first: bool = False,
) -> tuple[Series, Answers]:
    r"""Read series and their classes or targets.

    - ``.ts``, of the UEA, UCR and regression archives (timeseriesclassification.com): a line after
      ``@data`` is a series: its channels, separated by colons, each with its values, separated by
      commas, and after a last colon its class or its target. The header says which:
      ``@classLabel true`` and the classes, ``@classLabel false``, or ``@targetLabel true``. If it
      says nothing, there are classes where its number of channels, or the lines themselves, can be
      read in no other way.
    - ``.arff``, of the same archives: a numeric attribute for each step; or one relational
      attribute whose lines are the channels. The last attribute is the class if it is nominal, and
      the target if it is numeric and called class, target or label, or with `targets`.
    - ``.tsv``, of the UCR archive: a line is a class and the values of one channel.
    - ``.npy``: [n, 1 + T], rows as in ``.tsv``; or [n, T, I] without classes.
    - ``.npz``: an array ``X`` or ``data`` of [n, T] or [n, T, I], and ``y`` or ``target`` of [n],
      if it has any.

    Values that are missing at the end of a series, in all of its channels, end it: so series of
    different lengths are padded. ``.ts`` files need no padding, and may not have it. Text formats
    may come from standard input, and all may be compressed with gzip.

    Args:
        path: The file, or ``-``.
        encoding: That of a file of text.
        format: A key of `FORMATS`; None: according to the name.
        targets: Whether answers are numbers to predict where the file does not say so itself;
            otherwise they are classes: texts or integers.
        channels_first: Whether arrays of three axes are [n, I, T], as aeon and sktime have them.

    Returns:
        The series, each [T, I]; and their classes as str, their targets as float, or None if they
        have neither.

    Raises:
        DataError: what `open_source` raises; the file is not of this form, or has no series; a
            value is missing within a series or not finite; there are time stamps; channels differ
            in length, or series in their number of channels; a class is empty or not among those of
            the header; the header says something else of channels or lengths; whether there are
            classes is ambiguous; an array has objects.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "two.ts")
    ...     _ = path.write_text("@data\n1,2,3:4,5,6:rising\n3,2:9,8:falling\n")
    ...     series, classes = read_series(path)
    >>> series[1].tolist(), classes
    ([[3.0, 9.0], [2.0, 8.0]], ['rising', 'falling'])
    """
    found = format_of(path, format)
    if found == "ts":
        return read_ts(path, encoding)
    if found == "arff":
        return read_arff(path, encoding, targets)
    if found in ("ucr", "tsv"):
        return read_ucr(path, encoding, targets)
    if found == "npy":
        return read_npy(path, targets, channels_first)
    if found == "npz":
        return read_npz(path, targets, channels_first)
    known = [suffix for one in FORMATS.values() if one.kind == "series" for suffix in one.suffixes]
    name = "standard input" if os.fspath(path) == "-" else os.fspath(path)
    raise DataError(
        f"{name} is not known to hold series; expected a file named {', '.join(known)} or, of the "
        "UCR archive, .tsv; or name the format"
    )
