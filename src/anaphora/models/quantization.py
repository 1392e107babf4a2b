"""Weights in 8 bits in model directories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anaphora import nn
from anaphora.artifact import ArtifactError
from anaphora.engine.precision import MAX_INT8_TERMS, dequantized, quantized
from anaphora.tensor import Array

_SCALES = ".scales"
_OF_A_LAYER = re.compile(r"weight_(ih|hh|hr)_l\d+(_reverse)?")


def untrainable(what: object) -> str:
    """The message for who trains a model with weights in 8 bits.

    >>> untrainable("model")[:57]
    'model: its weights have 8 bits, which cannot be trained; '
    """
    return (
        f"{what}: its weights have 8 bits, which cannot be trained; train the model that it was "
        "quantized from, or continue from the rounded weights: in Python, "
        "anaphora.load(DIR, weights='float32').save(NEW_DIR)"
    )


def check_trainable(name: str, model: Any) -> None:
    """Check that a model is not one with weights in 8 bits.

    Raises:
        ValueError: it is; the message begins with the name.

    >>> check_trainable("Trainer", nn.Linear(3, 4))
    """
    if getattr(model, "in_int8", False):
        raise ValueError(untrainable(name))


def int8_parameters(model: nn.Module) -> list[str]:
    """The names of the parameters that a model computes with in 8 bits.

    >>> int8_parameters(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)))
    ['0.weight']
    """
    found = set()
    for module in model.modules():
        if isinstance(module, nn.Recurrent):
            own = vars(module)
            found |= {id(own[name]) for name in own if _OF_A_LAYER.fullmatch(name)}
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            found.add(id(module.weight))
    for module in model.modules():
        if isinstance(module, nn.AdditiveAttention):
            found.discard(id(module.score.weight))  # no operand of a matrix product
    return [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) in found
        and parameter.dtype == np.float32
        and parameter.shape[1] <= MAX_INT8_TERMS
    ]


def stored_weights(model: nn.Module) -> tuple[dict[str, str], dict[str, Array]]:
    """The parameters of a model as its directory stores them, and what ``config.json`` says of it.

    Raises:
        ValueError: a weight to be stored in 8 bits is NaN, or not below 2^127.

    >>> config, arrays = stored_weights(nn.Linear(3, 2).use_int8())
    >>> config, {name: str(array.dtype) for name, array in arrays.items()}
    ({'weights': 'int8'}, {'weight': 'int8', 'weight.scales': 'float32', 'bias': 'float32'})
    """
    chosen = set(int8_parameters(model)) if model.in_int8 else set()
    arrays: dict[str, Array] = {}
    for name, parameter in model.named_parameters():
        arrays[name] = parameter.data
        if name in chosen:
            arrays[name], scales = quantized(parameter.data)
            arrays[name + _SCALES] = scales
            if not np.isfinite(scales).all():
                raise ValueError(
                    f"{name}[{int(np.isfinite(scales).argmin())}] has NaN, or a number of 2^127 or "
                    "more, and cannot be quantized; train again with a lower learning_rate"
                )
    return {"weights": "int8"} if model.in_int8 else {}, arrays


def loaded_weights(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The parameters of a model, in float32, from the arrays of a file that has them in 8 bits.

    Args:
        path: The file, for messages.
        arrays: Its arrays: for a weight in 8 bits NAME and NAME.scales.

    Raises:
        ArtifactError: they are not those that `stored_weights` made.

    >>> stored = {"w": np.array([[-127, 3]], np.int8), "w.scales": np.array([0.5], np.float32)}
    >>> loaded_weights(Path("model.safetensors"), stored)
    {'w': array([[-63.5,   1.5]], dtype=float32)}
    """
    again = "restore the file that anaphora quantize wrote"
    found = dict(arrays)
    for name, integers in arrays.items():
        if integers.dtype != np.int8:
            continue
        scales = found.pop(name + _SCALES, None)
        if scales is None:
            raise ArtifactError(
                f"{path}: {name} is in 8 bits, but {name}{_SCALES} is missing; {again}"
            )
        if integers.ndim != 2 or scales.dtype != np.float32 or scales.shape != integers.shape[:1]:
            raise ArtifactError(
                f"{path}: {name} is int8 {list(integers.shape)} and {name}{_SCALES} {scales.dtype} "
                f"{list(scales.shape)}; expected int8 [N, K] and float32 [N]; {again}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            weight = dequantized(integers, scales)
            expected_integers, expected_scales = quantized(weight)
        same = (expected_scales == scales) & (expected_integers == integers).all(axis=1)
        if not same.all():
            row = int(same.argmin())
            wrong = _wrong(integers[row], scales[row])
            raise ArtifactError(f"{path}: {name}[{row}] is not a quantized row: {wrong}; {again}")
        found[name] = weight
    return found


def check_stored(path: Path, arrays: Mapping[str, Array], model: nn.Module) -> None:
    """Check that the weights of a file in 8 bits are those that a model computes with so.

    Raises:
        ArtifactError: they are not.

    >>> weight = np.ones((2, 3), np.int8)
    >>> check_stored(Path("model.safetensors"), {"weight": weight}, nn.Linear(3, 2))
    """
    expected = set(int8_parameters(model))
    for name, array in arrays.items():
        dtype = "int8" if name in expected else "float32"
        if array.dtype != dtype:
            raise ArtifactError(
                f"{path}: {name} is {array.dtype}; expected {dtype}; restore the file that "
                "anaphora quantize wrote"
            )


def _wrong(integers: Array, scale: np.float32) -> str:
    """Why a row [K] and its scale are not what `quantized` returns."""
    if not np.isfinite(scale) or scale < 0:
        return f"its scale is {scale}"
    if len(integers) and integers.min() < -127:
        return "it has -128, which is below -127"
    return f"its largest magnitude and its scale, {scale:.3g}, do not belong together"
