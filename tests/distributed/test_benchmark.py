"""The benchmark of several processes runs; no time is held."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]

TINY = """
import sys
sys.path.insert(0, sys.argv[1])
from benchmarks import distributed
distributed.WORKS["tiny"] = {"vocabulary": 9, "hidden": 5, "layers": 2, "batch": 4, "window": 3}
distributed._train("tiny", 4)
"""


def test_the_processes_that_are_measured(launch, script):
    out, _ = launch(2, [script(TINY), ROOT])
    result = json.loads(out)
    assert result["tokens_per_second"] > 0
    assert 0 <= result["communication"] <= 1
    # Two layers of 4 gates, the embedding and the output, in float32.
    assert result["gradient_bytes"] == 4 * (2 * (20 * 5 * 2 + 20 * 2) + 9 * 5 + 9 * 5 + 9)


def test_they_are_compared_with_one_process(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import distributed

    runs = []

    def run(command, threads):
        runs.append((command[0], threads))
        speed = 300.0 if command[0] == "mpiexec" else 100.0 * threads
        return {
            "tokens_per_second": speed, "second": 4.5, "communication": 0.25, "gradient_bytes": 2e6,
        }  # fmt: skip

    monkeypatch.setattr(distributed, "_run", run)
    options = type("Options", (), {"steps": 4, "rate": None, "processes": 2, "runs": 3})
    found = distributed._compared("char 2 x 512", options, ["mpiexec", "-n", "2"])
    assert [threads for _, threads in runs] == [2, 1] * 3  # they take turns
    assert found["ratio"] == 1.5
    assert found["gradient MB"] == 2.0
    assert found["step, ms"] == 4500.0
