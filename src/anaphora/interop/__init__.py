"""Models of others in, and ours out: one file or folder a format, imported when it is used.

Each needs an extra of the package, such as ``pip install 'anaphora[onnx]'``, or none.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FORMATS", "Exported", "Format", "export", "format_of"]


class Exported(NamedTuple):
    """What was written: for people, and for machines.

    Attributes:
        lines: What people should know, a line each.
        record: The same and more as plain values, for ``anaphora export --json``.

    >>> Exported(["wrote model.onnx"], {"out": "model.onnx"}).record["out"]
    'model.onnx'
    """

    lines: list[str]
    record: Mapping[str, Any]


class Format(NamedTuple):
    """A format in which a model can be written.

    Attributes:
        suffix: Of its files.
        function: MODULE:NAME of the function that writes it, of a model (with its codec as
            ``model.codec``) and a path, and returns an `Exported`.

    >>> FORMATS["onnx"].suffix
    '.onnx'
    """

    suffix: str
    function: str


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "anaphora.interop.onnx:export"),
}
"""The formats of ``anaphora export`` by name; the first of several with a suffix is its default."""


def format_of(path: Path, name: str | None = None) -> Format:
    """The format with a name; without one, that of the path's suffix.

    Raises:
        ValueError: there is none.

    >>> format_of(Path("model.onnx")).function
    'anaphora.interop.onnx:export'
    """
    if name is not None:
        if name not in FORMATS:
            raise ValueError(f"format {name!r:.40} is not one of {', '.join(FORMATS)}")
        return FORMATS[name]
    for format in FORMATS.values():
        if path.suffix.lower() == format.suffix:
            return format
    suffixes = ", ".join(dict.fromkeys(format.suffix for format in FORMATS.values()))
    raise ValueError(f"{path}: its name must end with {suffixes}, or give the format")


def export(model: Any, path: Path, name: str | None = None) -> Exported:
    """Write a model in the format with a name, or that of the path's suffix.

    Raises:
        ValueError: there is no such format, or it cannot hold the model.
        ImportError: an extra is needed, which the message names.
        ArtifactError: the file cannot be written.

    >>> from anaphora.nn import Linear
    >>> export(Linear(3, 2), Path("model.txt"))
    Traceback (most recent call last):
    ValueError: model.txt: its name must end with .onnx..., or give the format
    """
    module, _, function = format_of(path, name).function.partition(":")
    written: Exported = getattr(importlib.import_module(module), function)(model, path)
    return written
