"""Reading series in any format."""

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
      ``@data`` is a series: channels separated by colons, each with values separated by commas,
      and after a last colon its class or target. The header says which: ``@classLabel true`` and
      the classes, ``@classLabel false``, or ``@targetLabel true``. If it does not, there are
      classes if the number of channels, or the lines themselves, allow no other reading.
    - ``.arff``, of the same archives: a numeric attribute for each step; or one relational
      attribute whose lines are the channels. The last attribute is the class if it is nominal, and
      the target if it is numeric and called class, target or label, or with `targets`.
    - ``.tsv``, of the UCR archive: a line is a class and the values of one channel.
    - ``.npy``: [n, 1 + T], rows as in ``.tsv``; or [n, T, I] without classes.
    - ``.npz``: an array ``X`` or ``data`` of [n, T] or [n, T, I], and ``y`` or ``target`` of [n],
      if there is one.

    Steps at the end of a series that are missing in all channels are padding, and are removed.
    ``.ts`` files need no padding, and may not have it. Text formats may come from standard input,
    and all may be compressed with gzip.

    Args:
        path: The file, or ``-``.
        encoding: The encoding of a text file.
        format: A key of `FORMATS`; None: according to the name.
        targets: Whether answers are numbers to predict, where the file does not say; otherwise
            they are classes: texts or integers.
        channels_first: Whether arrays of three axes are [n, I, T], as in aeon and sktime.

    Returns:
        The series, each [T, I]; and their classes as str or targets as float, or None if there are
        neither.

    Raises:
        DataError: as for `open_source`; the file is malformed, or has no series; a value is
            missing within a series or not finite; there are time stamps; channels differ in
            length, or series in their number of channels; a class is empty or not in the header;
            the header contradicts the channels or lengths; whether there are classes is ambiguous;
            an array has objects.

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
        f"{name} is not recognized as a file of series; expected a file named {', '.join(known)} "
        "or, of the UCR archive, .tsv; or give the format"
    )
