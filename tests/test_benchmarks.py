"""The benchmarks run, skip what is missing, and count what they say they count; no time is held."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import anaphora
from anaphora import engine, hook

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(anaphora.__file__).parent.parent


@pytest.fixture
def main(monkeypatch):
    """The command, called in this process, where no peer is installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    for peer in ("torch", "onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, peer, None)
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    threads = engine.info()["threads"]
    from benchmarks.__main__ import main

    yield main
    engine.set_num_threads(threads or 1)


def test_beside_the_peers_that_are_installed():
    command = [sys.executable, "-m", "benchmarks", "streaming step, 2 x 128"]
    done = subprocess.run(
        [*command, "--seconds", "0.01", "--threads", "1", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    machine, record = map(json.loads, done.stdout.splitlines())
    assert machine["threads"] == 1
    assert record["unit"] == "s"
    assert record["gflops"] == pytest.approx(2**19 / record["medians"]["anaphora"] / 1e9)
    for peer in ("torch", "onnxruntime"):
        assert (peer in record["medians"]) != (f"{peer} is skipped" in done.stderr)
    for peer, ratio in record["ratios"].items():
        assert ratio == record["medians"][peer] / record["medians"]["anaphora"]


def test_table_without_peers(main, capsys):
    main(["streaming step, 2 x 128", "import", "--seconds", "0.01", "--threads", "1"])
    printed = capsys.readouterr()
    assert "torch is skipped" in printed.err
    assert "onnxruntime is skipped" in printed.err
    table = [line for line in printed.out.splitlines() if line.startswith("|")]
    assert len(table) == 4  # a head, a rule, and two rows
    assert len({len(line) for line in table}) == 1
    assert len(table[0]) <= 120
    head, step, start = ([cell.strip() for cell in table[k].split("|")] for k in (0, 2, 3))
    assert head[1:4] == ["work", "anaphora", "GFLOP/s"]
    assert step[1] == "streaming step, 2 x 128"
    assert step[2].split()[1] in ("us", "ms")
    assert step[6:10] == [""] * 4  # torch and ONNX Runtime
    assert start[1] == "import"
    assert start[3:6] == [""] * 3  # it has no operations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "nothing"], "no work has 'nothing' in its name; known are\n  language model"),
        (["--threads", "0"], "--threads must be at least 1, not 0"),
        (["--seconds", "nan"], "--seconds must be above 0, not nan"),
    ],
)
def test_misuse(main, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_each_kind_of_work_runs(main):
    from benchmarks import crf, ctc, inference, models, processes, training
    from benchmarks.work import Peers

    step = training.LanguageModelStep("step", V=7, H=5, T=4, B=3)
    timed = [
        step,
        training.Layer("ragged", "gru", T=4, B=3, H=5, ragged=True),
        training.Recurrence("recurrence", T=4, B=3, H=5),
        inference.Forward("forward", "gru", T=4, B=3, I=2, H=5, both=True),
        inference.StreamingStep("streaming", H=5, streams=True),
        inference.Sampling("sampling", V=7, H=5, B=3),
    ]
    for work in timed:
        assert work.runs(Peers(threads=1))["anaphora"]() is None
        assert work.operations() > 0
    for decodes in (False, True):
        work = crf.CRFStep("crf", T=4, B=3, C=5, decodes=decodes)
        assert work.runs(Peers(threads=1))["anaphora"]() is None
        assert work.operations() is None
    for cell in ("lstm", "gru"):  # both outputs are compared
        runs = inference.Block("block", cell, H=5).runs(Peers(threads=1))
        assert all(run() is None for run in runs.values())
        assert ("C" in runs) == (shutil.which("cc") is not None)
        for weights in ("float32", "int8"):
            runs = inference.ExportedBlock("exported", cell, 5, weights).runs(Peers(threads=1))
            assert all(run() is None for run in runs.values())
            assert ("C" in runs) == (shutil.which("cc") is not None)
    for lazy in (False, True):
        work = training.EmbeddingStep("embedding", V=7, E=5, N=3, lazy=lazy)
        assert work.runs(Peers(threads=1))["anaphora"]() is None
    for work in (
        ctc.CTCStep("ctc", T=9, B=3, V=5, S=4),
        models.ClassifierStep("classifier", T=5, B=3, V=7, E=2, H=4),
        models.EncoderDecoderStep("translator", S=5, T=4, B=3, V=7, H=6),
        models.LinearNorm("linear", N=3, H=4),
        models.AdamUpdate("Adam", n=5),
    ):
        assert work.runs(Peers(threads=1))["anaphora"]() is None
    for work in (processes.FirstStep("first step", step), processes.PeakMemory("memory", step)):
        assert work.runs(Peers(threads=1))["anaphora"]() > 0


def test_bfloat16_beside_float32(main, capsys, monkeypatch):
    """The runs of both precisions are of the same work, and compute in their own."""
    from benchmarks import training
    from benchmarks.rows import ROWS
    from benchmarks.work import Peers

    class Watch:
        def __init__(self):
            self.precisions = set()

        def enter(self, phase, operation, inputs):
            if phase == "forward":
                self.precisions.add(engine.current_matmul_precision())

        def leave(self, phase, operation, outputs):
            pass

    for work in (
        training.LanguageModelStep("step", V=7, H=5, T=4, B=3),
        training.Layer("layer", "peephole_lstm", T=4, B=3, H=5),
    ):
        both = training.InBfloat16("bfloat16", work)
        assert both.operations() == work.operations()
        runs, used = both.runs(Peers(threads=1)), {}
        for name, run in runs.items():
            with hook(watch := Watch()):
                assert run() is None
            used[name] = watch.precisions
        assert used == {"anaphora": {"bfloat16"}, "anaphora float32": {"float32"}}
    rows = [work for work in ROWS if isinstance(work, training.InBfloat16)]
    assert len(rows) == 8

    found = engine.info()
    for unit in ("dots", "vectors"):
        given = {**found, "bfloat16": unit}
        monkeypatch.setattr(engine, "info", lambda measure=False, given=given: given)
        main(["bfloat16: peephole", "--seconds", "0.01", "--threads", "1"])
        table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
        if unit == "vectors":
            assert table[2:] == [
                "| bfloat16: peephole, T 35 B 20 H 200 | needs AVX512_BF16 or AMX |"
            ]
            main(["bfloat16: peephole", "--seconds", "0.01", "--json"])
            _, record = map(json.loads, capsys.readouterr().out.splitlines())
            assert record["missing"] == "needs AVX512_BF16 or AMX"
        else:
            assert [line.split("|")[1].strip() for line in table[2:]] == [
                "bfloat16: peephole, T 35 B 20 H 200", "... in float32",
            ]  # fmt: skip
            assert len({len(line) for line in table}) == 1


def test_int8_beside_float32(monkeypatch):
    """The sessions of both are of the same work, and have their own weights."""
    from benchmarks import inference
    from benchmarks.rows import ROWS
    from benchmarks.work import Peers

    from anaphora.nn import session

    made, check = [], session.check_weights

    def watched(weights, dtype):
        made.append(weights)
        check(weights, dtype)

    monkeypatch.setattr(session, "check_weights", watched)
    for work in (inference.StreamingStep("", H=8), inference.Sampling("", V=7, H=8, B=3)):
        both = inference.InInt8("int8", work)
        assert both.operations() == work.operations()
        assert both.count == work.count
        made.clear()
        for run in both.runs(Peers(threads=1)).values():
            assert run() is None
        assert made == ["int8", "float32"]
    assert len([work for work in ROWS if isinstance(work, inference.InInt8)]) == 4


def test_what_is_counted(main):
    from benchmarks.inference import Forward, Sampling, StreamingStep
    from benchmarks.training import Recurrence

    assert Recurrence("", T=2, B=3, H=5).operations() == 3 * 2 * (2 * 3) * (20 * 5)
    assert StreamingStep("", H=5, L=2).operations() == 2 * 2 * 20 * (5 + 5)
    assert StreamingStep("", H=5, L=2, streams=True).bytes_read() == 4 * 2 * 20 * (5 + 5)
    both = Forward("", "gru", T=2, B=3, I=4, H=5, both=True)
    assert both.operations() == 2 * 2 * (2 * 3) * (15 * (4 + 5))
    assert Sampling("", V=7, H=5, B=3, L=1).operations() == 2 * 3 * (20 * (5 + 5) + 5 * 7)


def test_turns(main):
    from benchmarks.measure import interleaved

    turns, figures = [], iter([9.0, 1.0, 2.0, 3.0])

    def timed():
        if turns[-1:] != ["timed"]:
            turns.append("timed")

    def measured():
        turns.append("measured")
        return next(figures)

    medians = interleaved({"timed": timed, "measured": measured}, seconds=1e-6)
    assert turns == ["timed", "measured"] * 3
    assert medians["measured"] == 2.0
    assert medians["timed"] < 1


def test_each_framework_in_processes_of_its_own(main, capsys, monkeypatch):
    """Each process measures one framework; of three, the median is shown."""
    from benchmarks import __main__ as benchmarks

    started, work, start = [], "RNN forward, T 100 B 16 H 64", subprocess.run

    def run(command, **options):
        started.append(start(command, **options))
        return started[-1]

    monkeypatch.setattr(benchmarks.subprocess, "run", run)
    benchmarks.main(["--apart", "--json", "--threads", "1", "--seconds", "0.01", work])
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    alone = [json.loads(process.stdout) for process in started]
    assert all(len(medians) == 1 for medians in alone)
    assert len(alone) == 3 * len(record["medians"])
    for name, median in record["medians"].items():
        assert median == sorted(m[name] for m in alone if name in m)[1]


def test_beside_busy_processes(main, capsys):
    from benchmarks import busy

    busy.main(["RNN tanh", "--processes", "1", "--threads", "3", "--seconds", "0.01"])
    head, *table = capsys.readouterr().out.splitlines()
    assert head.startswith("1 busy processes on ")
    names, _, one, several = ([c.strip() for c in line.split("|")[1:-1]] for line in table)
    assert names == ["work", "threads", "median", "mean", "worst", "median's ratio"]
    assert [one[1], several[1], one[5]] == ["1", "3", "1.00"]
    for row in (one, several):
        assert row[0] == "RNN tanh layer, T 100 B 32 H 64"
        median, _, worst = (float(cell.removesuffix(" ms")) for cell in row[2:5])
        assert 0 < median <= worst


def test_work_beside_busy_processes_must_be_known(main, capsys):
    from benchmarks import busy

    with pytest.raises(SystemExit, match="2"):
        busy.main(["RNN relu"])
    assert "no work has 'RNN relu' in its name; known are\n  LSTM layer" in capsys.readouterr().err
    for option in ("--threads=0", "--processes=-1", "--seconds=0"):
        with pytest.raises(SystemExit, match="2"):
            busy.main([option])


# Series


def test_generated_series_are_the_same_in_each_run_and_of_the_size_that_is_said(main):
    from benchmarks import series

    for name, (draw, classes, count, standardize) in series.GENERATED.items():
        train, y, test, z = series.generated(name, draw, classes, 2 * classes, standardize)
        again = series.generated(name, draw, classes, 2 * classes, standardize)
        np.testing.assert_array_equal(train, again[0])
        assert len(test) == len(z) == 200
        assert count >= 2 * classes
        assert set(y) == set(z) == set(range(classes))
        assert np.isfinite(train).all()


def test_distances_by_warping_are_those_of_the_definition(main):
    from benchmarks import series

    rng = np.random.default_rng(3)
    x, others = rng.standard_normal((6, 2)), [rng.standard_normal((n, 2)) for n in (5, 6, 8, 6)]

    @functools.cache
    def least(t, u, k):
        if t < 0 or u < 0:
            return 0.0 if t == u == -1 else np.inf
        cost = np.square(x[t] - others[k][u]).sum()
        return cost + min(least(t - 1, u, k), least(t, u - 1, k), least(t - 1, u - 1, k))

    expected = [least(5, len(y) - 1, k) for k, y in enumerate(others)]
    np.testing.assert_allclose(series.warped_distances(x, others, window=1.0), expected)


def test_a_row_for_each_set_of_series(monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="needs scikit-learn (extra sklearn)")
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import series

    quick = ["--set", "hidden_size=4", "--set", "min_updates=1", "--set", "n_models=1"]
    series.main(["demand", "--seeds", "2", "--json", "--baselines", "--set", "epochs=1", *quick])
    row = json.loads(capsys.readouterr().out)
    assert row["set"] == "demand"
    assert 0 < row["lowest"] <= row["mean"] <= 1
    assert 0.5 < row["DTW"] <= 1
    assert 0.5 < row["linear"] <= 1


def test_networks_out_of_packages(monkeypatch, capsys):
    for package in ("silero_vad", "onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}")
    monkeypatch.syspath_prepend(str(ROOT))
    threads = engine.info()["threads"]
    from benchmarks import shipped

    medians = shipped.main(["--seconds", "0.01"])
    engine.set_num_threads(threads or 1)
    assert list(medians) == list(shipped.GRAPHS)
    assert capsys.readouterr().out.count("ONNX Runtime") == 2
