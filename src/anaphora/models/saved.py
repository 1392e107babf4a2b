"""Models that are saved as a directory, and made again of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from anaphora import nn
from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.cells import CELLS, Cell
from anaphora.tensor import Array

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
        directory = ModelDirectory.open(path)
        config, vocabulary, weights = directory.load()
        options = config.get("model")
        if config.get("task") != cls.task or not isinstance(options, dict):
            raise ArtifactError(
                f"{directory.path}: its task is {config.get('task')!r}, but {cls.__name__} is for "
                f"{cls.task!r}"
            )
        return make_model(cls, directory, options, weights), vocabulary


def make_model(
    model_type: type[_Model],
    directory: ModelDirectory,
    options: Mapping[str, Any],
    weights: Mapping[str, Array],
) -> _Model:
    """The model that a directory describes, ready to evaluate.

    Args:
        model_type: Its class.
        directory: Where the options and the weights come from, for the message.
        options: The arguments of the class.
        weights: All of its parameters.

    Raises:
        ArtifactError: the options are not those of the class, or the weights do not fit them.
    """
    try:
        model = model_type(**options)
        model.load_state_dict(weights)
    except (TypeError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{directory.path}: the config and the weights do not make a {model_type.__name__}: "
            f"{error}"
        ) from error
    return model.eval()
