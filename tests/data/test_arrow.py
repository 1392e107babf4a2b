"""Parquet files and data sets of Hugging Face: rows, names of classes, splits and damages."""

import json
import sys

import pytest

from anaphora.data import (
    DataError,
    column_names,
    format_of,
    open_source,
    read_columns,
    read_labelled,
)

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

CLASS = {"names": ["neg", "pos"], "_type": "ClassLabel"}
TEXT = {"dtype": "string", "_type": "Value"}
FEATURES = {
    "text": TEXT,
    "label": CLASS,
    "tags": {"feature": CLASS, "_type": "Sequence"},
    "pair": {"en": TEXT, "de": TEXT, "side": CLASS},
}


def table(features=None, first=0, count=5):
    numbers = range(first, first + count)
    columns = pa.table(
        {
            "text": [f"text {n}" for n in numbers],
            "label": pa.array([n % 2 for n in numbers], pa.int64()),
            "tags": [[n % 2, 1] for n in numbers],
            "pair": [{"en": f"e{n}", "de": f"d{n}", "side": 0} for n in numbers],
        }
    )
    if features is None:
        return columns
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return columns.replace_schema_metadata(metadata)


def values(path, columns):
    return [fields for _, fields in read_columns(path, columns)]


def write_arrow(path, table):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def test_a_parquet_file(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path, row_group_size=2)
    assert values(path, ["pair.de", "text"]) == [[f"d{n}", f"text {n}"] for n in range(5)]
    assert values(path, ["label", "tags"])[1] == [1, [1, 1]]
    assert [place for place, _ in read_columns(path, ["label"])][2:4] == [
        f"{path}, row 3", f"{path}, row 4"
    ]  # fmt: skip
    names = ["text", "label", "tags", "pair", "pair.en", "pair.de", "pair.side"]
    assert column_names(path) == names
    assert next(iter(open_source(path, "text"))) == "text 0\n"
    assert read_labelled(path, "text", "label")[:2] == [("text 0", "0"), ("text 1", "1")]
    with pytest.raises(DataError, match=r"a\.parquet has no column 'body'; it has 'text', 'label"):
        values(path, ["body"])
    with pytest.raises(DataError, match=r"a\.parquet has no column 'body'; it has 'text', 'label"):
        open_source(path, "body")
    with pytest.raises(DataError, match=r"is a Parquet file: say with --column .* has 'text', "):
        open_source(path)
    with pytest.raises(DataError, match=r"row 1: column 'tags' has \[0, 1\]; expected a text"):
        read_labelled(path, "tags", "label")


def test_a_column_whose_name_has_a_dot(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a.b": ["x"], "a": [{"c": "y"}]}), path)
    assert values(path, ["a.b", "a.c"]) == [["x", "y"]]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_classes_have_their_names(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table(FEATURES), path)
    else:
        write_arrow(path, table(FEATURES))
    assert values(path, ["label", "tags", "pair.side"])[:2] == [
        ["neg", ["neg", "pos"], "neg"], ["pos", ["pos", "pos"], "neg"]
    ]  # fmt: skip
    assert read_labelled(path, "text", "label")[1] == ("text 1", "pos")


def test_classes_that_are_none(tmp_path):
    path = tmp_path / "a.parquet"
    for label, message in [
        (-1, "row 1: the row has no label in column 'label'"),
        (2, "row 1: the class 2 is not one of the 2 classes that the file"),
        (None, "row 1: the row has no label"),
    ]:
        one = pa.table({"text": ["a"], "label": pa.array([label], pa.int64())})
        metadata = {"huggingface": json.dumps({"info": {"features": {"label": CLASS}}})}
        pq.write_table(one.replace_schema_metadata(metadata), path)
        with pytest.raises(DataError, match=message):
            read_labelled(path, "text", "label")


def saved(folder, features=FEATURES):
    """A folder as `datasets` saves one, of two files whose order is not that of their names."""
    folder.mkdir(parents=True)
    write_arrow(folder / "data-b.arrow", table(first=0, count=3))
    write_arrow(folder / "data-a.arrow", table(first=3, count=2))
    files = [{"filename": "data-b.arrow"}, {"filename": "data-a.arrow"}]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def test_a_folder_that_datasets_saved(tmp_path):
    folder = saved(tmp_path / "set")
    assert format_of(folder) == "dataset"
    assert values(folder, ["text", "label"]) == [
        [f"text {n}", ["neg", "pos"][n % 2]] for n in range(5)
    ]
    assert [place for place, _ in read_columns(folder, ["text"])][3:] == [
        f"{folder}/data-a.arrow, row 1", f"{folder}/data-a.arrow, row 2"
    ]  # fmt: skip
    assert read_labelled(folder, "text", "label")[4] == ("text 4", "neg")
    assert list(open_source(folder, "text"))[3] == "text 3\n"
    with pytest.raises(DataError, match=r"set is a dataset folder: say with --column which"):
        open_source(folder)


def test_splits_are_to_be_chosen(tmp_path):
    saved(tmp_path / "sets" / "train")
    (tmp_path / "sets" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"has the splits train, test; name one .*/sets/train$"):
        values(tmp_path / "sets", ["text"])
    data = tmp_path / "hub" / "data"
    data.mkdir(parents=True)
    pq.write_table(table(), data / "train-00000-of-00002.parquet")
    pq.write_table(table(first=5), data / "train-00001-of-00002.parquet")
    assert [text for (text,) in values(data.parent, ["text"])] == [f"text {n}" for n in range(10)]
    pq.write_table(table(), data / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"files of the splits test, train; name the files of one"):
        values(data.parent, ["text"])


def test_damages_are_reported(tmp_path):
    for name in ("a.parquet", "a.arrow"):
        path = tmp_path / name
        path.write_bytes(b"PAR1" * 9)
        with pytest.raises(DataError, match=rf"{name} cannot be read as (Arrow|Parquet): .*; copy"):
            values(path, ["text"])
    folder = saved(tmp_path / "set")
    (folder / "data-a.arrow").unlink()
    with pytest.raises(DataError, match=r"data-a\.arrow cannot be read"):
        values(folder, ["text"])
    (folder / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state\.json cannot be read: "):
        values(folder, ["text"])
    (folder / "state.json").unlink()
    for path in folder.glob("*.arrow"):
        path.unlink()
    with pytest.raises(DataError, match=r"set has no \.arrow or \.parquet file"):
        values(folder, ["text"])
    path = tmp_path / "empty.parquet"
    pq.write_table(table().slice(0, 0), path)
    with pytest.raises(DataError, match="holds no text in column 'text'"):
        read_labelled(path, "text", "label")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r'a\.parquet is .* needs an extra: pip install "ana'):
        values(path, ["text"])


def test_a_random_table_is_what_pyarrow_reads(tmp_path, rng):
    path = tmp_path / "a.parquet"
    numbers = rng.integers(0, 9, 1000)
    texts = [None if n == 0 else "é" * n for n in numbers]
    frame = pa.table({"n": numbers, "text": pa.array(texts).dictionary_encode()})
    pq.write_table(frame, path, row_group_size=70, compression="zstd")
    rows = pq.read_table(path).to_pylist()
    assert values(path, ["text", "n"]) == [[row["text"], row["n"]] for row in rows]
