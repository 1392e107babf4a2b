"""The codecs of translators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from anaphora.data.batches import Batches, pair_batches
from anaphora.data.codecs.base import (
    Array,
    Codec,
    Column,
    UnknownShare,
    shorten,
)
from anaphora.data.errors import DataError, located
from anaphora.data.tokenizers import Tokenizer, WordTokenizer

SIDES = ("source", "target")


class PairCodec(dict[str, Tokenizer], Codec):
    """The tokenizers of sentences and their translations, as "source" and "target".

    >>> codec = PairCodec.fit([("a b", "c"), ("b", "d e")])
    >>> codec.sizes()
    {'source_vocabulary_size': 3, 'vocabulary_size': 4, 'end_id': 0}
    """

    counted = "words of the target"
    sides: ClassVar[tuple[str, ...]] = SIDES

    @classmethod
    def fit(
        cls,
        training: Sequence[tuple[str, str]],
        held_out: Sequence[tuple[str, str]] = (),
        *,
        fit_tokenizer: Callable[[Sequence[str]], Tokenizer] = WordTokenizer.fit,
    ) -> PairCodec:
        """Fit a codec to training pairs.

        Args:
            training: Sentences and their translations; at least one pair.
            held_out: Validation pairs, which are ignored.
            fit_tokenizer: Fits a tokenizer to lines.
        """
        return cls(
            {
                name: fit_tokenizer([f"{line}\n" for line in lines])
                for name, lines in zip(SIDES, zip(*training, strict=True), strict=True)
            }
        )

    def encode(self, examples: Sequence[Any]) -> dict[str, Array]:  # noqa: D102
        arrays = {}
        for name, lines in zip(SIDES, zip(*examples, strict=True), strict=True):
            ids = []
            for line in lines:
                with located(f"the {name} {shorten(line)}"):
                    ids.append(self[name].encode(f"{line}\n"))
            arrays[name] = np.concatenate(ids)
        return arrays

    def columns(self) -> dict[str, Column]:  # noqa: D102
        return {name: Column(name, self[name].vocabulary_size) for name in SIDES}

    def batches(  # noqa: D102
        self, arrays: Mapping[str, Array], batch_size: int, dtype: str
    ) -> Batches:
        ends = [self.words(name).start_id for name in SIDES]
        assert ends[1] is not None
        return pair_batches(arrays["source"], arrays["target"], batch_size, ends[1], ends[0])

    def words(self, name: str) -> WordTokenizer:
        """The tokenizer of a side, which must be a word tokenizer.

        Raises:
            DataError: it is not.
        """
        tokenizer = self[name]
        if not isinstance(tokenizer, WordTokenizer):
            raise DataError(
                f"the tokenizer of the {name} has the level {tokenizer.level!r}; translation "
                "needs 'word'"
            )
        return tokenizer

    def counts(self, arrays: Mapping[str, Array]) -> int:  # noqa: D102
        return len(arrays["target"])

    def sizes(self) -> dict[str, int]:  # noqa: D102
        sizes = {}
        if "source" in self:
            sizes["source_vocabulary_size"] = self["source"].vocabulary_size
        sizes["vocabulary_size"] = self["target"].vocabulary_size
        end = self["target"].start_id
        return sizes if end is None else {**sizes, "end_id": end}

    def describe(self) -> str:  # noqa: D102
        return f"vocabularies of {' and '.join(f'{t.vocabulary_size:,}' for t in self.values())}"

    def entries(self) -> dict[str, Sequence[str]]:  # noqa: D102
        names = {"source": "source_vocabulary_size", "target": "vocabulary_size"}
        return {names[side]: tokenizer.tokens_by_id() for side, tokenizer in self.items()}

    def options(self) -> dict[str, Any]:  # noqa: D102
        return self["target"].options()

    def adapted(self, start: Any, vocabulary: str) -> PairCodec:  # noqa: D102
        return type(self)(
            {side: own.adapted(start[side], vocabulary) for side, own in self.items()}
        )

    def unknown_tokens(self, input: Any) -> Counter[str]:  # noqa: D102
        self["source"].encode(f"{input}\n")
        return self["source"].unknown_tokens([f"{input}\n"])

    def unknown_share(  # noqa: D102
        self, examples: Sequence[Any], arrays: Mapping[str, Array]
    ) -> UnknownShare:
        unknown = Counter[str]()
        for name, lines in zip(SIDES, zip(*examples, strict=True), strict=True):
            unknown += self[name].unknown_tokens(f"{line}\n" for line in lines)
        marked = (arrays[name] == self[name].unknown_id for name in SIDES)
        count = sum(int(np.count_nonzero(side)) for side in marked)
        return UnknownShare(unknown, count, sum(len(arrays[name]) for name in SIDES))

    def knows(self, token: str) -> bool:  # noqa: D102
        return any(not side.unknown_tokens([token]) for side in self.values())

    def to_dict(self) -> dict[str, Any]:  # noqa: D102
        return {name: tokenizer.to_dict() for name, tokenizer in self.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PairCodec:
        """Make a codec from the result of `to_dict`; see `Codec.from_dict`."""
        if set(data) != set(cls.sides):
            raise ValueError(f"the tokenizers are {sorted(data)}; expected {sorted(cls.sides)}")
        return cls({name: Tokenizer.from_dict(data[name]) for name in cls.sides})


class TargetCodec(PairCodec):
    """The tokenizer of the target, as "target", of a model whose source is not text.

    >>> TargetCodec({"target": WordTokenizer.fit(["a b"])}).sizes()
    {'vocabulary_size': 3, 'end_id': 0}
    """

    sides = ("target",)
