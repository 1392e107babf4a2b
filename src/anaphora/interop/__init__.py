"""Models of others in, and ours out: a file or folder for each format, imported when it is used.

A format may need an extra of the package, such as ``pip install "anaphora[onnx]"``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from anaphora.artifact import ArtifactError

__all__ = ["FORMATS", "READERS", "Exported", "Format", "export", "format_of", "read"]


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


PEERS = ("c", "keras", "layers", "models", "onnx", "page", "rtneural", "torch", "vocabulary")
"""The modules of this package, which `import anaphora.interop` leaves for later."""

FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "anaphora.interop.onnx:export"),
    "c": Format(".c", "anaphora.interop.c:export"),
    "rtneural": Format(".json", "anaphora.interop.rtneural:export"),
    "page": Format(".html", "anaphora.interop.page:export"),
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


READERS: dict[str, str] = {
    ".keras": "anaphora.interop.keras:read",
    ".h5": "anaphora.interop.keras:read",
    ".hdf5": "anaphora.interop.keras:read",
    ".pt": "anaphora.interop.torch.checkpoints:read",
    ".pth": "anaphora.interop.torch.checkpoints:read",
    ".ckpt": "anaphora.interop.torch.checkpoints:read",
    ".bin": "anaphora.interop.torch.checkpoints:read",
    ".safetensors": "anaphora.interop.models:read",
    ".onnx": "anaphora.interop.onnx:read",
}
"""MODULE:NAME of the functions that make a model of a file, by its suffix.

They take the path, the name of a task or None, and the path of a configuration or None, and return
a `SavedModel`. They raise an ArtifactError if the file cannot be read, and a ValueError if it does
not have the shape of a model, or the task does not fit.
"""


def read(path: Path, task: str | None = None, config: Path | None = None) -> Any:
    """Make one of our models of a file of others, by its suffix.

    Raises:
        ArtifactError: the suffix is unknown, or the file cannot be read.
        ValueError: the file does not have the shape of a model, or the task does not fit.
        ImportError: an extra is needed, which the message names.

    >>> read(Path("model.pb"))
    Traceback (most recent call last):
    anaphora.artifact.files.ArtifactError: model.pb: its name must end with .keras, .h5, ...
    """
    if path.suffix.lower() not in READERS:
        raise ArtifactError(f"{path}: its name must end with {', '.join(READERS)}")
    module, _, function = READERS[path.suffix.lower()].partition(":")
    return getattr(importlib.import_module(module), function)(path, task, config)


def __getattr__(name: str) -> Any:
    if name in PEERS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
