"""Saving models to directories, and loading them."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from anaphora import nn, schema
from anaphora.artifact import ArtifactError, ModelDirectory, Shape, atomic_write, check_arrays
from anaphora.artifact.files import json_bytes, read_bytes
from anaphora.cells import Cell
from anaphora.data import Codec, Tokenizer
from anaphora.models.body import Body
from anaphora.models.quantization import (
    check_stored,
    int8_parameters,
    loaded_weights,
    stored_weights,
    untrainable,
)
from anaphora.nn.initialization import shapes_only
from anaphora.nn.session import check_weights
from anaphora.tensor import Array

Axes = tuple[int, ...]


class SavedModel(nn.Module, Body):
    """A module that is constructed from options, and can be saved to a directory and loaded.

    A subclass is a dataclass (with ``eq=False, repr=False``), whose fields, including those of its
    body, are the arguments of its constructor. It sets `kind`, and makes its layers in
    ``__post_init__``, after calling that of its base.

    Attributes:
        kind: The name of the class in ``config.json``.
        loss_kind: The kind of its loss; see `training.loss_figures`.
        codec_type: The class of its codec.
        codec: Converts inputs to numbers and predictions from numbers; None if there is none.
        config: The entries of ``config.json`` besides the options, for a model that was loaded.

    >>> import tempfile
    >>> from anaphora.models import SequenceClassifier
    >>> model = SequenceClassifier(num_classes=2, hidden_size=4, input_size=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder, classes=["yes", "no"])
    ...     model = SequenceClassifier.load(folder)
    >>> model.training, model.config["classes"]
    (False, ['yes', 'no'])
    """

    kind: ClassVar[str]
    loss_kind: ClassVar[str | None] = None
    codec_type: ClassVar[type[Codec | Tokenizer]]

    codec: Any = None
    config: Mapping[str, Any] = {}

    plain_types: ClassVar[Mapping[Any, Any]] = {
        **Body.plain_types,
        int: schema.Size,
        int | None: schema.Size | None,
    }
    kinds: ClassVar[dict[str, type[SavedModel]]] = {}
    """The classes of models by kind."""

    # Those of dataclasses would compare and hash the options.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in vars(cls):
            SavedModel.kinds[cls.kind] = cls

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None

    @property
    def weights(self) -> str:
        """How its weights are computed with, and saved: "float32", or "int8" for 8 bits."""
        return "int8" if self.in_int8 else "float32"

    @weights.setter
    def weights(self, weights: str) -> None:
        check_weights(weights, self.dtype)
        self.use_int8(weights == "int8")

    def train(self, mode: bool = True) -> Self:
        """Switch to training or, with False, to evaluation; return the model.

        Raises:
            RuntimeError: the model computes with weights in 8 bits, which cannot be trained.
        """
        if mode and self.in_int8:
            raise RuntimeError(untrainable(type(self).__name__))
        return super().train(mode)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the constructor, as plain values."""
        return self.to_dict()

    def save(self, directory: str | os.PathLike[str] | ModelDirectory, **config: Any) -> None:
        """Save the model and its codec to a directory, with weights in 8 bits if it has such.

        Args:
            directory: A path, which is created, or whose model is replaced; or a `ModelDirectory`,
                where only a model with the same options is replaced.
            **config: More entries for ``config.json``, such as how the model was trained.

        Raises:
            ValueError: the cell was not traced, so that it has no program to save; or a weight to
                be quantized is not finite.
            ArtifactError: as for `ModelDirectory.create` and `ModelDirectory.save`.
        """
        # Errors must come before the directory's model is deleted.
        options = self.options
        stored, arrays = stored_weights(self)
        codec = {} if self.codec is None else self.codec.to_dict()
        place = directory.path if isinstance(directory, ModelDirectory) else Path(directory)
        json_bytes(place / "config.json", {**config, "model": options})
        json_bytes(place / "tokenizer.json", codec)
        if not isinstance(directory, ModelDirectory):
            directory = ModelDirectory.create(directory, overwrite=True)
        config = {**config, "task": self.kind, "model": options}
        directory.save(config | stored, codec, arrays)

    def extra_repr(self) -> str:
        """The options that differ from their defaults, or have none."""
        shown = {
            name: getattr(self, name)
            for name, field in self.fields().items()
            if field.default is dataclasses.MISSING or getattr(self, name) != field.default
        }
        return ", ".join(
            f"{name}={value.name if isinstance(value, Cell) else repr(value)}"
            for name, value in shown.items()
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], weights: str | None = None) -> Self:
        """Load a model of this class and its codec, in evaluation mode.

        Args:
            path: The directory.
            weights: "float32", or "int8" to compute with weights in 8 bits; None for what the
                directory holds.

        Raises:
            ArtifactError: the directory is missing, damaged, or holds something else.
            ValueError: the weights are not of these two, or int8 with float64.
        """
        directory = ModelDirectory.open(path)
        config, data, arrays = directory.load()
        held = config.pop("weights", "float32")
        stored = arrays
        if held == "int8":
            arrays = loaded_weights(directory.weights, stored)
        options = config.pop("model", None)
        if config.get("task") != cls.kind or options is None:
            found = (
                "it has no model" if options is None else f"its task is {config.get('task')!r:.80}"
            )
            raise ArtifactError(f"{directory.config}: {found}, not {cls.kind!r}")
        model = cls.made(directory, options, arrays)
        if held == "int8":
            check_stored(directory.weights, stored, model)
        model.config = config
        model.weights = weights or held
        model.codec = cls.load_codec(directory, data, model.options)
        return model

    @classmethod
    def load_codec(
        cls, directory: ModelDirectory, data: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Any:
        """Make the codec from the data of ``tokenizer.json``; None if it is empty.

        Args:
            directory: The directory of the data, for messages.
            data: The data.
            options: The options of the model, whose sizes must match those of the codec.

        Raises:
            ArtifactError: the data is damaged, or of another model.
        """
        if not data:
            return None
        try:
            codec = cls.codec_type.from_dict(data)
        except ValueError as error:  # DataError is one
            raise ArtifactError(
                f"{directory.tokenizer}: {error}; restore the one that the model was trained with"
            ) from error
        for name, size in codec.sizes().items():
            if options[name] != size:
                raise ArtifactError(
                    f"{directory.config}: model.{name} is {options[name]}, but "
                    f"{directory.tokenizer.name} has {size}; restore the two files that were "
                    "saved together"
                )
        return codec

    @classmethod
    def made(
        cls, directory: ModelDirectory, options: Mapping[str, Any], weights: Mapping[str, Array]
    ) -> Self:
        """Make a model from the contents of a directory, in evaluation mode.

        The options are compared with the weights before memory is allocated for them.

        Args:
            directory: The directory of the options and weights, for messages.
            options: The arguments of the class, as plain values.
            weights: All of its parameters.

        Raises:
            ArtifactError: the options are not valid for the class, or do not match the weights.
        """
        try:
            if isinstance(layers := options.get("num_layers"), int) and layers > len(weights):
                raise ValueError(
                    f"model.num_layers is {layers}, but {directory.weights.name} has "
                    f"{len(weights)} arrays"
                )
            with shapes_only():
                model = cls.from_dict(options, "model")
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"{directory.config}: the options are not valid for {cls.__name__}: {error}; "
                "correct or restore the file"
            ) from error
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, parameter in parameters.items():
            if name in weights and parameter.shape != (found := weights[name].shape):
                raise ArtifactError(
                    f"{directory.config}: {_makes(options, parameter.shape, found)} makes {name} "
                    f"{list(parameter.shape)}, but in {directory.weights.name} it is "
                    f"{list(found)}; restore the two files that were saved together"
                )
        check_arrays(directory.weights, weights, parameter_shapes(model, weights))
        for name, array in weights.items():
            parameters[name].assign(array)
        return model.eval()


def load(path: str | os.PathLike[str], weights: str | None = None) -> Any:
    """Load the model of a directory, of any class, with its codec as ``model.codec``.

    Args:
        path: The directory.
        weights: "float32", or "int8" to compute with weights in 8 bits; None for what the directory
            holds: int8 if `quantize` made it.

    Raises:
        ArtifactError: the directory is missing, damaged, or holds no model of a class in
            `SavedModel.kinds`.
        ValueError: the weights are not of these two, or int8 with float64.

    >>> import tempfile
    >>> from anaphora.models import SequenceRegressor
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     SequenceRegressor(num_outputs=1, hidden_size=4, input_size=3).save(folder)
    ...     type(load(folder)).__name__
    'SequenceRegressor'
    """
    directory = ModelDirectory.open(path)
    kind = directory.load_config().get("task")
    if kind not in SavedModel.kinds:
        raise ArtifactError(
            f"{directory.config}: its task is {kind!r:.80}; expected {', '.join(SavedModel.kinds)}"
        )
    return SavedModel.kinds[kind].load(path, weights)


def quantize(
    directory: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a model with weights in 8 bits, a quarter of the size, to another directory.

    The weights of recurrent layers, linear layers and embeddings are stored as integers with one
    scale for each of their rows (`engine.precision.quantized`). The new directory computes with
    them, and to the bit as the first one with ``weights="int8"``. All else is copied, except for
    the checkpoint: it cannot be trained further.

    Args:
        directory: The directory of a model of float32.
        out: The new directory.
        overwrite: Whether to replace a model in ``out``.

    Raises:
        ArtifactError: the directory is missing or damaged, is quantized already, has weights of
            float64, or none to quantize; or ``out`` is the directory, holds a model and
            ``overwrite`` is false, or cannot be written. Nothing on disk changes then.

    >>> import tempfile
    >>> from anaphora.models import LanguageModel
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     LanguageModel(vocabulary_size=50, hidden_size=64).save(f"{folder}/model")
    ...     quantize(f"{folder}/model", f"{folder}/small")
    ...     files = [Path(folder, name, "model.safetensors") for name in ("model", "small")]
    ...     before, after = (file.stat().st_size for file in files)
    ...     round(after / before, 2), load(f"{folder}/small").weights
    (0.28, 'int8')
    """
    home, target = ModelDirectory.open(directory), ModelDirectory(out)
    if target.path.exists() and target.path.samefile(home.path):
        raise ArtifactError(f"{target.path}: is the directory to quantize; choose another folder")
    if home.load_config().get("weights") == "int8":
        raise ArtifactError(f"{home.path}: is quantized already; copy it, or quantize another")
    model: SavedModel = load(directory)
    if model.dtype != "float32":
        raise ArtifactError(
            f"{home.path}: its weights are {model.dtype}, and 8 bits stand for float32; train it "
            "with the dtype float32"
        )
    if not int8_parameters(model):
        raise ArtifactError(
            f"{home.path}: has no weights to quantize, which are those of recurrent layers, linear "
            "layers and embeddings; use it as it is"
        )
    if not overwrite and (os.path.lexists(target.weights) or os.path.lexists(target.checkpoint)):
        raise ArtifactError(
            f"{target.path}: already holds a model; choose another folder, or replace it with "
            "--overwrite (in Python overwrite=True)"
        )
    model.weights = "int8"
    metrics = read_bytes(home.metrics, home.path) if os.path.lexists(home.metrics) else b""
    try:
        model.save(target.path, **model.config)
    except ValueError as error:
        raise ArtifactError(f"{home.path}: {error}") from error
    atomic_write(target.metrics, metrics, within=target.path)


def parameter_shapes(model: Any, given: Iterable[str]) -> dict[str, Shape]:
    """The shapes of a model's parameters; a shared one under those of its names that are given.

    >>> from anaphora.nn import Linear
    >>> print(*parameter_shapes(Linear(3, 2, bias=False), ["weight"]).values())
    float32 [2, 3]
    """
    names: dict[int, list[str]] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        names.setdefault(id(parameter), []).append(name)
    given = set(given)
    return {
        name: Shape(parameters[name].shape, parameters[name].dtype)
        for same in names.values()
        for name in ([name for name in same if name in given] or same[:1])
    }


def _makes(options: Mapping[str, Any], expected: Axes, found: Axes) -> str:
    """The option that probably causes the wrong size of a parameter."""
    pairs = itertools.zip_longest(expected, found)
    wrong = [size for size, other in pairs if size != other and size is not None]
    sizes = {
        name: size
        for name, size in options.items()
        if type(size) is int and size > 1 and any(axis % size == 0 for axis in wrong)
    }
    if not sizes:
        return "the model"
    name = max(sizes, key=lambda name: sizes[name])
    return f"model.{name} {sizes[name]}"
