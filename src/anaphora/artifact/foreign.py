"""What a directory holds that another library wrote, for messages."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anaphora.artifact.files import ArtifactError, parse_json, read_json
from anaphora.artifact.folder import opener_within

_SHOWN = 6  # tensors of a file
_LARGEST_HEADER = 1 << 26  # bytes


def described(directory: Path) -> str | None:
    """The weights of a directory as Hugging Face lays it out, and what reads them; else None.

    Only headers are read, and no links are followed.

    >>> described(Path("missing")) is None
    True
    """
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return None
    files = [name for name in names if name.endswith(".safetensors")]
    pickles = [n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    config = _config(directory) if "config.json" in names else {}
    if not files and not (pickles and config):
        return None
    tensors: dict[str, Any] = {}
    unreadable = []
    for name in files:
        try:
            tensors |= _header(directory, name)
        except (OSError, ValueError, RecursionError):
            unreadable.append(name)
    said = []
    if tensors:
        said.append(f"{', '.join(files)[:200]} holds {_listed(tensors)}")
    if unreadable:
        said.append(f"{', '.join(unreadable)[:200]} cannot be read: it is damaged")
    if pickles and not files:
        said.append(f"{', '.join(pickles)[:200]} was written by torch.save")
    return "; ".join(said) + f"; {_advice(directory, config, tensors, [*files, *pickles])}"


def _config(directory: Path) -> Mapping[str, Any]:
    with contextlib.suppress(ArtifactError):
        config = read_json(directory / "config.json", within=directory)
        if isinstance(config, dict):
            return config
    return {}


def _header(directory: Path, name: str) -> dict[str, Any]:
    """The tensors of a safetensors file by name, from its header alone.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    path = directory / name
    with open(path, "rb", opener=opener_within(directory)) as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(_LARGEST_HEADER, os.fstat(file.fileno()).st_size):
            raise ValueError("its header is larger than the file")
        header = parse_json(file.read(size))
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    header.pop("__metadata__", None)
    for tensor in header.values():
        if not isinstance(tensor, dict) or not isinstance(tensor.get("shape"), list):
            raise ValueError("a tensor has no shape")
    return header


def _listed(tensors: Mapping[str, Any]) -> str:
    count = 0
    for tensor in tensors.values():
        size = 1
        for axis in tensor["shape"]:
            size *= axis if isinstance(axis, int) else 0
        count += size
    kinds = sorted({str(tensor.get("dtype"))[:12] for tensor in tensors.values()})
    shown = [f"{name[:80]} {tensor['shape']}"[:160] for name, tensor in tensors.items()][:_SHOWN]
    more = f", and {len(tensors) - _SHOWN} more" if len(tensors) > _SHOWN else ""
    return (
        f"{len(tensors)} tensor{'' if len(tensors) == 1 else 's'} of {', '.join(kinds)} with "
        f"{count:,} numbers: {', '.join(shown)}{more}"
    )


def _advice(
    directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Any], files: list[str]
) -> str:
    """What would read it."""
    recurrent = any("weight_ih_l0" in name for name in tensors)
    architectures, kind = config.get("architectures"), config.get("model_type")
    if isinstance(architectures, list) and architectures:
        reader = f"it is a {str(architectures[0])[:80]}, which the library transformers reads"
    elif kind is not None:
        reader = f"it is of the type {str(kind)[:80]}, which the library transformers reads"
    elif config:
        reader = "its config.json is another library's; the library that wrote it reads it"
    else:
        reader = "it has no config.json to say what they are; safetensors.numpy.load_file reads it"
    if recurrent:
        file = directory / files[0]
        return f"{reader}; if it is an RNN, LSTM or GRU: anaphora import {file} NEW_DIR --task ..."
    if tensors:
        return f"{reader}; none of its tensors are a recurrent layer's, which anaphora runs"
    return reader
