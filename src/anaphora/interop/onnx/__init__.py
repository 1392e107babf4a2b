"""ONNX: models out (`save`)."""

try:
    import onnx as _onnx  # noqa: F401 - the message comes before that of the modules below
except ImportError as error:
    raise ImportError('ONNX files need an extra: pip install "anaphora[onnx]"') from error

from anaphora.interop.onnx.export import export, save

__all__ = ["export", "save"]
