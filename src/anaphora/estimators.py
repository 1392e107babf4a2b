"""Sequence models as scikit-learn estimators (extra ``sklearn``)."""

from __future__ import annotations

from collections.abc import Sequence
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

from anaphora import no_grad, ops, random
from anaphora.data import SequenceBatches, moments, side_by_side, standardized
from anaphora.models import SequenceClassifier, SequenceRegressor
from anaphora.models.sequences import SequenceToVector
from anaphora.optim import Adam
from anaphora.training import Trainer, TrainingOptions

_PREDICTION_BATCH = 256


class _RecurrentEstimator(BaseEstimator):
    """What both estimators share: reading sequences, fitting, and running the fitted model."""

    fitted_on_sequences_: bool

    def __init__(
        self,
        cell: str = "gru",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "last",
        dropout: float = 0.0,
        epochs: int = 50,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        clip_norm: float = 1.0,
        random_state: Any = None,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.clip_norm = clip_norm
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _read(self, X: Any, y: Any = None, *, fitting: bool, **options: Any) -> tuple[Any, Any]:
        """The sequences as arrays [T, I], and y as it is to be checked."""
        name = type(self).__name__
        if _is_table(X) if fitting else _is_array(X) and not self.fitted_on_sequences_:
            if fitting:
                # Values are checked below, where a message can say which sequence has them.
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
        elif features != len(self.feature_mean_):
            one = np.ndim(X) == 2 and np.shape(X)[1] == len(self.feature_mean_)
            raise ValueError(
                f"{name}: X has {features} features a step, but {name} was fitted with "
                f"{len(self.feature_mean_)}"
                + ("; for one sequence [T, I] write [X]" if one else "")
            )
        return sequences, y

    def _scaled(self, sequences: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        moments = self.feature_mean_, self.feature_scale_
        return [
            standardized(x, *moments, f"{type(self).__name__}: sequence {number}").astype(
                np.float32
            )
            for number, x in enumerate(sequences)
        ]

    def _fit(
        self,
        kind: type[SequenceToVector],
        outputs: int,
        sequences: list[NDArray[Any]],
        targets: NDArray[Any],
    ) -> None:
        self.feature_mean_, self.feature_scale_ = moments(np.concatenate(sequences))
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        options = TrainingOptions(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            clip_norm=self.clip_norm,
            seed=seed,
        )
        batches = SequenceBatches(self._scaled(sequences), targets, self.batch_size)
        before = random.get_state()
        random.seed(seed)  # initial weights and dropout
        try:
            make: Any = kind
            self.model_ = make(
                outputs,
                hidden_size=self.hidden_size,
                input_size=len(self.feature_mean_),
                cell=self.cell,
                num_layers=self.num_layers,
                bidirectional=self.bidirectional,
                pooling=self.pooling,
                dropout=self.dropout,
            )
            optimizer = Adam(self.model_.parameters(), self.learning_rate)
            trainer = Trainer(self.model_, optimizer, batches, options)
            trainer.run(progress=False)
        finally:
            random.set_state(before)
        self.model_.eval()

    def _run(self, X: Any) -> NDArray[np.float32]:
        """What the model answers, [n, O]."""
        check_is_fitted(self, "model_")
        sequences, _ = self._read(X, fitting=False)
        scaled, answers = self._scaled(sequences), []
        for start in range(0, len(scaled), _PREDICTION_BATCH):
            part = scaled[start : start + _PREDICTION_BATCH]
            batch = side_by_side(part)
            with no_grad():
                answers.append(self.model_(batch.inputs, batch.lengths).data)
        return np.concatenate(answers)


class RecurrentClassifier(ClassifierMixin, _RecurrentEstimator):
    """A recurrent classifier of sequences, with scikit-learn's methods.

    X is a list of sequences of any lengths, each an array (or lists) [T, I] of features or [T] of
    numbers; an array [n, T, I]; or an array [n, T], whose rows are sequences of single numbers.
    After an array [n, T] (or lists of one length) arrays of other T are refused, as everywhere in
    scikit-learn, but lists are sequences of any length. Features are standardised by their mean and
    deviation over all steps of the training sequences.

    Args:
        cell: The name of a cell.
        hidden_size: H of every layer.
        num_layers: L.
        bidirectional: Read in both directions.
        pooling: "last", "mean" or "max"; see `models.SequenceClassifier`.
        dropout: The share that is dropped between layers and before the output.
        epochs: Passes over the training sequences.
        batch_size: Sequences an update.
        learning_rate: Of Adam.
        clip_norm: Clip gradients to this global norm; 0 for no clipping.
        random_state: A seed, a `numpy.random.RandomState`, or None for NumPy's global one.

    Attributes:
        classes_: The classes, sorted.
        model_: The fitted `models.SequenceClassifier`.
        n_features_in_: I; for an array [n, T] its T, as everywhere in scikit-learn.
        fitted_on_sequences_: Whether it was fitted on sequences, and not on an array [n, T].

    >>> generator = np.random.default_rng(1)
    >>> rising = [np.cumsum(generator.random(n)) for n in generator.integers(3, 9, 20)]
    >>> X, y = rising + [-x for x in rising], ["up"] * 20 + ["down"] * 20
    >>> classifier = RecurrentClassifier(hidden_size=8, epochs=10, random_state=1).fit(X, y)
    >>> classifier.predict([[1.0, 2.0, 3.0, 4.0], [-1.0, -3.0]])
    array(['up', 'down'], dtype='<U4')
    """

    def fit(self, X: Any, y: Any) -> RecurrentClassifier:
        """Learn the classes y [n] of the sequences X; return the estimator.

        Raises:
            ValueError: X or y is not what is described above, or an option is out of range.
        """
        sequences, y = self._read(X, y, fitting=True)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"RecurrentClassifier: y has one class, {self.classes_[0]!r}, only; expected two "
                "or more"
            )
        self._fit(SequenceClassifier, len(self.classes_), sequences, targets)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each class, [n, C], in the order of `classes_`."""
        probabilities: NDArray[np.float64] = ops.softmax(self._run(X).astype(np.float64)).data
        return probabilities.copy()

    def predict(self, X: Any) -> NDArray[Any]:
        """The most likely class of each sequence, [n]."""
        best = self._run(X).argmax(axis=1)
        predicted: NDArray[Any] = self.classes_[best]
        return predicted


class RecurrentRegressor(RegressorMixin, _RecurrentEstimator):
    """A recurrent regressor of sequences, with scikit-learn's methods.

    X, its scaling and the arguments are those of `RecurrentClassifier`. Targets are numbers, [n] or
    several each, [n, O]; they are standardised for training and given back in their own units.

    >>> generator = np.random.default_rng(1)
    >>> X = [generator.random(n) for n in generator.integers(2, 6, 200)]
    >>> y = [x.sum() for x in X]
    >>> regressor = RecurrentRegressor(hidden_size=8, epochs=20, random_state=1).fit(X, y)
    >>> bool(regressor.score(X, y) > 0.9)
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> RecurrentRegressor:
        """Learn the numbers y [n] or [n, O] of the sequences X; return the estimator.

        Raises:
            ValueError: X or y is not what is described above, or an option is out of range.
        """
        sequences, y = self._read(X, y, fitting=True, y_numeric=True, multi_output=True)
        y = np.asarray(y, np.float64)
        self.target_mean_, self.target_scale_ = moments(y, "output")
        scaled = ((y - self.target_mean_) / self.target_scale_).astype(np.float32)
        targets = scaled.reshape(len(y), -1)
        self._fit(SequenceRegressor, targets.shape[1], sequences, targets)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The numbers of each sequence, [n] or [n, O] as in `fit`."""
        answers = self._run(X).astype(np.float64)
        shaped = answers if np.ndim(self.target_mean_) else answers[:, 0]
        predicted: NDArray[np.float64] = shaped * self.target_scale_ + self.target_mean_
        return predicted


def _is_array(X: Any) -> bool:
    """Whether X is an array [n, T], or what is no list of sequences."""
    if not isinstance(X, (list, tuple)):
        if not hasattr(X, "__array__"):
            return True
        X = np.asarray(X)
        if X.ndim != 1:
            return bool(X.ndim != 3)
    return len(X) == 0 or not all(map(_is_sequence, X))


def _is_table(X: Any) -> bool:
    """Whether X is an array [n, T], or lists that scikit-learn takes as one."""
    if _is_array(X):
        return True
    plain = isinstance(X, (list, tuple)) and all(isinstance(x, (list, tuple)) for x in X)
    return plain and len({len(x) for x in X}) == 1 and not any(np.ndim(v) for x in X for v in x[:1])


def _is_sequence(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or (hasattr(x, "__array__") and np.asarray(x).ndim > 0)


def _checked_sequences(name: str, X: Any) -> list[NDArray[np.float64]]:
    """The sequences of X as arrays [T, I] of finite numbers.

    Raises:
        ValueError: a sequence is none, differs in I, or has NaN or infinity; the message says which
            and where.
    """
    if not isinstance(X, (list, tuple)) and np.ndim(X) == 0:
        raise ValueError(f"{name}: X is no list of sequences, but {type(X).__name__}")
    sequences: list[NDArray[np.float64]] = []
    for number, sequence in enumerate(np.asarray(X) if hasattr(X, "__array__") else X):
        try:
            array = np.asarray(sequence)
            if array.dtype.kind not in "fiubO":
                raise TypeError(f"it holds {array.dtype}")
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name}: sequence {number} is no array of numbers: {error}; expected [T, I], or "
                "[T] for I = 1"
            ) from error
        if array.ndim == 0:
            raise ValueError(
                f"{name}: X has the number {sequence} in the place of a sequence; for one sequence "
                "of numbers write [X]"
            )
        sequences.append(array[:, np.newaxis] if array.ndim == 1 else array)
    if not sequences:
        raise ValueError(f"{name}: X has no sequence; at least one is needed")
    sizes = [x.shape[1] for x in sequences if x.ndim == 2 and x.size]
    if not any(x.size for x in sequences):
        raise ValueError(f"{name}: no sequence of X has a step; at least one is needed")
    features = sizes[0] if sizes else sequences[0].shape[-1]
    for number, array in enumerate(sequences):
        if array.shape == (0, 1):  # a sequence without steps does not show how many features it has
            sequences[number] = array = np.zeros((0, features))
        if array.ndim != 2 or array.shape[1] != features:
            raise ValueError(
                f"{name}: sequence {number} has the shape {array.shape}; expected [T, {features}] "
                "(steps, features), or [T] for one feature, with the same features in all"
            )
        if not np.isfinite(array).all():
            step, feature = np.argwhere(~np.isfinite(array))[0]
            what = "NaN" if np.isnan(array[step, feature]) else "infinity"
            raise ValueError(
                f"{name}: Input X contains {what}: sequence {number}, step {step}, feature "
                f"{feature}. {name} does not accept missing values: fill them in, or leave the "
                "sequence out"
            )
    return sequences


def _checked_targets(
    name: str, y: Any, *, y_numeric: bool = False, multi_output: bool = False
) -> NDArray[Any]:
    """The targets y [n], or [n, O], without NaN and infinity.

    Raises:
        ValueError: they are of another shape, or one of them is no finite number; the message says
            which.
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
                f"{name}: y is to be numbers: {error}; a RecurrentClassifier learns classes"
            ) from error
    if targets.dtype.kind in "fO":
        wrong = np.flatnonzero([_not_finite(value) for value in targets.ravel()])
        if len(wrong):
            index = np.unravel_index(wrong[0], targets.shape)
            missing = targets[index] is None or targets[index] != targets[index]
            raise ValueError(
                f"{name}: Input y contains {'NaN' if missing else 'infinity'} at index "
                f"{', '.join(map(str, index))}. {name} does not accept missing targets: leave such "
                "sequences out"
            )
    return targets


def _not_finite(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value))
