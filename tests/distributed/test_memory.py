"""Memory that the processes of one machine share, and gradients that are added in it."""

import os
import sys

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such memory")

MEMORY = """
import json, os
import numpy as np
from anaphora.distributed import world
from anaphora.distributed import memory as module

w = world()

def files():
    links = [link(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd") if one.isdigit()
             and os.path.lexists(f"/proc/self/fd/{one}")]
    return sum(one.startswith("/memfd:anaphora-") for one in links)

link = os.readlink
memory = module.shared_memory(w, 100_000)
assert memory.shape == (100_000,) and memory.dtype == np.uint8 and not memory.any()
w.barrier()
memory[w.rank :: w.size] = w.rank + 1
w.barrier()
assert (memory.reshape(-1, w.size) == np.arange(w.size) + 1).all()
assert files() == 1  # that of the mapping
with open("/proc/self/maps") as maps:
    assert any("memfd:anaphora-" in line and "(deleted)" in line for line in maps)

# Where one process cannot have it, none has.
def refuse(*given):
    raise PermissionError(13, "of the test")

for name, ranks in (("memfd_create", [0]), ("readlink", [w.size - 1]), ("ftruncate", [0])):
    kept = getattr(os, name)
    if w.rank in ranks:
        setattr(os, name, refuse)
    assert module.shared_memory(w, 100) is None, name
    setattr(os, name, kept)
os.readlink = lambda path: "/memfd:anaphora-another (deleted)"  # as of another container
assert module.shared_memory(w, 100) is None
os.readlink = link
assert module.shared_memory(w, 1 << 60) is None  # more than there is
assert files() == 1
if w.is_main:
    print("all is right")
"""


@linux
@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_memory_without_a_name(launch, script, mpi, count):
    out, errors = launch(count, [script(MEMORY)], mpi)
    assert out == "all is right\n", errors


EXCHANGES = """
import sys
import numpy as np
from anaphora.distributed import world
from anaphora.tensor import Parameter, RowGradient
from anaphora.training import exchanges

w = world()
shapes = [(), (1,), (3, 5), (70, 9), (0, 4), (33,), (6, 2), (6, 2), (2, 2)]
dtypes = [np.float32, np.float64, *[np.float32] * 7]
parameters = [Parameter(np.zeros(s, d)) for s, d in zip(shapes, dtypes)]
exchanges._BLOCK = 100
exchange = exchanges.exchange_of(parameters, w)
assert type(exchange).__name__ == sys.argv[1], exchange
rng = np.random.default_rng(8)

def expected(values):
    if len(values) == 1:
        return values[0]
    middle = len(values) // 2
    return exchanges.add_gradients(expected(values[:middle]), expected(values[middle:]))

before = []
for update in range(3):
    given = [[rng.normal(size=s).astype(d) for s, d in zip(shapes, dtypes)] for _ in range(w.size)]
    for rank, of_rank in enumerate(given):
        of_rank[2] = np.asfortranarray(of_rank[2])
        rows = RowGradient(rng.integers(0, 6, 4), rng.normal(size=(4, 2)).astype("f"), (6, 2))
        of_rank[6] = rows
        of_rank[7] = [rows, of_rank[7], None][(rank + update) % 3]
        of_rank[8] = None
    own = [g.copy() if isinstance(g, np.ndarray) else g for g in given[w.rank]]
    for k in reversed(range(len(own))):
        exchange.give(k, own[k])
    totals = exchange.totals()
    for k, total in enumerate(totals):
        sums = expected([one[k].copy() if isinstance(one[k], np.ndarray) else one[k]
                         for one in given])
        assert type(total) is type(sums) or not shapes[k], (k, type(total))
        if sums is not None:
            assert np.asarray(total).tobytes() == np.asarray(sums).tobytes(), (update, k)
    for k in (2, 3, 5):  # what was given is not changed, and may be the parameter's
        assert own[k].tobytes() == given[w.rank][k].tobytes()
exchange.close(failed=False)
if w.is_main:
    print("all is right")
"""


@linux
@pytest.mark.parametrize("kind", ["Memory", "Messages"])
@pytest.mark.parametrize("count", [2, 4])
def test_gradients_of_all_kinds_are_added(launch, script, monkeypatch, mpi, count, kind):
    """Several times in the same memory, in the order of the tree."""
    monkeypatch.setenv("ANAPHORA_SHARED_MEMORY", "1" if kind == "Memory" else "")
    if kind == "Messages":
        monkeypatch.setenv("ANAPHORA_SHARED_MEMORY", "0")
    out, errors = launch(count, [script(EXCHANGES), kind], mpi)
    assert out == "all is right\n", errors


@linux
def test_one_process_that_may_not_share_decides_for_all(launch, script):
    program = script(
        "import os\nfrom anaphora.distributed import world\n"
        "if world().rank == 1:\n    os.environ['ANAPHORA_SHARED_MEMORY'] = '0'\n" + EXCHANGES
    )
    assert launch(2, [program, "Messages"])[0] == "all is right\n"


def test_a_bad_setting_is_told(monkeypatch):
    from anaphora import settings

    monkeypatch.setenv("ANAPHORA_SHARED_MEMORY", "no")
    with pytest.raises(settings.SettingError, match=r"ANAPHORA_SHARED_MEMORY is 'no'; expected 0"):
        settings.may_share_memory()
    monkeypatch.delenv("ANAPHORA_SHARED_MEMORY")
    assert settings.may_share_memory()
    assert "ANAPHORA_SHARED_MEMORY" not in os.environ
