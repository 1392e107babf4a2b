"""Tables of every format: what their rows have, which names columns have, and what is refused."""

import io
import json
import sys

import pytest

from anaphora.data import (
    DataError,
    column_names,
    format_of,
    is_table,
    kind_of,
    open_source,
    read_columns,
    read_labelled,
)
from anaphora.data.formats import FORMATS
from anaphora.data.tables import _READERS

ROWS = [
    {"text": "so much\nété", "label": 1, "meta": {"id": 7}, "x": None},
    {"text": " [\u2028", "label": 0, "meta": {"id": 8}},
]


def values(path, columns, **options):
    return [fields for _, fields in read_columns(path, columns, **options)]


def pipe_in(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
        ("a.ndjson", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\r\n"),
        ("a.json", json.dumps(ROWS)),
        ("a.JSON", "\n" + json.dumps(ROWS, indent=2) + "\n"),
    ],
)
def test_json(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    expected = [[7, "so much\nété", 1], [8, " [\u2028", 0]]
    assert values(path, ["meta.id", "text", "label"]) == expected
    assert column_names(path) == ["text", "label", "meta", "meta.id", "x"]
    assert list(open_source(path, "text")) == ["so much\nété\n", " [\u2028\n"]
    assert read_labelled(path, "text", "label") == [("so much\nété", "1"), (" [\u2028", "0")]


def test_places_of_json(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(read_columns(path, ["a"])) == [(f"{path}, line 1", [1]), (f"{path}, line 3", [2])]
    path.write_text('[{"a": 1},\n{"a": 2}]')
    assert list(read_columns(path, ["a"])) == [(f"{path}, item 1", [1]), (f"{path}, item 2", [2])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a"}\n{"text": \n', r"line 2: this is not JSON \(Expecting value, line 2, col"),
        (
            "{'text': 'a'}\n",
            r"line 1: this is not JSON \(.*, column 2\); expected an object a line",
        ),
        ('{"text": "a"}\n7\n', "line 2: there is 7; expected an object with fields by name"),
        ('{"body": "a"}\n', "a.jsonl has no column 'text'; it has 'body'"),
        ('{"text": "a"}\n{"text.a": "a"}\n', "line 2: there is no field 'text'; it has 'text.a'"),
        ('["a", "b"]\n', r"item 1: there is 'a'; expected an object"),
        ('[{"text": "a"}\n', r"a.jsonl: this is not JSON"),
        ('{"text": 7}\n', "line 1: column 'text' has 7; expected a text"),
        (
            '{"text": {"a": "' + "b" * 99 + '"}}\n',
            r"line 1: column 'text' has .{40}\.\.\.; expected",
        ),
        ("[" * 100_000, "this JSON cannot be read"),
        ('{"text": ' + "9" * 9999 + "}", "line 1: this JSON cannot be read"),
        ('{"text": "a", "b": "c"}\r{"text": "a"}\n', "carriage returns"),
    ],
)
def test_json_that_is_refused(tmp_path, text, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(text.encode())
    with pytest.raises(DataError, match=message):
        list(open_source(path, "text"))


def test_labels_are_texts_or_whole_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    labels = [True, False, 3, 3.0, "x", -1]
    path.write_text("".join(json.dumps({"t": "a", "l": label}) + "\n" for label in labels))
    expected = ["true", "false", "3", "3", "x", "-1"]
    assert [label for _, label in read_labelled(path, "t", "l")] == expected
    for label, message in [
        (0.5, r"line 1: column 'l' has 0\.5; expected a label"),
        ([[1]], r"line 1: column 'l' has \[1\]; expected a label"),
        (float("nan"), "line 1: column 'l' has nan; expected a label"),
        (None, "line 1: the row has no label in column 'l'"),
    ]:
        path.write_text(json.dumps({"t": "a", "l": label}))
        with pytest.raises(DataError, match=message):
            read_labelled(path, "t", "l")
    path.write_text('{"t": null, "l": null}\n{"t": " ", "l": "a"}\n{"t": "b", "l": "a"}\n')
    assert read_labelled(path, "t", "l") == [("b", "a")]


def test_columns_by_number_where_there_is_no_header(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("Go.\tGeh!\tCC-BY\nRun!\tLauf!\tCC-BY\n")
    assert values(path, ["2", "1"]) == [["Geh!", "Go."], ["Lauf!", "Run!"]]
    assert next(read_columns(path, ["1"])) == (f"{path}, line 1", ["Go."])
    assert list(open_source(path, "1")) == ["Go.\n", "Run!\n"]
    path = tmp_path / "news.csv"
    path.write_text('3,"a\nb","c"\n4,d,e\n')
    assert read_labelled(path, "2", "1") == [("a\nb", "3"), ("d", "4")]
    for columns, message in [
        (["0"], "no column 0; its first line has 3 fields"),
        (["4", "1"], "no column 4; its first line has 3 fields"),
        (["1", "label"], "no column '1'; it has '3', 'a.nb', 'c'"),
    ]:
        with pytest.raises(DataError, match=message):
            values(path, columns)
        with pytest.raises(DataError, match=message):
            open_source(path, columns[0]) if len(columns) == 1 else values(path, columns)
    path.write_text("2,1\na,b\n")  # names that are numbers are names
    assert values(path, ["1"]) == [["b"]]


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("csv", b"text,label\na,x\n"),
        (None, b"text,label\na,x\n"),
        ("tsv", b"text\tlabel\na\tx\n"),
        ("jsonl", b'{"text": "a", "label": "x"}\n'),
    ],
)
def test_a_table_from_standard_input(monkeypatch, tmp_path, format, data):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pipe_in(monkeypatch, data)
    rows = list(read_columns("-", ["label", "text"], format=format))
    assert [fields for _, fields in rows] == [["x", "a"]]
    assert rows[0][0].startswith("standard input, line ")
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    pipe_in(monkeypatch, data)
    assert list(open_source("-", "text", format=format)) == ["a\n"]
    pipe_in(monkeypatch, data)
    if format is None:
        with pytest.raises(DataError, match=r"standard input has no name .* such as csv, tsv"):
            read_labelled("-", "text", "label")
        return
    assert read_labelled("-", "text", "label", format=format) == [("a", "x")]


def test_standard_input_without_columns_or_with_an_unknown_format(monkeypatch):
    pipe_in(monkeypatch, b"text,label\na,x\n")
    with pytest.raises(DataError, match="standard input is a table: say with --column"):
        read_labelled("-", format="csv")
    for read in (read_columns, read_labelled, open_source):
        with pytest.raises(DataError, match="format 'xls' is unknown; expected one of csv, tsv,"):
            list(read("-", ["a"] if read is read_columns else "a", format="xls"))


@pytest.mark.parametrize(
    ("name", "format", "kind"),
    [
        ("a.csv", "csv", "table"), ("a.TSV", "tsv", "table"), ("a.jsonl.gz", "jsonl", "table"),
        ("a.json", "jsonl", "table"), ("a.parquet", "parquet", "table"),
        ("a.arrow", "arrow", "table"), ("a.ts", "ts", "series"), ("a.ARFF.gz", "arff", "series"),
        ("a.npy", "npy", "series"), ("a.npz", "npz", "series"), ("a.conllu", "conllu", "tagged"),
        ("a.iob2", "columns", "tagged"), ("a.txt", None, "text"), ("csv", None, "text"),
        ("-", None, "text"),
    ],
)  # fmt: skip
def test_the_format_is_told_from_the_name(name, format, kind):
    assert format_of(name) == format
    assert kind_of(name) == kind
    assert is_table(name) == (kind == "table")


def test_a_format_that_is_named_wins():
    assert format_of("a.csv", "jsonl") == "jsonl"
    assert kind_of("-", "ts") == "series"
    assert is_table("-", "csv")


def test_series_and_tables_of_tabs_are_told_apart(tmp_path):
    path = tmp_path / "a.tsv"
    for text, format in [
        ("1\t0.5\t-1e3\n", "ucr"),
        ("-1\tNaN\n", "ucr"),
        ("1\ttext\n", "tsv"),
        ("text\tlabel\n1\t2\n", "tsv"),
        ("1\n", "tsv"),
        ("", "tsv"),
    ]:
        path.write_text(text)
        assert format_of(path) == format, text


def test_every_table_has_a_reader():
    assert {name for name, format in FORMATS.items() if format.kind == "table"} == set(_READERS)


def test_tables_without_a_column_are_refused_as_texts(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "id": 7}\n')
    with pytest.raises(DataError, match=r"a JSON lines file: say with --column .* 'text', 'id'"):
        open_source(path)
    (tmp_path / "a.json").write_text('{"a": 7}\n')  # which may be meant as a text
    assert "".join(open_source(tmp_path / "a.json")) == '{"a": 7}\n'
