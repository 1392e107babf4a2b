"""ONNX: models out (`save`), models of others in (`load`), and ours back again (`load_model`)."""

try:
    import onnx as _onnx  # noqa: F401 - the message comes before that of the modules below
except ImportError as error:
    raise ImportError('ONNX files need an extra: pip install "anaphora[onnx]"') from error

from anaphora.interop.onnx.exporting import ExportError, describe, export, save
from anaphora.interop.onnx.importing import load_model
from anaphora.interop.onnx.importing import read_model as read
from anaphora.interop.onnx.loading import OnnxModel, load
from anaphora.interop.onnx.reading import OnnxError

__all__ = [
    "ExportError",
    "OnnxError",
    "OnnxModel",
    "describe",
    "export",
    "load",
    "load_model",
    "read",
    "save",
]
