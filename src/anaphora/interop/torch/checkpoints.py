"""Checkpoints of PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anaphora.artifact import ArtifactError
from anaphora.interop.models import of_state
from anaphora.interop.torch.layers import numbers, pytorch
from anaphora.models import SavedModel
from anaphora.tensor import Array

_STATES = ("state_dict", "model_state_dict", "model_state", "model", "net", "module", "weights")


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The weights of a file of ``torch.save``, by name, as ``load_state_dict`` takes them.

    It is read by ``torch.load(weights_only=True)`` alone: PyTorch then refuses to run code of the
    file. Of a dictionary with more than weights, those under `state_dict`, `model_state_dict` or a
    similar name are taken. bfloat16 and float16 become float32, exactly.

    Raises:
        ImportError: there is no PyTorch; safetensors files need none.
        ArtifactError: the file is missing or damaged, has Python objects other than weights, or no
            weights.

    >>> load_checkpoint("missing.pt")  # doctest: +SKIP
    """
    torch, path = pytorch(), Path(path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # of pickle, zipfile or PyTorch, by what is wrong
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        raise ArtifactError(
            f"{path}: PyTorch cannot read it as weights alone ({reason}); where the model is, save "
            "them so: torch.save(model.state_dict(), FILE)"
        ) from error
    state = _state(torch, held)
    if not state:
        raise ArtifactError(
            f"{path}: holds a {type(held).__name__} without a dictionary of weights; save "
            "model.state_dict()"
        )
    return {name: numbers(torch, tensor) for name, tensor in state.items()}


def _state(torch: Any, held: Any, depth: int = 2) -> Mapping[str, Any]:
    """The tensors by name in a checkpoint, or nothing."""
    if not isinstance(held, Mapping):
        return {}
    tensors = {
        name: value
        for name, value in held.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor) and not value.is_quantized
    }
    if tensors and len(tensors) == len(held):
        return tensors
    for name in _STATES if depth else ():
        if found := _state(torch, held.get(name), depth - 1):
            return found
    return tensors


def read(path: Path, task: str | None, config: Path | None) -> SavedModel:
    """For `interop.read`: the model with the weights of a checkpoint."""
    return of_state(path, load_checkpoint(path), task, config)
