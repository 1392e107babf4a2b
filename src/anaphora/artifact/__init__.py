"""A trained model on disk: a directory of plain files; a kill at any moment loses none."""

from anaphora.artifact.directory import FORMAT, ModelDirectory
from anaphora.artifact.files import (
    ArtifactError,
    atomic_write,
    read_json,
    read_weights,
    write_json,
    write_weights,
)
from anaphora.artifact.folder import Folder, opener_within

__all__ = [
    "FORMAT",
    "ArtifactError",
    "Folder",
    "ModelDirectory",
    "atomic_write",
    "opener_within",
    "read_json",
    "read_weights",
    "write_json",
    "write_weights",
]
