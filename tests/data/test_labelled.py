"""Texts with labels: tables and folders, and what is refused."""

import json

import pytest

from anaphora.data import DataError, read_columns, read_labelled


def test_a_folder(tmp_path):
    (tmp_path / "b.txt").write_text("two\n\nthree\r\n")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "notes.md").write_text("not read")
    assert read_labelled(tmp_path) == [("one", "a"), ("two", "b"), ("three", "b")]


def test_tables(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text('label,id,text\nx,1,"one, two"\n"y z",2,"three\nfour\n"\nx,3,\n\nx,4,""" "\n')
    assert read_labelled(table, "text", "label") == [
        ("one, two", "x"), ("three\nfour", "y z"), ('" ', "x")
    ]  # fmt: skip
    assert read_labelled(table, "id", "id") == [(n, n) for n in "1234"]
    table = tmp_path / "table.tsv"
    table.write_text('text\tlabel\n"one, two\tx\nthree\ty\n')  # quotes mean nothing here
    assert read_labelled(table, "text", "label") == [('"one, two', "x"), ("three", "y")]
    assert [where[-6:] for where, _ in read_columns(table, ["label"])] == ["line 2", "line 3"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("table.csv", "text,label\none,\n", r"line 2: the row has no label in column 'label'"),
        (
            "table.csv",
            "text,label\none,x\ntwo\n",
            r"line 3: the row has too few fields \(1\) for column",
        ),
        ("table.csv", "body,label\none,x\n", r"has no column 'text'; it has 'body', 'label'"),
        ("table.csv", "text,stars\none,x\n", r"has no column 'label'; it has 'text', 'stars'"),
        ("table.csv", "text,label\n", "holds no text in column 'text'"),
        ("table.csv", "", "is empty"),
        ("table.txt", "one\n", "is neither a .csv or .tsv file nor a folder"),
    ],
)
def test_what_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_labelled(tmp_path / name, "text", "label")


@pytest.mark.parametrize("other", [" good", "good\u00a0", "go  od", "cafe\u0301"])
def test_labels_that_look_the_same(tmp_path, other):
    label = {"go  od": "go od", "cafe\u0301": "caf\u00e9"}.get(other, "good")
    table = tmp_path / "table.csv"
    text = f"text,label\na,{label}\nb,bad\nc,{other}\nd,{other}\n"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_labelled(table, "text", "label")
    assert (
        f"table.csv, line 4: the label {other!a} and {label!a} ({table}, line 2) look the same"
        in str(caught.value)
    )
    table.write_text(f"text,label\na,{other}\nb,Good\nc,GOOD\n", encoding="utf-8")
    assert {label for _, label in read_labelled(table, "text", "label")} == {other, "Good", "GOOD"}


def test_files_whose_labels_look_the_same(tmp_path):
    for name in ("good", " good"):
        (tmp_path / f"{name}.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"good\.txt: the label 'good' and ' good' \(.* the same"):
        read_labelled(tmp_path)


def test_columns_are_to_be_named(tmp_path):
    table = tmp_path / "table.tsv"
    table.write_text("text\tlabel\none\tx\n")
    for columns in ((), ("text",), (None, "label")):
        with pytest.raises(
            DataError, match=r"say with --column and --label-column .* 'text', 'lab"
        ):
            read_labelled(table, *columns)


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"has no \.txt file \(it is empty\); expected one for each label"
    ):
        read_labelled(tmp_path)
    (tmp_path / "a.txt").write_text("one\n")
    for text in ("", "\n \n"):
        (tmp_path / "b.txt").write_text(text)
        with pytest.raises(DataError, match=r"b\.txt has no text, so there is no example of the"):
            read_labelled(tmp_path)
    with pytest.raises(DataError, match="missing does not exist; the current folder is"):
        read_labelled(tmp_path / "missing")


def test_several_labels_of_a_text(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("text,labels\none,b | a|b\ntwo,\nthree,c\n")
    expected = [("one", ("a", "b")), ("two", ()), ("three", ("c",))]
    assert read_labelled(table, "text", "labels", label_separator="|") == expected
    lists = tmp_path / "table.jsonl"
    rows = [{"text": "one", "labels": ["b", "a", "b"]}, {"text": "two", "labels": []}]
    rows += [{"text": "three", "labels": "c"}, {"text": "four", "labels": [4, True]}]
    lists.write_text("\n".join(map(json.dumps, rows)))
    found = read_labelled(lists, "text", "labels")
    assert found == [*expected[:2], ("three", "c"), ("four", ("4", "true"))]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a+b.txt").write_text("one\n")
    assert read_labelled(tmp_path / "folder", label_separator="+") == [("one", ("a", "b"))]


def test_lists_of_labels_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (extra parquet)")
    import pyarrow as pa

    table = pa.table({"text": ["one", "two"], "labels": [["b", "a"], []]})
    pyarrow.write_table(table, tmp_path / "table.parquet")
    found = read_labelled(tmp_path / "table.parquet", "text", "labels")
    assert found == [("one", ("a", "b")), ("two", ())]


def test_several_labels_that_are_none_are_reported(tmp_path):
    table = tmp_path / "table.jsonl"
    table.write_text('{"text": "one", "labels": ["a", {"b": 1}]}')
    with pytest.raises(DataError, match=r"line 1: column 'labels' has .'b': 1.; expected a label"):
        read_labelled(table, "text", "labels")
    table.write_text('{"text": "one", "labels": ["a"]}\n{"text": "two", "labels": null}')
    with pytest.raises(DataError, match="line 2: the row has no label in column 'labels'"):
        read_labelled(table, "text", "labels")
    table = tmp_path / "table.csv"
    table.write_text("text,labels\none,go od|bad\ntwo,bad|go  od\n")
    with pytest.raises(DataError, match=r"line 3: the label 'go  od' and 'go od' .* look the same"):
        read_labelled(table, "text", "labels", label_separator="|")
