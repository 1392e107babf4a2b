"""Both directions of a few rows, each on a thread of its own."""

import threading

import numpy as np
import pytest

from anaphora import engine, nn, no_grad, random
from anaphora.tensor import hooks

pytestmark = pytest.mark.skipif(engine.info()["threads"] is None, reason="NumPy has no threads")


@pytest.fixture
def threads_of_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads on which each direction runs."""
    found: list[int] = []
    run = nn.kinds.CellLayer.run

    def noting(*arguments, **options):  # type: ignore[no-untyped-def]
        found.append(threading.get_ident())
        return run(*arguments, **options)

    monkeypatch.setattr(nn.kinds.CellLayer, "run", noting)
    return found


@pytest.fixture(autouse=True)
def two_threads():  # type: ignore[no-untyped-def]
    before = engine.info()["threads"]
    engine.set_num_threads(2)
    yield
    engine.set_num_threads(before)


def _layer(**options: object) -> tuple[nn.GRU, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(300, 2, 5)).astype(np.float32)
    return nn.GRU(5, 40, 2, bidirectional=True, **options), x


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_bits_are_those_of_one_thread(threads_of_calls: list[int], precision: str) -> None:
    layer, x = _layer()
    lengths = [300, 123]
    with engine.matmul_precision(precision):
        recorded, final = layer(x, lengths=lengths)  # in turn
        assert len(set(threads_of_calls)) == 1
        with no_grad():
            together, final_together = layer(x, lengths=lengths)
    assert len(set(threads_of_calls)) > 1
    np.testing.assert_array_equal(recorded.data, together.data)
    np.testing.assert_array_equal(final.data, final_together.data)


def test_masks_are_drawn_in_turn(threads_of_calls: list[int]) -> None:
    layer, x = _layer(weight_dropout=0.5)
    with no_grad():
        random.seed(1)
        first = layer(x)[0].data
        random.seed(1)
        np.testing.assert_array_equal(layer(x)[0].data, first)
    assert len(set(threads_of_calls)) == 1


def test_a_hook_sees_both_directions(threads_of_calls: list[int]) -> None:
    seen: list[str] = []

    class Watcher:
        def enter(self, phase: str, operation: str, inputs: tuple[object, ...]) -> None:
            seen.append(operation)

        def leave(self, phase: str, operation: str, outputs: tuple[object, ...]) -> None: ...

    layer, x = _layer()
    with no_grad(), hooks.hook(Watcher()):
        layer(x)
    assert sum("recurrence" in name for name in seen) == 4


def test_an_error_of_either_is_raised() -> None:
    def fail() -> int:
        raise MemoryError("no room")

    with no_grad():
        for calls in ([fail, lambda: 1], [lambda: 1, fail]):
            with pytest.raises(MemoryError, match="no room"):
                hooks.side_by_side(calls)
        assert hooks.side_by_side([lambda: 1, lambda: 2]) == [1, 2]


def test_without_another_thread_calls_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with no_grad():
        assert hooks.side_by_side([lambda: 1, lambda: 2]) == [1, 2]
