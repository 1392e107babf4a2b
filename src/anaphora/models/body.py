"""The options of models and of the recurrent body that all of them share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from anaphora.cells import CELLS, Cell
from anaphora.data import SCALINGS
from anaphora.models.distributions import COUNTS, DISTRIBUTIONS
from anaphora.nn import KINDS
from anaphora.options import FACTOR, SHARE, SIZE, Options, option

POOLINGS = ("last", "mean", "max")
ATTENTIONS = ("multiplicative", "additive", "none")
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)

model_option = functools.partial(option, section="model")

_NAMES = (*CELLS, *KINDS)
_CELL_HELP = f"Cell: {', '.join(_NAMES)}, or FILE.py:NAME."

_MAXIMUM_UNITS = 10**8  # its square is still a valid array size


@dataclass(kw_only=True)
class Body(Options):
    """The options of a recurrent body, which all models and tasks have.

    Dropout is applied as in Zaremba et al. 2014: to the embeddings, between the layers, and before
    the output, never to the recurrent connection. Masks are sampled in each call; there is no
    dropout in evaluation.

    Attributes:
        cell: The name of a cell in `anaphora.cells.CELLS` or of a kind in `anaphora.nn.KINDS`, or a
            `Cell`.
        hidden_size: H of every layer.
        embedding_size: E of ids; None for H.
        num_layers: L.
        dropout: The probability of dropping a unit.
        locked_dropout: Drop the same units at all steps of a window (Gal & Ghahramani 2016).
        embedding_dropout: The fraction of the vocabulary whose embeddings are 0 in a window (Gal &
            Ghahramani 2016).
        weight_dropout: The fraction of the recurrent weights that are dropped in a window (Merity
            et al. 2018).
        zoneout: The fraction of the units that keep their states in a step; see `nn.Recurrent`.
        layer_norm: Normalize the outputs of each layer; see `nn.Recurrent`.
        trainable_state: Train the initial states, which start at 0; see `nn.Recurrent`. Of a model
            with an encoder those of the encoder, whose last states are the decoder's first.
        initialization: The initialization of all layers; see `nn.Recurrent`.
        forget_bias: The initial bias of forget gates; None for that of the initialization.
        dtype: "float32" or "float64".

    Raises:
        ValueError: an option is out of range.

    >>> body = Body(hidden_size=200, initialization="0.1")  # as on the command line
    >>> body.cell, body.initialization
    ('lstm', 0.1)
    """

    cell: str | Cell = model_option("lstm", _CELL_HELP, common=True)  # noqa: RUF009
    hidden_size: int = model_option(256, "Units of each recurrent layer.", SIZE, common=True)
    embedding_size: int | None = model_option(
        None, "Size of the embeddings; by default hidden_size.", SIZE
    )
    num_layers: int = model_option(1, "Recurrent layers.", SIZE, common=True)
    dropout: float = model_option(
        0.0,
        "Dropout probability, on the embeddings, between layers and before the output.",
        SHARE,
        common=True,
    )
    locked_dropout: bool = model_option(False, "Drop the same units at all steps of a window.")
    embedding_dropout: float = model_option(
        0.0, "Fraction of the vocabulary whose embeddings are dropped in a window.", SHARE
    )
    weight_dropout: float = model_option(
        0.0, "Fraction of the recurrent weights that are dropped in a window.", SHARE
    )
    zoneout: float = model_option(
        0.0, "Fraction of the units that keep their states in a step.", SHARE
    )
    layer_norm: bool = model_option(False, "Normalize the outputs of each recurrent layer.")
    trainable_state: bool = model_option(
        False, "Train the initial states of the recurrent layers, which start at 0."
    )
    initialization: str | float = model_option(
        "pytorch", "pytorch, xavier, orthogonal, or a number a for uniform(-a, a)."
    )
    forget_bias: float | None = model_option(None, "Initial bias of forget gates.")
    dtype: str = model_option("float32", "Precision.", ("float32", "float64"))

    plain_types: ClassVar[Mapping[Any, Any]] = {str | Cell: str | dict[str, Any]}

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.cell, str) and self.cell not in _NAMES:
            raise ValueError(
                f"cell {self.cell!r:.80} is not one of {', '.join(_NAMES)}, nor a Cell (see "
                "anaphora.cells.cell)"
            )
        with contextlib.suppress(ValueError, TypeError):  # a name stays a name
            self.initialization = float(self.initialization)
        for name in ("hidden_size", "embedding_size"):
            if (getattr(self, name) or 0) > _MAXIMUM_UNITS:
                raise ValueError(
                    f"{name} must be at most {_MAXIMUM_UNITS:,}, not {getattr(self, name):,}"
                )
        if self.locked_dropout and not self.dropout:
            raise ValueError("locked_dropout needs dropout, which is 0: give dropout too")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], place: str = "", **objects: Any) -> Self:
        """Make options from a dictionary of plain values; a cell may be given by its program."""
        cell = values.get("cell")
        if isinstance(cell, Mapping):
            try:
                cell = Cell.from_dict(cell)
            except ValueError as error:
                raise ValueError(f"{place}.{error}" if place else str(error)) from error
        if isinstance(cell, Cell):
            values = {name: value for name, value in values.items() if name != "cell"}
            objects["cell"] = cell
        return super().from_dict(values, place, **objects)

    def to_dict(self, section: str | None = None) -> dict[str, Any]:
        """The options of a section, or all, as plain values; a custom cell as its program."""
        values = super().to_dict(section)
        if isinstance(cell := values.get("cell"), Cell):
            values["cell"] = cell.name if CELLS.get(cell.name) is cell else cell.to_dict()
        return values


@dataclass(kw_only=True)
class LabelSmoothing(Body):
    """The option of models that predict classes, tags or tokens.

    Attributes:
        label_smoothing: The fraction of each target that is spread over all classes in training
            (Szegedy et al. 2016); see `ops.cross_entropy`.

    >>> LabelSmoothing(label_smoothing=0.1).label_smoothing
    0.1
    """

    label_smoothing: float = model_option(
        0.0, "Fraction of each target that is spread over all classes in training.", SHARE
    )


@dataclass(kw_only=True)
class LanguageModelBody(LabelSmoothing):
    """The options of a language model.

    Attributes:
        tied: Use the embeddings as the weights of the output as well (Press & Wolf 2017).
        activation_penalty: The weight of the mean square of the output layer's inputs, added to the
            loss in training (AR of Merity et al. 2017).
        temporal_penalty: The weight of the mean squared change of the last layer's output, before
            dropout, from step to step, added to the loss in training (TAR).

    >>> LanguageModelBody(tied=True).tied
    True
    """

    tied: bool = model_option(False, "Use the embeddings as output weights too.")
    activation_penalty: float = model_option(
        0.0,
        "Weight of the mean square of the last layer's output, added to the training loss.",
        FACTOR,
    )
    temporal_penalty: float = model_option(
        0.0,
        "Weight of the mean squared change of that output between steps, added to the training "
        "loss.",
        FACTOR,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tied(self)


@dataclass(kw_only=True)
class SequenceBody(Body):
    """The options of a model that reads complete sequences, possibly in both directions.

    Attributes:
        bidirectional: Read in both directions, D = 2.

    >>> SequenceBody().bidirectional
    False
    """

    bidirectional: bool = model_option(False, "Read sequences in both directions.", common=True)


@dataclass(kw_only=True)
class PooledBody(SequenceBody):
    """The options of a model with one prediction per sequence.

    Attributes:
        pooling: How the outputs of the last layer are pooled over time: "last" takes the last step
            of each sequence (the first in the reverse direction); "mean" and "max" are over all its
            steps. An empty sequence has zeros.

    >>> PooledBody(pooling="mean").pooling
    'mean'
    """

    pooling: str = model_option("last", "How outputs are pooled over time.", POOLINGS)


@dataclass(kw_only=True)
class ClassifierBody(PooledBody, LabelSmoothing):
    """The options of a classifier.

    >>> ClassifierBody(label_smoothing=0.1).pooling
    'last'
    """


@dataclass(kw_only=True)
class TaggerBody(SequenceBody, LabelSmoothing):
    """The options of a tagger.

    Attributes:
        character_embedding_size: The size of a character's embedding.
        character_hidden_size: The units of each direction of the layer that reads characters.
        crf: Predict the tags of a sentence jointly, with an `nn.CRF` after the output layer
            (Lample et al. 2016); else each tag independently.

    >>> TaggerBody().character_hidden_size
    32
    """

    character_embedding_size: int = model_option(16, "Size of the embeddings of characters.", SIZE)
    character_hidden_size: int = model_option(
        32, "Units of each direction of the layer that reads characters.", SIZE
    )
    crf: bool = model_option(
        False,
        "Predict the tags of a sentence jointly, with a conditional random field.",
        common=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crf and self.label_smoothing:
            raise ValueError(
                "label_smoothing is for tags that are predicted independently, not for a crf: omit "
                "one of the two"
            )


@dataclass(kw_only=True)
class DecoderBody(LabelSmoothing):
    """The options of a model that generates a sequence.

    Attributes:
        tied: Use the embeddings as the weights of the output as well (Press & Wolf 2017).

    >>> DecoderBody(tied=True).tied
    True
    """

    tied: bool = model_option(False, "Use the embeddings as output weights too.")


@dataclass(kw_only=True)
class EncoderDecoderBody(DecoderBody, SequenceBody):
    """The options of an encoder and a decoder.

    Attributes:
        attention: "additive" (Bahdanau et al. 2015), "multiplicative" (Luong et al. 2015) or
            "none".

    >>> EncoderDecoderBody(attention="additive").attention
    'additive'
    """

    attention: str | None = model_option(
        "multiplicative", "How the decoder attends to the source.", ATTENTIONS
    )

    def __post_init__(self) -> None:
        if self.attention is None:
            self.attention = "none"
        super().__post_init__()
        if self.attention == "none":
            check_tied(self)


@dataclass(kw_only=True)
class ForecasterBody(Body):
    """The options of a forecaster.

    Attributes:
        distribution: "student_t", "gaussian", "negative_binomial" (of counts), or "quantiles".
        quantiles: The levels of the distribution "quantiles", in increasing order.
        scaling: "standard" (subtract the mean of the window's past, divide by its standard
            deviation), "mean_absolute" (divide by 1 plus the mean absolute value), or "none"; None
            is "mean_absolute" for counts and "standard" otherwise.
        autoregressive: Add a weighted sum of the lags and of the columns known in advance.

    >>> ForecasterBody().scaling, ForecasterBody(distribution="negative_binomial").scaling
    ('standard', 'mean_absolute')
    """

    distribution: str = model_option("student_t", "Distribution of the next value.", DISTRIBUTIONS)
    quantiles: tuple[float, ...] = model_option(QUANTILES, "Levels of the distribution quantiles.")
    scaling: str | None = model_option(
        None,
        "How windows are scaled; by default mean_absolute for counts, else standard.",
        SCALINGS,
    )
    autoregressive: bool = model_option(
        True, "Add a weighted sum of the lags, and of the columns known in advance."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.quantiles = tuple(float(level) for level in self.quantiles)
        counts = self.distribution in COUNTS
        if self.scaling is None:
            self.scaling = "mean_absolute" if counts else "standard"
        if counts and self.scaling == "standard":
            raise ValueError(
                f"scaling 'standard' subtracts the mean, but the distribution "
                f"{self.distribution!r} is for counts: give the scaling 'mean_absolute' or 'none'"
            )


def check_tied(body: Any) -> None:
    """Check that tied weights have the same size.

    Raises:
        ValueError: the body is tied, but embedding_size is not hidden_size.
    """
    if body.tied and body.embedding_size not in (None, body.hidden_size):
        raise ValueError(
            f"tied needs equal embedding_size ({body.embedding_size}) and hidden_size "
            f"({body.hidden_size}), as the embeddings are the output weights"
        )
