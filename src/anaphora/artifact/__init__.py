"""A trained model on disk: a directory of plain files; a kill at any moment loses none."""

from anaphora.artifact.directory import FORMAT, ModelDirectory
from anaphora.artifact.files import (
    ArtifactError,
    Shape,
    atomic_write,
    check_arrays,
    check_finite,
    explained,
    read_json,
    read_weights,
    require_regular_file,
    write_json,
    write_weights,
)
from anaphora.artifact.folder import Folder
from anaphora.artifact.lock import LOCK_FILE

__all__ = [
    "FORMAT",
    "LOCK_FILE",
    "ArtifactError",
    "Folder",
    "ModelDirectory",
    "Shape",
    "atomic_write",
    "check_arrays",
    "check_finite",
    "explained",
    "read_json",
    "read_weights",
    "require_regular_file",
    "write_json",
    "write_weights",
]
