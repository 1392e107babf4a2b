"""A few hundred requests of `python -m benchmarks.soak`: answers, streams, aborts, garbage."""

from pathlib import Path

import pytest

from anaphora import engine


@pytest.mark.skipif(engine.info()["engine"] != "native", reason="NumPy's bits depend on the batch")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_nothing_is_lost_and_memory_does_not_grow(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import soak

    found = soak.run(400, clients=16)
    assert sum(found["requests"].values()) == 400
    assert set(found["requests"]) == set(soak.KINDS)
