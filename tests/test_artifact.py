"""A model directory survives kills and full disks, and says what is wrong with a file."""

import builtins
import contextlib
import errno
import io
import json
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from anaphora.artifact import (
    ArtifactError,
    ModelDirectory,
    atomic_write,
    read_json,
    read_weights,
    write_json,
    write_weights,
)
from anaphora.artifact import directory as model_directory
from anaphora.artifact import files as artifact

CONFIG = {"model": {"cell": "lstm", "hidden_size": 7}, "training": {"epochs": 2}}
TOKENIZER = {"level": "char", "tokens": ["a", "é", "\u2028", "\U0001f600"]}
ARRAYS = {"decoder.bias": np.arange(3.0, dtype=np.float32), "rnn.weight_hh_l0": np.eye(2)}


def same(arrays, others):
    """Equal names, shapes, dtypes and bits."""
    return {n: (a.shape, a.dtype.str, a.tobytes()) for n, a in arrays.items()} == {
        n: (a.shape, a.dtype.str, a.tobytes()) for n, a in others.items()
    }


def saved(path):
    directory = ModelDirectory.create(path)
    directory.save(CONFIG, TOKENIZER, ARRAYS)
    return directory


# Files


def test_atomic_write_replaces_and_leaves_nothing_plain(tmp_path):
    path = tmp_path / "file"
    for data in (b"first, and longer", b"second", b""):
        atomic_write(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_failure_keeps_the_old_file_and_removes_the_temporary(tmp_path, monkeypatch, step, failure):
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def fail(*_, **options):
        raise failure

    if step == "write":

        class Full(io.FileIO):
            write = fail

        monkeypatch.setattr(artifact, "open", Full, raising=False)
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises((ArtifactError, KeyboardInterrupt)) as caught:
        atomic_write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    if isinstance(failure, OSError):
        assert str(caught.value) == (
            f"{path}: cannot be written: No space left; free some space there"
        )


def test_read_only_and_missing_folders_are_named(tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match=r"no/file: cannot be written: No such file or direct"):
        atomic_write(tmp_path / "no" / "file", b"")
    atomic_write(tmp_path / "file", b"")
    with pytest.raises(ArtifactError, match=r"file/below: cannot be written: Not a directory"):
        atomic_write(tmp_path / "file" / "below", b"")
    with pytest.raises(ArtifactError, match=r"file/model: cannot be written: Not a directory"):
        ModelDirectory.create(tmp_path / "file" / "model")
    directory = saved(tmp_path / "model")

    def read_only(path, mode="r", *arguments, **options):
        if mode != "rb":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return builtins.open(path, mode, *arguments, **options)

    monkeypatch.setattr(artifact, "open", read_only, raising=False)
    monkeypatch.setattr(model_directory, "open", read_only, raising=False)
    for write, path in [
        (lambda: directory.save(CONFIG, TOKENIZER, ARRAYS), directory.weights),
        (lambda: directory.save_checkpoint(ARRAYS, {}), directory.checkpoint),
        (lambda: directory.append_metrics({"step": 1}), directory.metrics),
    ]:
        with pytest.raises(ArtifactError, match="Read-only file system; choose a folder") as caught:
            write()
        assert str(caught.value).startswith(f"{path}: cannot be written")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match="Permission denied; check its permissions"):
            ModelDirectory.create(tmp_path / "model")
    finally:
        tmp_path.chmod(0o700)


def test_writers_of_one_file_do_not_conflict(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([65 + i]) * 200_000 for i in range(4)]
    threads = [
        threading.Thread(target=lambda data=data: [atomic_write(path, data) for _ in range(5)])
        for data in contents
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_bytes() in contents
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["file"]


# JSON

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@given(json_values)
def test_json_round_trip(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    back = read_json(path)
    assert back == value
    assert repr(back) == repr(value)  # -0.0, 1 and 1.0, True and 1, order of keys


def test_json_is_readable_and_takes_numpy_scalars_and_surrogates(tmp_path):
    path = tmp_path / "config.json"
    write_json(
        path,
        {"é": (np.float32(0.1), np.int8(3)), "file": b"\xff.txt".decode(errors="surrogateescape")},
    )
    assert path.read_text("utf-8") == (
        '{\n  "é": [\n    0.10000000149011612,\n    3\n  ],\n  "file": "\\udcff.txt"\n}\n'
    )
    assert read_json(path)["file"] == "\udcff.txt"
    path.write_bytes(b"\xef\xbb\xbf{}")  # an editor on Windows saved it
    assert read_json(path) == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, {"b": math.nan}]}, r"config.json: a\[1\].b is nan, which JSON cannot hold"),
        ({"a": np.float32(-np.inf)}, r"config.json: a is -inf, which JSON cannot hold"),
        ({"a": {3: 4}}, r"config.json: a has the key 3, which JSON would turn into a string"),
        ({"a": Path("x")}, r"config.json: a is of type PosixPath; expected None"),
        (np.zeros(2), r"config.json: the value is of type ndarray; expected None"),
    ],
    ids=str,
)
def test_what_json_cannot_hold_is_named(tmp_path, value, message):
    with pytest.raises(ArtifactError, match=message):
        write_json(tmp_path / "config.json", value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1, column 1: Expecting value"),
        (b'{"a": 1,\n "b": }', "line 2, column 7: Expecting value"),
        (b'{"a":\n  "\xff"}', "line 2, column 4: not UTF-8"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b"[" * 100_000, "recursion"),
    ],
    ids=["empty", "syntax", "not UTF-8", "NaN", "deep"],
)
def test_damaged_json_is_named_with_the_place(tmp_path, data, message):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"config.json: is not valid JSON: .*{message}"):
        read_json(path)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"none.json: cannot be read: No such file"):
        read_json(tmp_path / "none.json")


# Weights


def test_weights_round_trip_in_every_layout(tmp_path):
    path = tmp_path / "w.safetensors"
    base = np.random.default_rng(0).normal(size=(3, 4, 5))
    base[0, 0, :3] = np.nan, -0.0, np.inf
    read_only = base.copy()
    read_only.flags.writeable = False
    arrays = {
        "plain": base,
        "transposed": base.transpose(2, 0, 1),
        "strided": base[::-1, ::2, 1::3],
        "broadcast": np.broadcast_to(base[0, 1, 2], (2, 3)),
        "read-only": read_only,
        "big-endian": base.astype(">f4"),
        "big-endian integers": np.arange(6, dtype=">u2").reshape(2, 3).T,
        "scalar": np.array(2.5, np.float16),
        "big-endian scalar": np.array(7, ">i8"),
        "empty": np.zeros((3, 0, 2), np.float32),
        "unaligned": np.frombuffer(bytes(range(9)), np.uint8)[1:].view(np.uint32),
        "boolean": base > 0,
        "": np.arange(3, dtype=np.int8),
    }
    before = {name: array.copy() for name, array in arrays.items()}
    write_weights(path, arrays)
    back, metadata = read_weights(path)
    assert metadata == {}
    native = {n: np.array(a, a.dtype.newbyteorder("="), order="C") for n, a in arrays.items()}
    assert same(back, native)
    assert same(arrays, before)
    for array in back.values():
        array += array.dtype.type(1)  # writable
    assert same(read_weights(path)[0], native)  # and not the file's


@pytest.mark.parametrize("dtype", ["?", "b", "B", "h", "H", "i", "I", "l", "L", "e", "f", "d"])
def test_every_storable_dtype_round_trips(tmp_path, dtype):
    arrays = {"x": np.array([[0, 1, 1]], dtype)}
    write_weights(tmp_path / "w", arrays)
    assert same(read_weights(tmp_path / "w")[0], arrays)


def test_other_readers_see_the_same_arrays(tmp_path):
    write_weights(tmp_path / "w", ARRAYS, {"step": 1})
    assert same(safetensors.numpy.load_file(tmp_path / "w"), ARRAYS)
    safetensors.numpy.save_file(ARRAYS, tmp_path / "theirs", {"format": "pt"})
    arrays, metadata = read_weights(tmp_path / "theirs")
    assert same(arrays, ARRAYS)
    assert metadata == {}


def test_metadata_round_trips(tmp_path):
    state = np.random.default_rng(3).bit_generator.state  # integers of 128 bits
    metadata = {"random": state, "text": "é\udcff\n", "loss": 0.1, "none": None, "list": [[]]}
    write_weights(tmp_path / "w", {}, metadata)
    assert read_weights(tmp_path / "w") == ({}, metadata)
    with pytest.raises(ArtifactError, match=r"w: metadata.best is inf, which JSON cannot hold"):
        write_weights(tmp_path / "w", {}, {"best": math.inf})
    assert read_weights(tmp_path / "w") == ({}, metadata)


@pytest.mark.parametrize(
    "array",
    [np.array([1j]), np.array([None]), np.array(["a"]), np.zeros(2, np.longdouble)],
    ids=repr,
)
def test_unsupported_dtypes_are_named(tmp_path, array):
    with pytest.raises(
        ArtifactError, match=rf"w: array 'x' has dtype {array.dtype}; expected bool"
    ):
        write_weights(tmp_path / "w", {"x": array})
    assert os.listdir(tmp_path) == []


def test_the_name_that_safetensors_keeps_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="w: safetensors reserves the name '__metadata__'"):
        write_weights(tmp_path / "w", {"__metadata__": np.ones(2)})


def zipped_pickle():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("model/data.pkl"), pickle.dumps({}))
        archive.writestr(zipfile.ZipInfo("model/data/0"), bytes(100))
    return file.getvalue()


def with_header(header, numbers=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; copy it again"),
        (b"12345", "is truncated: it has 5 of at least"),
        (zipped_pickle(), r"is a pickle \(torch.save\).*convert it: safetensors.torch.save_file"),
        (pickle.dumps({"weight": list(range(9))}), r"is a pickle \(torch.save\)"),
        (b"PK\x03\x04 and some other archive", "is not a safetensors file; expected one"),
        (b"\x89HDF\r\n\x1a\n and so on", "is not a safetensors file; expected one"),
        (with_header({"a": 1}), "is damaged"),
        (with_header({"__metadata__": {"anaphora": "{"}}), "is damaged"),
        (with_header({"__metadata__": {"anaphora": "3"}}), "is damaged .*metadata is 3; expect"),
        (
            with_header({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"12"),
            "holds numbers of type BF16, which NumPy does not have; convert them to F32",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_files_that_are_not_weights_are_explained(tmp_path, data, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"model.safetensors: {message}"):
        read_weights(path)


def test_a_truncated_file_is_explained_wherever_it_ends(tmp_path):
    path = tmp_path / "model.safetensors"
    for header in (100, 640):  # the length 640 begins with the bytes of a pickle
        write_weights(path, ARRAYS, {"padding": "." * header})
        complete = path.read_bytes()
        for size in range(1, len(complete)):
            path.write_bytes(complete[:size])
            with pytest.raises(ArtifactError, match=rf"is truncated: it has {size} of at least"):
                read_weights(path)
        path.write_bytes(complete + b"x")
        with pytest.raises(ArtifactError, match="is damaged"):
            read_weights(path)


@given(st.data())
def test_damage_is_an_artifact_error_or_goes_unnoticed(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    write_weights(path, ARRAYS, {"step": 1})
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    with contextlib.suppress(ArtifactError):
        read_weights(path)


# The directory


def test_save_and_load(tmp_path):
    directory = saved(tmp_path / "parent" / "model")
    config, tokenizer, arrays = ModelDirectory.open(directory.path).load()
    assert config == {"format": 2, "anaphora": model_directory._package_version(), **CONFIG}
    assert tokenizer == TOKENIZER
    assert same(arrays, ARRAYS)
    directory.save(config, tokenizer, {"other": np.ones(1)})  # what was loaded can be saved
    assert directory.load()[0] == config
    assert same(directory.load()[2], {"other": np.ones(1)})
    assert repr(directory) == f"ModelDirectory({str(directory.path)!r})"
    assert sorted(os.listdir(directory.path)) == [
        "checkpoint", "config.json", "metrics.jsonl", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_config_may_change_and_the_tokenizer_may_not(tmp_path):
    directory = saved(tmp_path)
    directory.save({**CONFIG, "best": 3}, TOKENIZER, ARRAYS)
    assert directory.load()[0]["best"] == 3
    with pytest.raises(ArtifactError, match=r"tokenizer.json: differs from the tokenizer to save"):
        directory.save(CONFIG, {"tokens": []}, {})
    assert directory.load()[0]["best"] == 3
    assert same(directory.load()[2], ARRAYS)


def test_create_refuses_what_it_would_destroy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"file: is a file; choose another --out"):
        ModelDirectory.create(tmp_path / "file")
    with pytest.raises(ArtifactError, match="is not empty and is not a model directory; choose"):
        ModelDirectory.create(tmp_path)
    foreign = tmp_path / "foreign"  # another program's model, with the same names
    foreign.mkdir()
    write_json(foreign / "config.json", {"architectures": ["GPT2"]})
    write_weights(foreign / "model.safetensors", ARRAYS)
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match="is not a model directory"):
            ModelDirectory.create(foreign, overwrite=overwrite)
    directory = saved(tmp_path / "model")
    with pytest.raises(
        ArtifactError, match=r"already holds .* --resume, .* --out, or .* --overwrite"
    ):
        ModelDirectory.create(directory.path)
    assert same(directory.load()[2], ARRAYS)
    started = ModelDirectory.create(tmp_path / "started")
    started.save_checkpoint(ARRAYS, {})
    with pytest.raises(ArtifactError, match="already holds a model"):
        ModelDirectory.create(started.path)


def test_overwrite_removes_the_model_and_nothing_else(tmp_path):
    directory = saved(tmp_path / "model")
    directory.save_checkpoint(ARRAYS, {"step": 1})
    directory.append_metrics({"step": 1})
    (directory.path / "notes.txt").write_text("mine")
    (directory.path / ".mine.tmp").write_text("mine")
    (directory.path / f".model.safetensors.{'0a' * 8}.tmp").write_text("left by a kill")
    ModelDirectory.create(directory.path, overwrite=True)
    assert sorted(os.listdir(directory.path)) == [
        ".mine.tmp", "checkpoint", "metrics.jsonl", "notes.txt",
    ]  # fmt: skip
    assert os.listdir(directory.checkpoint.parent) == []
    assert directory.read_metrics() == []


def test_create_takes_an_empty_folder_and_a_training_that_saved_nothing(tmp_path):
    directory = ModelDirectory.create(tmp_path)
    directory.append_metrics({"step": 1})
    write_json(directory.config, {"format": 2})  # killed within its first save
    assert ModelDirectory.create(tmp_path).read_metrics() == []
    assert not directory.config.exists()


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(ArtifactError, match="none: no such folder; expected the folder that ana"):
        ModelDirectory.open(tmp_path / "none")
    with pytest.raises(ArtifactError, match=r"is not a model directory, as it has no config.json"):
        ModelDirectory.open(tmp_path)
    directory = ModelDirectory.create(tmp_path / "model")
    with pytest.raises(ArtifactError, match="stopped before a model was saved; train again with"):
        ModelDirectory.open(directory.path)
    directory.save_checkpoint({}, {"step": 1})
    assert ModelDirectory.open(directory.path).load_checkpoint() == ({}, {"step": 1})
    with pytest.raises(ArtifactError, match=r"stopped before a model was saved; .* --resume"):
        ModelDirectory.open(directory.path).load()
    directory.save(CONFIG, TOKENIZER, ARRAYS)
    with pytest.raises(ArtifactError, match=r"model.safetensors: is a file; expected the folder"):
        ModelDirectory.open(directory.weights)
    directory.checkpoint.unlink()
    with pytest.raises(ArtifactError, match=r"state.safetensors: no such file, .* without"):
        ModelDirectory.open(directory.path).load_checkpoint()


def test_a_shipped_model_needs_no_checkpoint_and_no_metrics(tmp_path):
    directory = saved(tmp_path)
    directory.metrics.unlink()
    directory.checkpoint.parent.rmdir()
    directory = ModelDirectory.open(tmp_path)
    assert same(directory.load()[2], ARRAYS)
    assert directory.read_metrics() == []
    assert directory.metrics_size() == 0
    directory.truncate_metrics(0)
    directory.save_checkpoint({}, {})
    assert directory.load_checkpoint() == ({}, {})


@pytest.mark.parametrize("name", ["config", "tokenizer", "weights"])
def test_a_missing_or_damaged_part_is_named(tmp_path, name):
    directory = saved(tmp_path)
    path = getattr(directory, name)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=f"{path.name}: is (not valid JSON|truncated)"):
        ModelDirectory.open(tmp_path).load()
    path.unlink()
    with pytest.raises(ArtifactError):
        directory.load()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            {"format": 4, "anaphora": "9.8"},
            r"config.json: was written by a newer anaphora \(9.8\); upg",
        ),
        ({"format": "x"}, "config.json: has \"format\" 'x'; expected 2"),
    ],
)
def test_another_format_is_explained(tmp_path, header, message):
    directory = saved(tmp_path)
    write_json(directory.config, header)
    with pytest.raises(ArtifactError, match=message):
        ModelDirectory.open(tmp_path)
    with pytest.raises(ArtifactError, match=message):
        directory.load()


# The metrics


def test_metrics_append_cut_and_read(tmp_path):
    directory = ModelDirectory.create(tmp_path)
    first = {"step": 1, "loss": np.float32(0.5), "note": "é\u2028\n"}
    directory.append_metrics(first)
    size = directory.metrics_size()
    assert size == directory.metrics.stat().st_size
    directory.append_metrics({"step": 2, "loss": math.nan, "gradient": np.float32(-np.inf)})
    text = directory.metrics.read_text("utf-8").splitlines()
    assert text[1] == '{"step": 2, "loss": "NaN", "gradient": "-Infinity"}'
    records = directory.read_metrics()
    assert records[0] == first
    assert math.isnan(records[1]["loss"])
    assert records[1]["gradient"] == -math.inf
    directory.truncate_metrics(size)
    assert directory.read_metrics() == [first]
    directory.truncate_metrics(size + 100)  # never longer
    assert directory.metrics.stat().st_size == size


def test_half_a_last_line_is_ignored_and_then_replaced(tmp_path):
    directory = ModelDirectory.create(tmp_path)
    directory.append_metrics({"step": 1})
    size = directory.metrics_size()
    for half in (b"{", b'{"step": 2', b'{"step": 2}', b"\xff"):
        with open(directory.metrics, "ab") as file:
            file.write(half)
        assert directory.read_metrics() == [{"step": 1}]
        assert directory.metrics_size() == size
        directory.append_metrics({"step": 3})
        assert directory.read_metrics() == [{"step": 1}, {"step": 3}]
        directory.truncate_metrics(size)


@pytest.mark.parametrize("line", [b'{"step": ', b"3", b"\xff", b""])
def test_a_damaged_line_is_named(tmp_path, line):
    directory = ModelDirectory.create(tmp_path)
    directory.metrics.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    with pytest.raises(ArtifactError, match=r"metrics.jsonl: line 2: .*; remove that line"):
        directory.read_metrics()


def test_metrics_that_are_not_json_are_refused(tmp_path):
    directory = ModelDirectory.create(tmp_path)
    with pytest.raises(ArtifactError, match=r"metrics.jsonl: losses\[0\] is nan"):
        directory.append_metrics({"losses": [math.nan]})
    assert directory.metrics_size() == 0


# Kills

SAVE_FOREVER = """
import sys
import numpy as np
from anaphora.artifact import ModelDirectory

path, step = sys.argv[1], int(sys.argv[2])
directory = ModelDirectory.open(path)
while True:
    step += 1
    arrays = {"a": np.full((300, 400), step), "b": np.full(step % 7, float(step))}
    directory.append_metrics({"step": step})
    directory.save({"step": step}, {"tokens": ["a"]}, arrays)
    directory.save_checkpoint(arrays, {"step": step, "metrics": directory.metrics_size()})
    print(step, flush=True)
"""


def step_of(arrays):
    (step,) = set(arrays["a"].ravel().tolist())
    assert arrays["a"].shape == (300, 400)
    assert arrays["b"].tolist() == [step] * (step % 7)
    return step


def run_python(code, *arguments):
    source = str(Path(artifact.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


def test_a_kill_at_any_moment_leaves_a_state_that_was_saved(tmp_path):
    moments = random.Random(0)
    directory = ModelDirectory.create(tmp_path)
    arrays = {"a": np.full((300, 400), 0), "b": np.zeros(0)}
    directory.save({"step": 0}, {"tokens": ["a"]}, arrays)
    directory.save_checkpoint(arrays, {"step": 0, "metrics": 0})
    step = 0
    for _ in range(12):
        with run_python(SAVE_FOREVER, tmp_path, step) as process:
            assert process.stdout.readline() == f"{step + 1}\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=moments.uniform(0, 0.03))  # how long it may live on
            process.kill()
            lines = process.stdout.read().split()
        assert process.returncode == -signal.SIGKILL
        reported = int(lines[-1]) if lines else step + 1

        directory = ModelDirectory.open(tmp_path)
        config, tokenizer, arrays = directory.load()
        assert tokenizer == {"tokens": ["a"]}
        assert step_of(arrays) in (reported, reported + 1)
        assert config["step"] - step_of(arrays) in (0, 1)  # it is renamed before the weights
        arrays, metadata = directory.load_checkpoint()
        assert step_of(arrays) == metadata["step"]
        assert metadata["step"] in (reported, reported + 1)

        directory.truncate_metrics(metadata["metrics"])
        step = metadata["step"]
        assert directory.read_metrics() == [{"step": i} for i in range(1, step + 1)]
    directory.save(config, tokenizer, arrays)
    directory.save_checkpoint(arrays, metadata)
    assert list(tmp_path.rglob(".*")) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_a_kill_leaves_is_removed_by_the_next_save(tmp_path, call):
    directory = saved(tmp_path)
    code = f"""
import os, signal, sys
import numpy as np
from anaphora.artifact import ModelDirectory
os.{call} = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
ModelDirectory.open(sys.argv[1]).save({CONFIG!r}, {TOKENIZER!r}, {{"x": np.ones(3)}})
"""
    with run_python(code, tmp_path) as process:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".model.safetensors.*.tmp"))) == 1
    assert same(ModelDirectory.open(tmp_path).load()[2], ARRAYS)
    assert len(list(tmp_path.glob(".*"))) == 1  # a reader leaves alone what may be being written
    directory.save(CONFIG, TOKENIZER, ARRAYS)
    assert list(tmp_path.glob(".*")) == []
