"""Sequence models as scikit-learn estimators (extra ``sklearn``)."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        check_consistent_length,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError as error:
    raise ImportError('estimators need an extra: pip install "anaphora[sklearn]"') from error

from anaphora import no_grad, random
from anaphora.data import (
    Batch,
    Batches,
    Frames,
    SequenceBatches,
    label_strata,
    moments,
    side_by_side,
    stratified_split,
)
from anaphora.models import SequenceClassifier, SequenceRegressor
from anaphora.models.sequences import SequenceToVector
from anaphora.optim import AdamW, Cosine
from anaphora.options import check_sizes
from anaphora.training import Callback, Trainer, TrainingOptions, evaluate
from anaphora.training.measures import LabelMeasure

_PREDICTION_BATCH = 256
_LAYOUTS = (None, "channels_last", "channels_first")
_MINIMUM_HELD_OUT = 20
"""Minimum number of held-out examples for early stopping."""
_FOLDS = 5
_MINIMUM_UPDATES = 20
"""Minimum number of updates between evaluations."""


class _RecurrentEstimator(BaseEstimator):
    """The base of both estimators: reads sequences, fits and runs models."""

    fitted_on_sequences_: bool

    def __init__(
        self,
        cell: str = "gru",
        hidden_size: int = 64,
        num_layers: int = 1,
        *,
        bidirectional: bool = True,
        pooling: str = "max",
        dropout: float = 0.2,
        max_frames: int | None = 32,
        noise: float = 0.1,
        n_models: int = 3,
        epochs: int = 30,
        min_updates: int = 600,
        batch_size: int = 16,
        learning_rate: float = 0.01,
        weight_decay: float = 0.1,
        clip_norm: float = 1.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.2,
        patience: int = 10,
        layout: str | None = None,
        matmul_precision: str | None = None,
        random_state: Any = None,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.dropout = dropout
        self.max_frames = max_frames
        self.noise = noise
        self.n_models = n_models
        self.epochs = epochs
        self.min_updates = min_updates
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.layout = layout
        self.matmul_precision = matmul_precision
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _read(self, X: Any, y: Any = None, *, fitting: bool, **options: Any) -> tuple[Any, Any]:
        """The sequences as arrays [T, I], and the checked y."""
        name = type(self).__name__
        X = self._with_channels_last(X, fitting)
        if _is_table(X) if fitting else _is_array(X) and not self.fitted_on_sequences_:
            if fitting:
                # Values are checked below, where the message can name the sequence.
                y = None if y is None else _checked_targets(name, y, **options)
                X, y = validate_data(
                    self, X, y, dtype=np.float64, ensure_all_finite=False, **options
                )
                self.fitted_on_sequences_ = False
            else:
                X = validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite=False)
            return _checked_sequences(name, X), y
        sequences = _checked_sequences(name, X)
        features = sequences[0].shape[1]
        if fitting:
            if y is None:
                raise ValueError(f"{name}: requires y to be passed, but the target y is None")
            check_consistent_length(sequences, y)
            y = _checked_targets(name, y, **options)
            self.n_features_in_ = features
            self.fitted_on_sequences_ = True
        elif features != (expected := len(self.frames_.mean)):
            hint = ""
            if np.ndim(X) == 2 and np.shape(X)[1] == expected:
                hint = "; for one sequence [T, I] write [X]"
            elif all(len(x) == expected for x in sequences):
                hint = f"; {_CHANNELS_FIRST}"
            raise ValueError(
                f"{name}: X has {features} features per step, but {name} was fitted with "
                f"{expected}{hint}"
            )
        return sequences, y

    def _with_channels_last(self, X: Any, fitting: bool) -> Any:
        """X with sequences [T, I], by `layout`; warns if the other layout is more likely."""
        if self.layout not in _LAYOUTS:
            raise ValueError(
                f"{type(self).__name__}: layout {self.layout!r} is not one of "
                f"{', '.join(map(repr, _LAYOUTS))}"
            )
        shape: tuple[int, ...] = np.asarray(X).shape if hasattr(X, "__array__") else ()
        if self.layout == "channels_first":
            if len(shape) == 3:
                return np.swapaxes(np.asarray(X), 1, 2)
            if not _is_array(X):
                return [np.asarray(x).T if np.ndim(x) == 2 else x for x in X]
        elif fitting and self.layout is None and len(shape) == 3 and shape[1] < shape[2]:
            warnings.warn(
                f"{type(self).__name__}: X has the shape {shape}, which is read as [n, T, I]: "
                f"{shape[1]} steps of {shape[2]} features. {_CHANNELS_FIRST}; otherwise "
                "layout='channels_last', which avoids this warning",
                UserWarning,
                stacklevel=4,
            )
        return X

    def _framed(self, sequences: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        return [
            self.frames_(x, f"{type(self).__name__}: sequence {number}")
            for number, x in enumerate(sequences)
        ]

    def _check_options(self) -> None:
        """Check numbers that are not checked elsewhere."""
        check_sizes(self, n_models=self.n_models, epochs=self.epochs, patience=self.patience)
        check_sizes(self, 0, min_updates=self.min_updates)
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"{type(self).__name__}: validation_fraction must be > 0 and < 1, not "
                f"{self.validation_fraction!r}"
            )
        if not 0 <= self.noise < np.inf:
            raise ValueError(f"{type(self).__name__}: noise must be at least 0, not {self.noise!r}")

    def _fit(
        self,
        kind: Callable[..., SequenceToVector],
        outputs: int,
        sequences: list[NDArray[Any]],
        targets: NDArray[Any],
    ) -> list[NDArray[Any]]:
        """Fit models of a class; return for each the indices of its held-out examples."""
        self._check_options()
        self.frames_ = Frames.fit(sequences, self.max_frames)
        framed = self._framed(sequences)
        first_seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        generator = np.random.default_rng(first_seed)
        held_out = self._held_out(targets, np.random.default_rng((first_seed, 1)))
        self.models_: list[Any] = []
        for held in held_out:
            seed = int(generator.integers(np.iinfo(np.int32).max))
            trained = np.setdiff1d(np.arange(len(framed)), held)
            parts = [
                SequenceBatches([framed[k] for k in rows], targets[rows], size)
                for rows, size in ((trained, self.batch_size), (held, _PREDICTION_BATCH))
                if len(rows)
            ]
            with random.seeded(seed):  # initial weights and dropout
                model = kind(
                    outputs,
                    hidden_size=self.hidden_size,
                    input_size=self.frames_.features,
                    cell=self.cell,
                    num_layers=self.num_layers,
                    bidirectional=self.bidirectional,
                    pooling=self.pooling,
                    dropout=self.dropout,
                )
                self._train(model, seed, *parts)
            self.models_.append(model)
        return held_out

    def _train(
        self, model: Any, seed: int, batches: Batches, validation: Batches | None = None
    ) -> None:
        """Train one model, with early stopping if enabled."""
        epochs = max(self.epochs, -(-self.min_updates // len(batches)))
        options = TrainingOptions(
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            seed=seed,
            matmul_precision=self.matmul_precision,
        )
        optimizer = AdamW(model.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        schedule = Cosine(optimizer, total_steps=epochs * len(batches))
        if self.noise:
            batches = _NoisyBatches(batches, self.noise, np.random.default_rng((seed, 1)))
        callbacks: list[Callback] = []
        if self.early_stopping and validation is not None:
            callbacks.append(_EarlyStopping(validation, self.patience))
        trainer = Trainer(
            model, optimizer, batches, options, schedule=schedule, callbacks=callbacks
        )
        trainer.run(progress=False)
        for callback in callbacks:
            assert isinstance(callback, _EarlyStopping)
            callback.restore(model)
        model.eval()

    def _held_out(
        self, targets: NDArray[Any], generator: np.random.Generator
    ) -> list[NDArray[Any]]:
        """The indices of the examples held out for each model."""
        raise NotImplementedError

    def _too_few(self, count: int) -> bool:
        """Whether there are too few held-out examples for early stopping; warns if so."""
        if count < _MINIMUM_HELD_OUT:
            warnings.warn(
                f"{type(self).__name__}: {count} held-out examples are too few for early_stopping, "
                f"which needs {_MINIMUM_HELD_OUT}; the last weights are kept. A larger "
                "validation_fraction, or early_stopping=False, avoids this warning",
                UserWarning,
                stacklevel=4,
            )
        return count < _MINIMUM_HELD_OUT

    def _run(self, X: Any) -> NDArray[np.float64]:
        """The outputs of the models for X, [M, n, O]."""
        check_is_fitted(self, "models_")
        sequences, _ = self._read(X, fitting=False)
        return self._answers(self._framed(sequences))

    def _answers(self, framed: list[NDArray[np.float32]]) -> NDArray[np.float64]:
        """The outputs of the models for framed sequences, [M, n, O]."""
        answers = []
        for start in range(0, len(framed), _PREDICTION_BATCH):
            batch = side_by_side(framed[start : start + _PREDICTION_BATCH])
            with no_grad():
                answers.append([m(batch.inputs, batch.lengths).data for m in self.models_])
        return np.concatenate(answers, axis=1).astype(np.float64)


class RecurrentClassifier(ClassifierMixin, _RecurrentEstimator):
    """A recurrent classifier of sequences, with scikit-learn's interface.

    X is a list of sequences of any lengths, each an array (or lists) [T, I] of features or [T] of
    numbers; an array [n, T, I]; or an array [n, T], whose rows are sequences of single numbers.
    After fitting an array [n, T] (or lists of equal lengths), arrays with another T are refused, as
    everywhere in scikit-learn, but lists may have any lengths. Features are standardized by their
    mean and standard deviation over all steps of the training sequences; long sequences are cut
    into frames.

    The defaults are for dozens to thousands of sequences; several models are fitted, and their
    probabilities averaged.

    Targets are classes [n]; or, if sequences may have any number of labels, a multilabel indicator
    matrix [n, L] of 0 and 1, as from `sklearn.preprocessing.MultiLabelBinarizer`.

    Args:
        cell: The name of a cell.
        hidden_size: H of every layer.
        num_layers: L.
        bidirectional: Read in both directions.
        pooling: "last", "mean" or "max"; see `models.SequenceClassifier`.
        dropout: Dropout probability, between layers and before the output.
        max_frames: Approximate maximum number of steps that the layers read: longer sequences are
            cut into this many frames of several steps; see `data.Frames`. None for no frames.
        noise: The standard deviation of the noise added to the standardized inputs in training.
        n_models: The number of models with different seeds, whose predictions are averaged.
        epochs: Passes over the training sequences.
        min_updates: The minimum number of updates; with few sequences there are more passes.
        batch_size: Sequences per update.
        learning_rate: Initial learning rate of AdamW, with a cosine schedule to 0.
        weight_decay: Weight decay of AdamW.
        clip_norm: Clip gradients to this global norm; 0 for no clipping.
        early_stopping: Hold sequences out, keep the weights with the best accuracy on them (micro
            F1 with several labels; the loss breaks ties), and stop when they no longer improve.
        validation_fraction: The fraction held out for this, of each class or set of labels.
        patience: Evaluations without improvement before stopping; they are one epoch, and at least
            20 updates, apart.
        layout: "channels_first" if sequences are [I, T], and arrays [n, I, T], as in aeon;
            "channels_last" if not. None is "channels_last", with a warning if it seems wrong.
        matmul_precision: "float32" or "bfloat16": the precision of matrix products while fitting;
            None for the current one. See `matmul_precision`, which determines that of predictions.
        random_state: A seed, a `numpy.random.RandomState`, or None for NumPy's global one.

    Attributes:
        classes_: The classes, sorted; with several labels the columns, 0 to L - 1.
        models_: The ``n_models`` fitted `models.SequenceClassifier`.
        frames_: The fitted `data.Frames`.
        n_features_in_: I; for an array [n, T], T, as everywhere in scikit-learn.
        fitted_on_sequences_: Whether it was fitted on sequences, not on an array [n, T].

    >>> generator = np.random.default_rng(1)
    >>> rising = [np.cumsum(generator.random(n)) for n in generator.integers(3, 9, 20)]
    >>> X, y = rising + [-x for x in rising], ["up"] * 20 + ["down"] * 20
    >>> classifier = RecurrentClassifier(hidden_size=8, n_models=1, random_state=1).fit(X, y)
    >>> classifier.predict([[1.0, 2.0, 3.0, 4.0], [-1.0, -3.0]])
    array(['up', 'down'], dtype='<U4')
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> RecurrentClassifier:
        """Fit to sequences X with classes y [n], or labels y [n, L]; return the estimator.

        Raises:
            ValueError: X or y is invalid, or an option is out of range.
        """
        y = y.toarray() if hasattr(y, "toarray") else y
        several = _columns(y) > 1
        sequences, y = self._read(X, y, fitting=True, multi_output=several)
        if several:
            if not np.isin(y, (0, 1)).all():
                raise ValueError(
                    f"RecurrentClassifier: y has the shape {np.shape(y)}, but values other than "
                    "0 and 1; expected classes [n], or a multilabel indicator matrix"
                )
            self.classes_ = np.arange(y.shape[1])
            kind = functools.partial(SequenceClassifier, multi_label=True)
            self._fit(kind, y.shape[1], sequences, y.astype(bool))
            return self
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"RecurrentClassifier: y has only one class, {self.classes_[0]!r}; expected two or "
                "more"
            )
        self._fit(SequenceClassifier, len(self.classes_), sequences, targets)
        return self

    def _held_out(
        self, targets: NDArray[Any], generator: np.random.Generator
    ) -> list[NDArray[Any]]:
        nothing = [np.zeros(0, np.int64)] * self.n_models
        if not self.early_stopping:
            return nothing
        seeds = [int(seed) for seed in generator.integers(2**31, size=self.n_models)]
        share = self.validation_fraction
        classes = targets.tolist()
        if targets.ndim == 2:
            classes = label_strata([tuple(row) for row in classes], share)
        parts: list[NDArray[Any]] = [stratified_split(classes, share, seed)[1] for seed in seeds]
        return nothing if self._too_few(len(parts[0])) else parts

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class [n, C], in the order of `classes_`, or label [n, L]."""
        outputs = self._run(X)
        probabilities: NDArray[np.float64] = self.models_[0].answer(outputs).data.mean(axis=0)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """The most likely class of each sequence [n]; with several labels, [n, L] with 1 where the
        probability is above 0.5, else 0.
        """
        probabilities = self.predict_proba(X)
        if self.models_[0].multi_label:
            return (probabilities > 0.5).astype(np.int64)
        predicted: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return predicted


class RecurrentRegressor(RegressorMixin, _RecurrentEstimator):
    """A recurrent regressor of sequences, with scikit-learn's interface.

    X, its scaling and the arguments are those of `RecurrentClassifier`. Targets are numbers [n] or
    [n, O]; they are standardized for training, and predictions are in their own units.

    Each model is trained without a fifth of the sequences. Its predictions on these determine how
    far the predictions are shrunk towards the mean of the training targets; if nothing can be
    learned, the mean is predicted. R2 on the training sequences is never below 0. With fewer than
    10 sequences, all models are trained on all of them.

    Attributes:
        models_: The ``n_models`` fitted `models.SequenceRegressor`.
        frames_: The fitted `data.Frames`.
        trust_: [O] the shrinkage factors of the predictions, 0 to 1; 0 predicts the mean.
        target_mean_: The mean of the training targets.
        target_scale_: Their standard deviation.

    >>> generator = np.random.default_rng(1)
    >>> X = [generator.random(n) for n in generator.integers(2, 6, 200)]
    >>> y = [x.sum() for x in X]
    >>> regressor = RecurrentRegressor(hidden_size=8, n_models=1, random_state=1).fit(X, y)
    >>> bool(regressor.score(X, y) > 0.9)
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> RecurrentRegressor:
        """Fit to sequences X with numbers y [n] or [n, O]; return the estimator.

        Raises:
            ValueError: X or y is invalid, or an option is out of range.
        """
        sequences, y = self._read(X, y, fitting=True, y_numeric=True, multi_output=True)
        y = np.asarray(y, np.float64)
        self.target_mean_, self.target_scale_ = moments(y, "output")
        scaled = ((y - self.target_mean_) / self.target_scale_).astype(np.float32)
        targets = scaled.reshape(len(y), -1)
        held_out = self._fit(SequenceRegressor, targets.shape[1], sequences, targets)
        answers = self._answers(self._framed(sequences))
        self.trust_ = _trust(targets.astype(np.float64), answers, held_out)
        return self

    def _held_out(
        self, targets: NDArray[Any], generator: np.random.Generator
    ) -> list[NDArray[Any]]:
        count = len(targets)
        if count < 2 * _FOLDS:
            if self.early_stopping:
                self._too_few(0)
            return [np.zeros(0, np.int64)] * self.n_models
        fold = generator.permutation(count) % max(_FOLDS, min(self.n_models, count))
        if self.early_stopping:
            self._too_few(int(np.count_nonzero(fold == 0)))
        return [np.flatnonzero(fold == k % (fold.max() + 1)) for k in range(self.n_models)]

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The predicted numbers of each sequence, [n] or [n, O] as in `fit`."""
        answers = self._run(X).mean(axis=0) * self.trust_
        shaped = answers if np.ndim(self.target_mean_) else answers[:, 0]
        predicted: NDArray[np.float64] = shaped * self.target_scale_ + self.target_mean_
        return predicted


def _trust(
    targets: NDArray[np.float64], answers: NDArray[np.float64], held_out: list[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """The factors [O], 0 to 1, by which the mean of the models' predictions is multiplied.

        a = sum(f y) / sum(f f), f the predictions on held-out examples
        trust = a (1 - (2 s / a)**2), s the standard error of a

    which is 0 unless a is two standard errors above 0, and close to a if it is far above (the
    positive part of the estimator of James and Stein 1961). It is at most the factor that is
    optimal on the training sequences, so that R2 is not below 0 there.

    Args:
        targets: [n, O] standardized.
        answers: [M, n, O] the predictions.
        held_out: The indices of the held-out examples of each of M models.
    """
    ensemble = answers.mean(axis=0)
    square = np.square(ensemble).sum(axis=0)
    best: NDArray[np.float64] = np.clip(
        (ensemble * targets).sum(axis=0) / np.where(square > 0, square, 1), 0, 1
    )
    rows = np.concatenate(held_out)
    if len(rows) == 0:
        return best
    y = targets[rows]
    f = np.concatenate([answers[k, held] for k, held in enumerate(held_out)])
    square = np.square(f).sum(axis=0)
    square = np.where(square > 0, square, 1)
    a = (f * y).sum(axis=0) / square
    error = np.sqrt(np.square(f * (y - a * f)).sum(axis=0)) / square
    positive = np.where(a > 2 * error, a, 1)
    shrunk = np.where(a > 2 * error, a * (1 - np.square(2 * error / positive)), 0)
    trust: NDArray[np.float64] = np.minimum(shrunk, best)
    return trust


class _NoisyBatches(Batches):
    """Batches of features with normal noise, which is sampled anew for each batch."""

    carries_state = False

    def __init__(self, batches: Batches, deviation: float, generator: np.random.Generator) -> None:
        self._batches, self._deviation, self._generator = batches, deviation, generator
        self.tokens = batches.tokens

    def __len__(self) -> int:
        return len(self._batches)

    def _batch(self, index: int) -> Batch:
        batch = self._batches[index]
        noise = self._generator.standard_normal(batch.inputs.shape, np.float32)
        return Batch(batch.inputs + self._deviation * noise, batch.targets, batch.lengths)

    def shuffled(self, generator: np.random.Generator) -> _NoisyBatches:
        return _NoisyBatches(self._batches.shuffled(generator), self._deviation, self._generator)


class _EarlyStopping(Callback):
    """Keeps the weights of the best evaluation, and stops when evaluations no longer improve."""

    def __init__(self, validation: Batches, patience: int) -> None:
        self._validation, self._patience = validation, patience
        self._best: tuple[float, float] = (-np.inf, -np.inf)
        self._weights: dict[str, NDArray[Any]] = {}
        self._without = 0

    def on_step(self, trainer: Trainer, loss: float) -> None:
        if trainer.progress.step % max(len(trainer.batches), _MINIMUM_UPDATES):
            return
        model: Any = trainer.model
        several = getattr(model, "multi_label", False)
        more: dict[str, Any] = (
            {"measure": LabelMeasure([""] * model.num_classes)} if several else {}
        )
        result = evaluate(model, self._validation, **more)
        score = (result.more.get("micro_f1", result.accuracy or 0.0), -result.loss)
        if score > self._best:
            self._best, self._without = score, 0
            self._weights = {name: p.data.copy() for name, p in model.named_parameters()}
            return
        self._without += 1
        if self._without >= self._patience:
            trainer.request_stop(f"{self._patience} evaluations without improvement")

    def restore(self, model: Any) -> None:
        """Load the best weights into the model."""
        if self._weights:
            model.load_state_dict(self._weights)


_CHANNELS_FIRST = (
    "if these are sequences [I, T] (channels first, as in aeon), write layout='channels_first'"
)


def _columns(y: Any) -> int:
    """The number of columns of targets that are a matrix; else 0."""
    try:
        shape = np.asarray(y).shape
    except ValueError:  # lists of several lengths
        return 0
    return shape[1] if len(shape) == 2 else 0


def _is_array(X: Any) -> bool:
    """Whether X is an array [n, T], or at least not a list of sequences."""
    if not isinstance(X, (list, tuple)):
        if not hasattr(X, "__array__"):
            return True
        X = np.asarray(X)
        if X.ndim != 1:
            return bool(X.ndim != 3)
    return len(X) == 0 or not all(map(_is_sequence, X))


def _is_table(X: Any) -> bool:
    """Whether X is an array [n, T], or lists that scikit-learn accepts as one."""
    if _is_array(X):
        return True
    plain = isinstance(X, (list, tuple)) and all(isinstance(x, (list, tuple)) for x in X)
    return plain and len({len(x) for x in X}) == 1 and not any(np.ndim(v) for x in X for v in x[:1])


def _is_sequence(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or (hasattr(x, "__array__") and np.asarray(x).ndim > 0)


def _checked_sequences(name: str, X: Any) -> list[NDArray[np.float64]]:
    """The sequences of X as arrays [T, I] of finite numbers.

    Raises:
        ValueError: an item is not a sequence, differs in I, or contains NaN or infinity; the
            message says which and where.
    """
    if not isinstance(X, (list, tuple)) and np.ndim(X) == 0:
        raise ValueError(f"{name}: X is {type(X).__name__}; expected a list of sequences")
    sequences: list[NDArray[np.float64]] = []
    for number, sequence in enumerate(np.asarray(X) if hasattr(X, "__array__") else X):
        try:
            array = np.asarray(sequence)
            if array.dtype.kind not in "fiubO":
                raise TypeError(f"it holds {array.dtype}")
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name}: sequence {number} is not an array of numbers: {error}; expected [T, I], "
                "or [T] for I = 1"
            ) from error
        if array.ndim == 0:
            raise ValueError(
                f"{name}: X has the number {sequence} instead of a sequence; for one sequence of "
                "numbers write [X]"
            )
        sequences.append(array[:, np.newaxis] if array.ndim == 1 else array)
    if not sequences:
        raise ValueError(f"{name}: X has no sequences; expected at least one")
    sizes = [x.shape[1] for x in sequences if x.ndim == 2 and x.size]
    if not any(x.size for x in sequences):
        raise ValueError(f"{name}: all sequences of X are empty; expected at least one step")
    features = sizes[0] if sizes else sequences[0].shape[-1]
    for number, array in enumerate(sequences):
        if array.shape == (0, 1):  # the number of features of an empty sequence is unknown
            sequences[number] = array = np.zeros((0, features))
        if array.ndim != 2 or array.shape[1] != features:
            raise ValueError(
                f"{name}: sequence {number} has the shape {array.shape}; expected [T, {features}] "
                "(steps, features), or [T] for one feature, with the same features in all"
                + (f"; {_CHANNELS_FIRST}" if len({len(x) for x in sequences}) == 1 else "")
            )
        if not np.isfinite(array).all():
            step, feature = np.argwhere(~np.isfinite(array))[0]
            what = "NaN" if np.isnan(array[step, feature]) else "infinity"
            raise ValueError(
                f"{name}: Input X contains {what}: sequence {number}, step {step}, feature "
                f"{feature}. {name} does not accept missing values: fill them, or omit the sequence"
            )
    return sequences


def _checked_targets(
    name: str, y: Any, *, y_numeric: bool = False, multi_output: bool = False
) -> NDArray[Any]:
    """The targets y [n], or [n, O], without NaN and infinity.

    Raises:
        ValueError: they have another shape, or one is NaN or infinite; the message says which.
    """
    several = multi_output and np.asarray(y).ndim == 2
    targets: NDArray[Any] = np.asarray(y) if several else column_or_1d(y, warn=True)
    if y_numeric and targets.dtype.kind not in "fiub":
        try:
            if targets.dtype.kind != "O":
                raise TypeError(f"it holds {targets.dtype}")
            targets = targets.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name}: y must be numbers: {error}; for classes use RecurrentClassifier"
            ) from error
    if targets.dtype.kind in "fO":
        wrong = np.flatnonzero([_not_finite(value) for value in targets.ravel()])
        if len(wrong):
            index = np.unravel_index(wrong[0], targets.shape)
            missing = targets[index] is None or targets[index] != targets[index]
            raise ValueError(
                f"{name}: Input y contains {'NaN' if missing else 'infinity'} at index "
                f"{', '.join(map(str, index))}. {name} does not accept missing targets: omit such "
                "sequences"
            )
    return targets


def _not_finite(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value))
