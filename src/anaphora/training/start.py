"""Fine-tuning: training that starts from the weights and the vocabulary of a trained model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from anaphora.artifact import ArtifactError, ModelDirectory
from anaphora.data import VOCABULARIES, DataError, Tokenizer
from anaphora.models import SavedModel
from anaphora.models.quantization import untrainable
from anaphora.nn.initialization import shapes_only
from anaphora.tensor import Array
from anaphora.training.options import TaskOptions
from anaphora.training.task import Notify, Task
from anaphora.training.tasks import task_of

_READER_OPTIONS = (
    "cell", "hidden_size", "embedding_size", "num_layers", "layer_norm", "trainable_state", "dtype",
)  # fmt: skip
"""The options of a reader (embeddings and recurrent layers) that a model of another task keeps."""

_READER_PARAMETERS = ("embedding.", "recurrent.")
"""Prefixes of the parameters of a reader."""

_ENTRIES = {
    "vocabulary_size": "tokens",
    "source_vocabulary_size": "source tokens",
    "num_characters": "characters",
    "num_classes": "classes",
    "num_tags": "tags",
}
"""The names of the entries of each size, for messages."""

_TOKENS = ("vocabulary_size", "source_vocabulary_size", "num_characters")
"""Sizes whose new entries are initialized to the mean of the old ones."""

Shapes = dict[str, tuple[tuple[int, ...], str]]


class Start:
    r"""A trained model that a training run starts from.

    From a model of the same task, all weights are copied. A classifier or a tagger can also start
    from a language model: its embeddings and its recurrent layers, which are unidirectional, are
    copied (Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification").

    Rows of tokens, classes and tags that both models have are copied, at whatever index. Rows of
    new tokens, in embeddings and outputs, are initialized to the mean of the old ones; rows of new
    classes and tags as the options say. Labels and tags are those of the model if they include all
    labels of the new files, else those of the new files.

    Args:
        path: The model directory.
        vocabulary: "keep" that of the model, "extend" it by the tokens (and the labels or tags) of
            the new files, or build a "new" one from the files.

    Raises:
        ArtifactError: the directory is missing, damaged, quantized, or of an unknown task.
        ValueError: the vocabulary is not one of the three.

    >>> import pathlib, tempfile
    >>> from anaphora.training import LANGUAGE_MODEL, prepare_training
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text, model, tuned = (pathlib.Path(folder, name) for name in ("text", "model", "tuned"))
    ...     _ = text.write_text("ab" * 200)
    ...     small = {"hidden_size": 4, "batch_size": 2, "window": 8, "minimum_count": 1}
    ...     options = LANGUAGE_MODEL.options.make(**small, max_steps=2)
    ...     _ = prepare_training(LANGUAGE_MODEL, options, model, [text]).run()
    ...     _ = text.write_text("cab" * 200)
    ...     start = Start(model, vocabulary="extend")
    ...     options = start.options(LANGUAGE_MODEL, max_steps=1, batch_size=2, minimum_count=1)
    ...     trainer = prepare_training(LANGUAGE_MODEL, options, tuned, [text], start=start)
    ...     options.hidden_size, trainer.model.codec.characters, trainer.run()
    (4, 'abc', '1 step done')
    """

    def __init__(self, path: str | os.PathLike[str], vocabulary: str = "keep") -> None:
        if vocabulary not in VOCABULARIES:
            raise ValueError(
                f"vocabulary {vocabulary!r:.80} is not one of {', '.join(VOCABULARIES)}"
            )
        self.path = os.fspath(path)
        self.vocabulary = vocabulary
        self.task = task_of(path)
        self.model = self.task.load(path)
        if self.model.weights == "int8":
            raise ArtifactError(untrainable(self.path))
        with ModelDirectory.open(path).weights.open("rb") as file:
            self._checksum = hashlib.file_digest(file, "sha256").hexdigest()

    def options(self, task: Task, preset: str | None = None, **changes: Any) -> TaskOptions:
        """The options of a run that starts here: those of the model, and the task's defaults.

        Args:
            task: The task to train.
            preset: Preset of the task; options of the model override it, as they do the defaults.
            **changes: Options by name.

        Raises:
            ArtifactError: this task cannot start from the model.
            ValueError: as for `TaskOptions.make`; or a change is incompatible with the shapes of
                the weights or with the model's vocabulary.
        """
        self._check_task(task)
        fields = task.options.fields()
        fixed = dict(self.model.codec.options())
        given: dict[str, Any] = {}
        if self.vocabulary == "new":  # only the level of the tokens stays
            given, fixed = fixed, {name: fixed[name] for name in fixed if name == "level"}
        else:
            limits = ("vocabulary_size", "minimum_count") if self.vocabulary == "keep" else ()
            if useless := [name for name in limits if name in changes]:
                raise ValueError(
                    f"{useless[0]}: the vocabulary of {self.path} is kept; extend it, or build a "
                    "new one"
                )
            if limits and fixed:  # it reads texts
                given |= {"vocabulary_size": None, "minimum_count": 1}
        if task is self.task:
            trained = task.load_options(self.path)
            given |= {name: getattr(trained, name) for name in fields if name == "batching"}
            given |= {name: getattr(trained, name) for name in task.options.fields("model")}
            fixed |= {name: given[name] for name in ("cell", "forget_bias")}
        else:
            fixed |= {name: getattr(self.model, name) for name in _READER_OPTIONS}
            fixed["bidirectional"] = False
        for name, value in fixed.items():
            if name in changes and changes[name] != value:
                raise ValueError(
                    f"{name} {changes[name]!r:.80}: {self.path}, which this training starts from, "
                    f"was trained with {_display(value)}; omit it"
                )
        known = {name: value for name, value in (given | fixed).items() if name in fields}
        self._check_shapes(task, known, changes)
        return task.options.make(preset, **{**known, **changes})

    def codec(self, task: Task, fit: Callable[[], Any]) -> Any:
        """The codec of the training, from that of the model and one fitted to the new files.

        Raises:
            DataError: the files hold another kind of inputs than the model reads.
        """
        own = self.model.codec
        if self.vocabulary == "keep" and task is self.task and isinstance(own, Tokenizer):
            return own  # whatever the files contain
        return fit().adapted(own, self.vocabulary)

    def copy_weights(
        self, task: Task, options: TaskOptions, model: SavedModel, notify: Notify
    ) -> None:
        """Copy the weights of this model to a new one, which has its codec.

        Raises:
            DataError: the vocabularies have no token in common.
            ValueError: the shapes of the weights do not match.
        """
        self._check_task(task)
        codec, old_codec = model.codec, self.model.codec
        entries, old_entries = codec.entries(), old_codec.entries()
        common = {
            name: _common_entries(entries[name], old_entries[name])
            for name in entries
            if name in old_entries
        }
        for name, (new, _) in common.items():
            if name in _TOKENS and not len(new):
                raise DataError(
                    f"{self.path} and the new files have no {_ENTRIES[name]} in common; train a "
                    "new model instead"
                )
        axes = _axes(task, options, codec)
        old = {name: parameter.data for name, parameter in self.model.named_parameters()}
        for name, parameter in model.named_parameters():
            other_task = task is not self.task
            if name not in old or (other_task and not name.startswith(_READER_PARAMETERS)):
                continue
            its_axes = axes.get(name, {})
            if not all(size in common for size in its_axes.values()):
                continue
            array = _transferred(parameter.data, old[name], its_axes, common, other_task)
            if array is None:
                raise ValueError(
                    f"{name} has shape {list(old[name].shape)} in {self.path}, but "
                    f"{list(parameter.shape)} with these options; make them with Start.options"
                )
            parameter.assign(array)
        known = (
            f"{len(new):,} of {len(entries[name]):,} {_ENTRIES.get(name, name)}"
            for name, (new, _) in common.items()
        )
        notify(f"starting from {self.path}, which knows {', '.join(known) or 'the series'}")

    def record(self) -> dict[str, str]:
        """The entry in ``config.json``: path, task, checksum of the weights, and vocabulary."""
        return {
            "path": self.path,
            "task": self.task.name,
            "weights": f"sha256:{self._checksum}",
            "vocabulary": self.vocabulary,
        }

    def _check_task(self, task: Task) -> None:
        if task is not self.task and type(self.model) not in task.starts:
            names = [task.name, *(one.kind.replace("_", " ") for one in task.starts)]
            raise ArtifactError(
                f"{self.path}: is a model of the task {self.task.name}, from which a training of "
                f"the task {task.name} cannot start; give one of {', '.join(names)}"
            )

    def _check_shapes(
        self, task: Task, known: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> None:
        """Refuse changes of options that would change the shapes of the weights."""
        names = [name for name in changes if name in task.options.fields("model")]
        if task is not self.task or not names:
            return

        def shapes(changed: Sequence[str]) -> Shapes:
            options = {**self.model.options, **{name: changes[name] for name in changed}}
            return _shapes(lambda: type(self.model).from_dict(options))

        before = shapes([])
        for name in names:
            try:
                same = shapes([name]) == before
            except ValueError:  # an option that needs another, which does not change the shapes
                same = shapes(names) == before
            if not same:
                raise ValueError(
                    f"{name} {changes[name]!r:.80} would change the shape of the weights, which "
                    f"come from {self.path}, where it is {_display(known[name])}; omit it"
                )


def _display(value: Any) -> str:
    return getattr(value, "name", None) or repr(value)


def _shapes(make: Callable[[], SavedModel]) -> Shapes:
    """The shapes of the parameters of a model, without allocating them."""
    with shapes_only():
        model = make()
    return {name: (p.shape, str(p.dtype)) for name, p in model.named_parameters()}


def _axes(task: Task, options: TaskOptions, codec: Any) -> dict[str, dict[int, str]]:
    """For each parameter, the axes indexed by the entries of a size.

    They are found by making a model with one more entry.
    """
    sizes, entries = codec.sizes(), codec.entries()

    def shapes(**changed: int) -> Shapes:
        return _shapes(lambda: task.make_model(options, {**sizes, **changed}))

    found: dict[str, dict[int, str]] = {}
    before = shapes()
    for size in entries:
        for name, (shape, _) in shapes(**{size: sizes[size] + 1}).items():
            for axis, (larger, length) in enumerate(zip(shape, before[name][0], strict=True)):
                if larger != length == len(entries[size]):
                    found.setdefault(name, {})[axis] = size
    return found


def _common_entries(entries: Sequence[Any], old_entries: Sequence[Any]) -> tuple[Array, Array]:
    """The indices of the entries that both have: in the new ones, and in the old ones."""
    numbers = {entry: number for number, entry in enumerate(old_entries)}
    pairs = [(n, numbers[entry]) for n, entry in enumerate(entries) if entry in numbers]
    new, old = np.array(pairs, np.int64).reshape(-1, 2).T
    return new, old


def _transferred(
    initial: Array,
    old: Array,
    axes: Mapping[int, str],
    common: Mapping[str, tuple[Array, Array]],
    more_inputs: bool,
) -> Array | None:
    """A parameter with the common entries of the old one; None if the shapes do not match.

    Args:
        initial: Its initial values.
        old: The old parameter.
        axes: The axes that are indexed by the entries of a size.
        common: By size, the indices of the common entries, new and old.
        more_inputs: Whether it may have more inputs than the old one; their weights are then 0, so
            that its outputs are the same at first.
    """
    if initial.ndim != old.ndim:
        return None
    indices: list[tuple[Array, Array]] = []
    array = initial.copy()
    for axis, (length, old_length) in enumerate(zip(initial.shape, old.shape, strict=True)):
        if axis in axes:
            indices.append(common[axes[axis]])
            continue
        if length != old_length and not (more_inputs and axis == 1 and length > old_length):
            return None
        if length != old_length:
            array[...] = 0
        indices.append((np.arange(old_length), np.arange(old_length)))
    if len(axes) == 1 and set(axes.values()) <= set(_TOKENS):
        (axis,) = axes
        array[...] = old.mean(axis=axis, keepdims=True)
    array[np.ix_(*(new for new, _ in indices))] = old[np.ix_(*(index for _, index in indices))]
    return array
