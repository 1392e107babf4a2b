"""A trained model on disk: a directory of plain files, safe against a kill at any moment."""

from anaphora.artifact.directory import FORMAT, INT8_FORMAT, SWEEP_PICTURE, ModelDirectory
from anaphora.artifact.files import (
    ArtifactError,
    Shape,
    atomic_write,
    check_arrays,
    check_finite,
    read_json,
    read_weights,
    write_json,
    write_weights,
)
from anaphora.artifact.folder import Folder, opener_within

__all__ = [
    "FORMAT",
    "INT8_FORMAT",
    "SWEEP_PICTURE",
    "ArtifactError",
    "Folder",
    "ModelDirectory",
    "Shape",
    "atomic_write",
    "check_arrays",
    "check_finite",
    "opener_within",
    "read_json",
    "read_weights",
    "write_json",
    "write_weights",
]
