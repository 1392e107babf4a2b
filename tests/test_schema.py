"""What a schema refuses, and how its messages read."""

from dataclasses import dataclass
from typing import TypedDict

import pytest

from anaphora.schema import Count, SchemaError, Size, convert, convert_fields


@dataclass(frozen=True)
class Limits:
    low: int = 0
    high: float | None = None

    def __post_init__(self):
        if self.high is not None and self.high < self.low:
            raise ValueError(f"high is {self.high}, but low is {self.low}")


class Node(TypedDict, total=False):
    name: str
    counts: dict[str, Count]
    limits: Limits
    children: list["Node"]


def test_what_fits_is_converted():
    data = {
        "name": "a",
        "limits": {"low": 1, "high": 2},
        "children": [{"counts": {"b": 3}}],
        "x": 1,
    }
    result = convert(data, Node)
    assert result == {
        "name": "a", "limits": Limits(1, 2.0), "children": [{"counts": {"b": 3}}]
    }  # fmt: skip
    assert isinstance(result["limits"].high, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r"file is \[\]; expected object"),
        ({"name": 3}, "file.name is 3; expected str"),
        ({"name": None}, "file.name is None; expected str"),
        ({"name": ["a"]}, "file.name is a list of 1; expected str"),
        ({"counts": {"a": 1, "b": "two"}}, "file.counts.b is 'two'; expected int"),
        ({"counts": {"a": -1}}, "file.counts.* expected int >= 0"),
        ({"counts": {"a": True}}, "file.counts.a is True; expected int"),
        ({"counts": {"a": 2**63}}, "expected int <= 9223372036854775807"),
        ({"limits": {"low": 1.5}}, "file.limits.low is 1.5; expected int"),
        ({"limits": {"low": 3, "high": 2}}, "file.limits: high is 2.0, but low is 3"),
        ({"limits": {"high": 10**400}}, r"limits.high is 1000+\.\.\.; expected a smaller number"),
        ({"limits": {"high": "\ud800"}}, r"high is '\\ud800'; expected something other"),
        ({"children": [{}, {"children": [{"name": 1}]}]}, r"children\[1\].children\[0\].name is 1"),
        ({"name": 1, "limits": "x" * 1000}, "; expected (object|str)$"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(data, message):
    with pytest.raises(SchemaError, match=message) as caught:
        convert(data, Node, "file")
    assert len(str(caught.value)) < 200


def test_the_entries_of_a_mapping_are_checked_one_by_one():
    kinds = {"classes": (Size, True), "depth": (Size | None, False), "kind": (str, False)}
    assert convert_fields({"classes": 2, "depth": None}, kinds) == {"classes": 2, "depth": None}
    for data, message in (
        ({"classes": 2, "outputs": 3}, "there is the unknown option outputs"),
        ({"depth": 3}, "there is no classes, which is required"),
        ({"classes": 2, "depth": 2**29}, "depth is 536870912; expected int <= 268435456"),
        ({"classes": 2, "kind": 5}, "kind is 5; expected str"),
    ):
        with pytest.raises(SchemaError, match=message):
            convert_fields(data, kinds)
