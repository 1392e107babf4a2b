"""A conditional random field for taggers, and which tags may follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from anaphora import ops
from anaphora.nn import initialization as initialize
from anaphora.nn.initialization import Initialization
from anaphora.nn.module import Module
from anaphora.options import check_sizes
from anaphora.tensor import Array, Operand, Tensor

SCHEMES = ("BIO", "IOB1", "BIOES")


class TagConstraints(NamedTuple):
    """Which paths of tags are possible; `tag_constraints` makes them for tags that mark spans.

    Attributes:
        transitions: [C, C] booleans: whether a tag (column) may follow another (row).
        start: [C] whether a tag may be first.
        end: [C] whether a tag may be last.

    >>> TagConstraints(np.array([[True, False], [True, True]]), np.ones(2, bool), np.ones(2, bool))
    TagConstraints(transitions=array([[ True, False],
           [ True,  True]]), start=array([ True,  True]), end=array([ True,  True]))
    """

    transitions: NDArray[np.bool_]
    start: NDArray[np.bool_]
    end: NDArray[np.bool_]


def tag_constraints(names: Sequence[str], scheme: str = "BIO") -> TagConstraints:
    """The constraints under which tags mark spans correctly, by their scheme.

    A tag is ``O``, or a letter and the type of its span: ``B-PER``. Types may be omitted.

        BIO      a span begins with B; I follows B or I of its type (also called IOB2)
        IOB1     I in a span; B only where a span directly follows another of its type
        BIOES    B I I E, or S for a span of one step

    Args:
        names: The tags in the order of their numbers.
        scheme: "BIO", "IOB1" or "BIOES".

    Raises:
        ValueError: a tag is not of the scheme, or the scheme is unknown.

    >>> allowed = tag_constraints(["O", "B-PER", "I-PER", "B-LOC"])
    >>> allowed.transitions[:, 2], allowed.start  # what I-PER may follow, what may be first
    (array([False,  True,  True, False]), array([ True,  True, False,  True]))
    """
    if scheme not in SCHEMES:
        raise ValueError(f"tag_constraints: scheme {scheme!r} is not one of {', '.join(SCHEMES)}")
    letters = set(scheme.removesuffix("1"))
    tags = [(name[:1], name[2:]) for name in names]
    for name, (letter, _) in zip(names, tags, strict=True):
        if letter not in letters or name[1:2] not in ("", "-") or (letter == "O" and name != "O"):
            expected = ", ".join(f"{one}-type" for one in sorted(letters - {"O"}))
            raise ValueError(f"tag_constraints: {name!r} is not a tag of {scheme}: {expected} or O")

    def may_follow(before: tuple[str, str], tag: tuple[str, str]) -> bool:
        same = before[1] == tag[1]
        if scheme == "BIO":
            return tag[0] != "I" or (before[0] in "BI" and same)
        if scheme == "IOB1":
            return tag[0] != "B" or (before[0] in "BI" and same)
        inside = before[0] in "BI"  # a span that has not ended
        return inside == (tag[0] in "IE") and (same or not inside)

    edge = ("O", "")
    return TagConstraints(
        np.array([[may_follow(a, b) for b in tags] for a in tags], bool).reshape(len(tags), -1),
        np.array([may_follow(edge, tag) for tag in tags], bool),
        np.array([may_follow(tag, edge) for tag in tags], bool),
    )


class CRF(Module):
    """A linear-chain conditional random field: the tags of a sequence are scored jointly.

        score(path) = start_transitions[path 0] + sum of emissions[t, path t]
                      + sum of transitions[path t, path t+1] + end_transitions[last of path]
        p(path) = exp(score(path)) / sum of exp(score) over all paths

    The emissions are what the output layer of a tagger returns. `loss` is what training
    minimizes, `decode` finds the best path, `marginals` the probability of each tag. Parameters
    have the names and the layout of the package pytorch-crf. Source: Lafferty et al. 2001; after a
    recurrent network, Lample et al. 2016.

    Shapes: emissions [T, B, C]; tags [T, B]; lengths [B]; transitions [C, C] from, to.

    Args:
        num_tags: C.
        constraints: Which paths `decode` and `marginals` take into account; None for all. The loss
            ignores them: training data have mistakes, and a path that the constraints exclude would
            have an infinite loss.
        initialization: A number for uniform(-a, a); any name means a = 0.1.
        dtype: float32 or float64.

    Raises:
        ValueError: num_tags is below 1, the constraints are not of its size, or the initialization
            is unknown.

    >>> crf = CRF(3, constraints=tag_constraints(["O", "B", "I"]))
    >>> emissions = np.array([[[0, 0, 2]], [[0, 0, 2]], [[1, 0, 0]]], np.float32)
    >>> crf.decode(emissions)[:, 0]  # I cannot be first
    array([1, 2, 0])
    >>> crf.marginals(emissions).shape, crf.loss(emissions, [[1], [2], [0]]).shape
    ((3, 1, 3), ())
    """

    def __init__(
        self,
        num_tags: int,
        *,
        constraints: TagConstraints | None = None,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, num_tags=num_tags)
        self.num_tags = num_tags
        self.constraints = constraints
        if constraints is not None:
            for name, given in constraints._asdict().items():
                array, shape = np.asarray(given), (num_tags,) * (1 + (name == "transitions"))
                if array.dtype != bool or array.shape != shape:
                    raise ValueError(
                        f"CRF: constraints have {name} of {array.dtype}{array.shape}; expected "
                        f"bool{shape} for num_tags={num_tags}"
                    )
        self.transitions = initialize.parameter((num_tags, num_tags), dtype)
        self.start_transitions = initialize.parameter((num_tags,), dtype)
        self.end_transitions = initialize.parameter((num_tags,), dtype)
        self.reset_parameters(initialization)

    def reset_parameters(self, initialization: Initialization = "pytorch") -> None:
        """Initialize the parameters again."""
        initialize.check(initialization)
        if initialize.is_enabled():
            bound = 0.1 if isinstance(initialization, str) else float(initialization)
            for parameter in self.parameters():
                initialize.uniform(parameter, bound)

    def forward(
        self, emissions: Operand, tags: Operand, lengths: ArrayLike | None = None
    ) -> Tensor:
        """As `loss`."""
        return self.loss(emissions, tags, lengths)

    def loss(
        self,
        emissions: Operand,
        tags: Operand,
        lengths: ArrayLike | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """The negative log-probability of the tags, in nats; the mean is over all tags.

        Args:
            emissions: [T, B, C].
            tags: [T, B] integers in 0..C-1; -100 for none, at the last steps of a row.
            lengths: [B] the steps of each row, or None for all T.
            reduction: "mean", "sum" or "none", as in `ops.crf_loss`.

        Raises:
            ValueError, TypeError: as for `ops.crf_loss`.
        """
        result: Tensor = ops.crf_loss(
            emissions, self.transitions, self.start_transitions, self.end_transitions,
            tags=tags, lengths=lengths, reduction=reduction,
        )  # fmt: skip
        return result

    def decode(self, emissions: Operand, lengths: ArrayLike | None = None) -> NDArray[np.int64]:
        """The best path of each row: tags [T, B], -100 beyond the lengths.

        Raises:
            ValueError: as for `ops.crf_decode`.
        """
        return ops.crf_decode(emissions, *self._allowed(), lengths)

    def marginals(self, emissions: Operand, lengths: ArrayLike | None = None) -> Array:
        """The probability of each tag at each step, [T, B, C], 0 beyond the lengths.

        Raises:
            ValueError: as for `ops.crf_marginals`.
        """
        return ops.crf_marginals(emissions, *self._allowed(), lengths)

    def _allowed(self) -> tuple[Array, Array, Array]:
        """Transitions, start and end, -inf where the constraints exclude them."""
        scores = self.transitions.data, self.start_transitions.data, self.end_transitions.data
        if self.constraints is None:
            return scores
        excluded = scores[0].dtype.type(-np.inf)
        transitions, start, end = map(np.where, self.constraints, scores, [excluded] * 3)
        return transitions, start, end

    def extra_repr(self) -> str:  # noqa: D102
        constrained = "" if self.constraints is None else ", constrained"
        return f"{self.num_tags}{constrained}"
