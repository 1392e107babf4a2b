"""Models that are saved as a directory, and made again of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from anaphora import nn, schema
from anaphora.artifact import ArtifactError, ModelDirectory, Shape, check_arrays
from anaphora.cells import CELLS, Cell
from anaphora.nn.initialization import shapes_only
from anaphora.tensor import Array

Axes = tuple[int, ...]
_Model = TypeVar("_Model", bound=nn.Module)


class SavedModel(nn.Module):
    """A module that knows the options it was made with, and so can be made again from a directory.

    A subclass names its `task` and sets `options` to the arguments of its constructor.

    Attributes:
        task: What the model is for, as ``config.json`` names it.
        loss_kind: What its loss is the mean of; see `training.loss_figures`.
        options: The arguments that make the same model, with other weights.

    >>> import tempfile
    >>> from anaphora.models import SequenceClassifier
    >>> model = SequenceClassifier(num_classes=2, hidden_size=4, input_size=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(ModelDirectory.create(folder), {"classes": ["yes", "no"]})
    ...     model, vocabulary = SequenceClassifier.load(folder)
    >>> model.training, vocabulary["classes"]
    (False, ['yes', 'no'])
    """

    task: ClassVar[str]
    loss_kind: ClassVar[str | None] = None
    options: dict[str, Any]

    def save(
        self,
        directory: ModelDirectory,
        vocabulary: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> None:
        """Write the model to a directory that `ModelDirectory.create` made.

        Args:
            directory: Where to; a model of the same options there is replaced.
            vocabulary: What the numbers stand for (names of classes, tokens, scales of features):
                whatever JSON can say. It goes to ``tokenizer.json``.
            **config: More entries for ``config.json``, such as how it was trained.

        Raises:
            ValueError: the cell is none of `anaphora.cells.CELLS`, so that its name would not bring
                it back.
            ArtifactError: as `ModelDirectory.save`.
        """
        options = dict(self.options)
        cell = options.get("cell")
        if isinstance(cell, Cell):
            if CELLS.get(cell.name) is not cell:
                raise ValueError(
                    f"save: the cell {cell.name!r} is not one of {', '.join(CELLS)}, and a model "
                    "directory holds no equations; write state_dict() with artifact.write_weights"
                )
            options["cell"] = cell.name
        weights = {name: parameter.data for name, parameter in self.named_parameters()}
        directory.save({**config, "task": self.task, "model": options}, vocabulary or {}, weights)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[Self, dict[str, Any]]:
        """Load a model of this class, ready to evaluate, and its vocabulary.

        Raises:
            ArtifactError: the directory is missing, damaged, or holds something else.
        """
        return load_model(cls, cls.task, path)[:2]


def load_model(
    model_type: type[_Model], task: str, path: str | os.PathLike[str]
) -> tuple[_Model, dict[str, Any], ModelDirectory]:
    """Load a model, ready to evaluate, what is in ``tokenizer.json``, and the directory.

    Args:
        model_type: Its class.
        task: What ``config.json`` calls such models.
        path: The directory.

    Raises:
        ArtifactError: the directory is missing, damaged, or holds something else.
    """
    directory = ModelDirectory.open(path)
    config, data, weights = directory.load()
    options = config.get("model")
    if config.get("task") != task or options is None:
        found = "it has no model" if options is None else f"its task is {config.get('task')!r:.80}"
        raise ArtifactError(f"{directory.config}: {found}, not {task!r}")
    return make_model(model_type, directory, options, weights), data, directory


def make_model(
    model_type: type[_Model],
    directory: ModelDirectory,
    options: Mapping[str, Any],
    weights: Mapping[str, Array],
) -> _Model:
    """The model that a directory describes, ready to evaluate.

    The options are compared with the weights before any memory is taken by what they say.

    Args:
        model_type: Its class.
        directory: Where the options and the weights come from, for the message.
        options: The arguments of the class.
        weights: All of its parameters.

    Raises:
        ArtifactError: the options are not those of the class, or the weights do not fit them.
    """
    arguments = schema.arguments_type(model_type, {"cell": str})
    try:
        schema.convert(options, arguments, "model")
        if options.get("dtype", "float32") not in ("float32", "float64"):
            raise ValueError(f"model.dtype is {options['dtype']!r}; expected float32 or float64")
        if options.get("num_layers", 1) > len(weights):
            raise ValueError(
                f"model.num_layers is {options['num_layers']}, but {directory.weights.name} has "
                f"{len(weights)} arrays"
            )
        with shapes_only():
            model = model_type(**options)
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"{directory.config}: the options do not make a {model_type.__name__}: {error}; "
            "correct them there, or restore the file"
        ) from error
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        if name in weights and parameter.shape != (found := weights[name].shape):
            raise ArtifactError(
                f"{directory.config}: {_makes(options, parameter.shape, found)} makes {name} "
                f"{list(parameter.shape)}, but in {directory.weights.name} it is {list(found)}; "
                "put back the two files that were saved together"
            )
    check_arrays(directory.weights, weights, parameter_shapes(model, weights))
    for name, array in weights.items():
        parameters[name].assign(array)
    return model.eval()


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


def _makes(options: Mapping[str, Any], wanted: Axes, found: Axes) -> str:
    """The option that gives a parameter its wrong size, as far as the numbers tell."""
    pairs = itertools.zip_longest(wanted, found)
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
