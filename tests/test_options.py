"""Options check themselves by what each declares; layers and batches use the same checks."""

import dataclasses

import numpy as np
import pytest

from anaphora import nn
from anaphora.options import (
    COUNT,
    FACTOR,
    LARGEST,
    SHARE,
    SIZE,
    Options,
    check_sizes,
    defaults,
    option,
)


@dataclasses.dataclass(kw_only=True)
class Some(Options):
    size: int | None = option(3, "", SIZE, section="model")
    count: int = option(0, "", COUNT, section="model")
    share: float = option(0.0, "", SHARE, section="model")
    factor: float = option(1.0, "", FACTOR, section="model")
    free: int = option(-5, "", section="model")


@dataclasses.dataclass(kw_only=True)
@defaults(size=7)
class More(Some):
    pass


@pytest.mark.parametrize("kind", [Some, More])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size must be an integer of at least 1, not 0"),
        ({"size": 2.0}, "size must be an integer of at least 1, not 2.0"),
        ({"size": True}, "size must be an integer of at least 1, not True"),
        ({"size": LARGEST + 1}, "size is 9.22e[+]18; expected a number that fits in 64 bits"),
        ({"count": -1}, "count must be an integer of at least 0, not -1"),
        ({"share": 1.0}, "share must be >= 0 and < 1, not 1.0"),
        ({"share": float("nan")}, "share must be >= 0 and < 1, not nan"),
        ({"factor": -0.5}, "factor must be finite and >= 0, not -0.5"),
        ({"factor": float("inf")}, "factor must be finite and >= 0, not inf"),
    ],
)
def test_each_option_is_held_to_its_declaration(kind, values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**values)


def test_what_is_within_the_declaration_stays():
    values = {"size": None, "count": np.int64(0), "share": 0.0, "factor": 0.0, "free": -9}
    assert More(**values).to_dict() == values
    assert (More().size, More(size=1).size) == (7, 1)


def test_messages_begin_with_whose_argument_it_is():
    with pytest.raises(ValueError, match=r"^LSTM: hidden_size must be an integer .*, not True$"):
        nn.LSTM(3, True)
    with pytest.raises(ValueError, match=r"^cover: window must be an integer of at least 1"):
        check_sizes("cover", window=0)
    with pytest.raises(ValueError, match=r"^GRU: input_size must fit in 64 bits"):
        nn.GRU(LARGEST + 1, 4)
    with pytest.raises(ValueError, match=r"^Dropout: p must be >= 0 and < 1"):
        nn.Dropout(-0.1)
