"""Models that are saved as a directory, and made again from it."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from anaphora import nn, schema
from anaphora.artifact import ArtifactError, ModelDirectory, Shape, check_arrays
from anaphora.artifact.files import json_bytes
from anaphora.cells import Cell
from anaphora.data import Codec, Tokenizer
from anaphora.models.body import Body
from anaphora.nn.initialization import shapes_only
from anaphora.tensor import Array

Axes = tuple[int, ...]


class SavedModel(nn.Module, Body):
    """A module that is made from options, and so can be saved in a directory and made again.

    A subclass is a dataclass (with ``eq=False, repr=False``): its fields are the arguments of its
    constructor, those of its body among them. It names its `kind`, and makes its layers in
    ``__post_init__``, after that of its base.

    Attributes:
        kind: What ``config.json`` calls such models.
        loss_kind: What its loss is the mean of; see `training.loss_figures`.
        codec_type: The class of its codec.
        codec: What its numbers stand for; None if nothing says it.
        config: What ``config.json`` has besides the options, of a model that was loaded.

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
    """The classes of models by their kinds."""

    # A dataclass's own would compare and hash the options.
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
    def options(self) -> dict[str, Any]:
        """The arguments that make the same model, with other weights, as plain values."""
        return self.to_dict()

    def save(self, directory: str | os.PathLike[str] | ModelDirectory, **config: Any) -> None:
        """Save the model and its codec in a directory.

        Args:
            directory: Where to. A folder is made, or a model that it holds is replaced; in what
                `ModelDirectory.create` made, a model of the same options is.
            **config: More entries for ``config.json``, such as how it was trained.

        Raises:
            ValueError: the cell was not traced, so that it has no program to save.
            ArtifactError: as `ModelDirectory.create` and `ModelDirectory.save`.
        """
        # What may refuse comes first, so that a model that the directory holds is not lost.
        options = self.options
        codec = {} if self.codec is None else self.codec.to_dict()
        place = directory.path if isinstance(directory, ModelDirectory) else Path(directory)
        json_bytes(place / "config.json", {**config, "model": options})
        json_bytes(place / "tokenizer.json", codec)
        if not isinstance(directory, ModelDirectory):
            directory = ModelDirectory.create(directory, overwrite=True)
        weights = {name: parameter.data for name, parameter in self.named_parameters()}
        directory.save({**config, "task": self.kind, "model": options}, codec, weights)

    def extra_repr(self) -> str:
        """The options that have no default, or another value than that."""
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
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a model of this class and its codec; it is ready to evaluate.

        Raises:
            ArtifactError: the directory is missing, damaged, or holds something else.
        """
        directory = ModelDirectory.open(path)
        config, data, weights = directory.load()
        options = config.pop("model", None)
        if config.get("task") != cls.kind or options is None:
            found = (
                "it has no model" if options is None else f"its task is {config.get('task')!r:.80}"
            )
            raise ArtifactError(f"{directory.config}: {found}, not {cls.kind!r}")
        model = cls.made(directory, options, weights)
        model.config = config
        model.codec = cls.load_codec(directory, data, model.options)
        return model

    @classmethod
    def load_codec(
        cls, directory: ModelDirectory, data: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Any:
        """Make the codec of what ``tokenizer.json`` holds; None if it holds nothing.

        Args:
            directory: Where the data comes from, for messages.
            data: The data.
            options: Those of the model, whose sizes must be the codec's.

        Raises:
            ArtifactError: the data is damaged, or of another model.
        """
        if not data:
            return None
        try:
            codec = cls.codec_type.from_dict(data)
        except ValueError as error:  # DataError is one
            raise ArtifactError(
                f"{directory.tokenizer}: {error}; put back the one that the model was trained with"
            ) from error
        for name, size in codec.sizes().items():
            if options[name] != size:
                raise ArtifactError(
                    f"{directory.config}: model.{name} is {options[name]}, but "
                    f"{directory.tokenizer.name} makes it {size}; put back the two files that "
                    "were saved together"
                )
        return codec

    @classmethod
    def made(
        cls, directory: ModelDirectory, options: Mapping[str, Any], weights: Mapping[str, Array]
    ) -> Self:
        """The model that a directory describes, ready to evaluate.

        The options are compared with the weights before any memory is taken by what they say.

        Args:
            directory: Where the options and the weights come from, for the message.
            options: The arguments of the class, as plain values.
            weights: All of its parameters.

        Raises:
            ArtifactError: the options are not those of the class, or the weights do not fit them.
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
                f"{directory.config}: the options do not make a {cls.__name__}: {error}; "
                "correct them there, or restore the file"
            ) from error
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, parameter in parameters.items():
            if name in weights and parameter.shape != (found := weights[name].shape):
                raise ArtifactError(
                    f"{directory.config}: {_makes(options, parameter.shape, found)} makes {name} "
                    f"{list(parameter.shape)}, but in {directory.weights.name} it is "
                    f"{list(found)}; put back the two files that were saved together"
                )
        check_arrays(directory.weights, weights, parameter_shapes(model, weights))
        for name, array in weights.items():
            parameters[name].assign(array)
        return model.eval()


def load(path: str | os.PathLike[str]) -> Any:
    """Load the model of a directory, of whatever class it is, with its codec as ``model.codec``.

    Raises:
        ArtifactError: the directory is missing, damaged, or holds no model of a class in
            `SavedModel.kinds`.

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
    return SavedModel.kinds[kind].load(path)


def parameter_shapes(model: Any, given: Iterable[str]) -> dict[str, Shape]:
    """The shapes of a model's parameters; of several names of one, those that are given.

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
    """The option that gives a parameter its wrong size, as far as the numbers show."""
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
