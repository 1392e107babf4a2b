"""Models as ONNX files, checked in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anaphora.interop import Exported


def save(model: Any, path: str | Path) -> Exported:
    """Write a model as an ONNX file."""
    raise ValueError(f"{type(model).__name__} cannot be exported to ONNX")


def export(model: Any, path: Path) -> Exported:
    """As `save`, for ``anaphora export``."""
    return save(model, path)
