"""Embeddings: projections to a plane, nearest neighbors, and analogies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from anaphora.plot.labels import place_labels
from anaphora.plot.picture import COLORS, Picture, shown_token
from anaphora.tensor import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def principal_components(vectors: ArrayLike, count: int = 2) -> tuple[Array, Array]:
    """Project vectors onto their directions of largest variance (Pearson 1901).

    Args:
        vectors: [V, E].
        count: The number of directions, at most the smaller of V and E.

    Returns:
        The coordinates [V, count], and the fraction of the variance along each, [count]. Signs are
        chosen so that the largest coordinate of each direction is positive.

    Raises:
        ValueError: the shape is wrong, or the count is out of range.

    >>> coordinates, shares = principal_components([[0.0, 0.0], [0.0, 0.0], [3.0, 3.0]], count=1)
    >>> coordinates.ravel().round(2), shares
    (array([-1.41, -1.41,  2.83]), array([1.]))
    """
    matrix = _matrix(vectors, "principal_components")
    if not 1 <= count <= min(matrix.shape):
        raise ValueError(
            f"principal_components: count {count} of {matrix.shape[0]} vectors of "
            f"{matrix.shape[1]} numbers; expected 1 to {min(matrix.shape)}"
        )
    centered = matrix - matrix.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    coordinates = left[:, :count] * sizes[:count]
    largest = coordinates[np.abs(coordinates).argmax(axis=0), np.arange(count)]
    variances = np.square(sizes)
    shares = variances[:count] / max(variances.sum(), np.finfo(np.float64).tiny)
    return coordinates * np.where(largest < 0, -1, 1), shares


def nearest(
    vectors: ArrayLike, labels: Sequence[str], label: str, count: int = 5
) -> list[tuple[str, float]]:
    """The labels with the largest cosine similarity to a label.

    Args:
        vectors: [V, E].
        labels: One for each vector.
        label: The label to compare with.
        count: The number of neighbors.

    Returns:
        The labels and their cosine similarities, the nearest first.

    Raises:
        ValueError: the shapes do not match, or the label is not one of the labels.

    >>> nearest([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]], ["a", "b", "c"], "a")
    [('b', 1.0), ('c', 0.0)]
    """
    unit = _unit(vectors, labels, "nearest")
    number = _number(labels, label, "nearest")
    return _closest(unit, labels, unit[number], {number}, count)


def analogy(
    vectors: ArrayLike, labels: Sequence[str], a: str, b: str, c: str, count: int = 5
) -> list[tuple[str, float]]:
    """Solve the analogy a : b = c : ? (Mikolov et al. 2013): the nearest to ``b - a + c``.

    Args:
        vectors: [V, E]; only their directions matter.
        labels: One for each vector.
        a: As in "man is to king as woman is to ...": man,
        b: king,
        c: woman.
        count: The number of answers.

    Returns:
        Labels other than the three and their cosine similarities, the nearest first.

    Raises:
        ValueError: the shapes do not match, or one of the three is not one of the labels.

    >>> vectors = [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    >>> analogy(vectors, ["man", "king", "woman", "queen"], "man", "king", "woman", count=1)[0][0]
    'queen'
    """
    unit = _unit(vectors, labels, "analogy")
    one, two, three = (_number(labels, label, "analogy") for label in (a, b, c))
    target = unit[two] - unit[one] + unit[three]
    return _closest(unit, labels, target, {one, two, three}, count)


def embeddings(
    vectors: ArrayLike,
    labels: Sequence[str],
    words: Sequence[str] = (),
    *,
    neighbors: int = 6,
    max_labels: int = 120,
) -> Picture:
    """Plot embeddings in the plane of their first two principal components.

    Args:
        vectors: [V, E], such as ``model.embedding.weight``.
        labels: One for each vector.
        words: Labels to show, each connected to its nearest neighbors in all E dimensions; if
            empty, the first labels are shown.
        neighbors: The number of neighbors of each word.
        max_labels: The maximum number of labels if no words are given.

    Returns:
        A picture; its data are ``labels`` (those shown), ``coordinates`` [N, 2], ``shares`` [2] of
        the variance along the axes, and ``nearest``, the result of `nearest` for each word.

    Raises:
        ValueError: the shapes do not match, labels are not distinct, or a word is not a label.

    >>> vectors = np.random.default_rng(0).normal(size=(5, 3))
    >>> picture = embeddings(vectors, list("abcde"), ["c"], neighbors=2)
    >>> len(picture.data["labels"]), picture.data["coordinates"].shape
    (3, (3, 2))
    """
    matrix = _matrix(vectors, "embeddings")
    if len(set(labels)) < len(labels):
        raise ValueError("embeddings: a label occurs twice; labels must be distinct")
    found = {word: nearest(matrix, labels, word, neighbors) for word in words}
    shown = list(labels[:max_labels])
    if words:
        with_neighbors = [[word, *(label for label, _ in found[word])] for word in words]
        shown = list(dict.fromkeys(label for group in with_neighbors for label in group))
    places = [_number(labels, label, "embeddings") for label in shown]
    if len(places) < 2 or matrix.shape[1] < 2:
        raise ValueError(
            f"embeddings: {len(places)} vectors of {matrix.shape[1]} numbers; a plane needs at "
            "least 2 of 2"
        )
    coordinates, shares = principal_components(matrix[places])
    data = {"labels": shown, "coordinates": coordinates, "shares": shares, "nearest": found}

    def render(figure: Figure) -> None:
        axes = figure.subplots()
        at = dict(zip(shown, coordinates, strict=True))
        for number, word in enumerate(words):
            color = COLORS[number % len(COLORS)]
            for label, _ in found[word]:
                x, y = np.stack([at[word], at[label]], axis=1)
                axes.plot(x, y, color=color, linewidth=0.8, alpha=0.6)
        axes.plot(*coordinates.T, ".", color="0.7", markersize=3)
        axes.margins(0.08)
        axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({shares[1]:.0%})")
        # Words first, so that they stand beside their points.
        order = sorted(range(len(shown)), key=lambda n: shown[n] not in words)
        place_labels(
            figure,
            axes,
            coordinates[order],
            [shown_token(shown[n]) for n in order],
            [
                COLORS[words.index(shown[n]) % len(COLORS)] if shown[n] in words else ""
                for n in order
            ],
        )

    return Picture(data, render, (7.0, 5.5))


def _matrix(vectors: ArrayLike, of: str) -> Array:
    matrix = np.asarray(vectors, np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"{of}: vectors of shape {matrix.shape}; expected [V, E]")
    return matrix


def _unit(vectors: ArrayLike, labels: Sequence[str], of: str) -> Array:
    matrix = _matrix(vectors, of)
    if len(labels) != len(matrix):
        raise ValueError(f"{of}: {len(labels)} labels for {len(matrix)} vectors")
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit: Array = matrix / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def _number(labels: Sequence[str], label: str, of: str) -> int:
    try:
        return labels.index(label)
    except ValueError:
        raise ValueError(f"{of}: {label!r} is not one of the {len(labels):,} labels") from None


def _closest(
    unit: Array, labels: Sequence[str], vector: Array, without: set[int], count: int
) -> list[tuple[str, float]]:
    cosines = unit @ vector / max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)
    order = [int(n) for n in np.argsort(-cosines, kind="stable") if int(n) not in without]
    return [(labels[n], round(float(cosines[n]), 12)) for n in order[:count]]
