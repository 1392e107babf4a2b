"""Pairs of texts: from two texts, from the columns of tables, and what is refused."""

import io
import json
from pathlib import Path

import pytest

from anaphora.data import DataError, read_lines, read_pairs

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "multi30k"
PAIRS = [("Go.", "Geh!"), ("so  much", "so\u00a0viel"), ("", "nichts")]


@pytest.fixture
def write(tmp_path):
    """A function that writes a file and returns its path."""

    def write(text, name):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_two_texts(write):
    one, other = write("a\n\nc\n", "one.txt"), write("x\ny\n\n", "other.de")
    assert read_pairs([one, other]) == [("a", "x"), ("", "y"), ("c", "")]


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.tsv", "".join(f"{a}\t{b}\n" for a, b in [("en", "de"), *PAIRS, ("", "")]), ()),
        ("a.tsv", "".join(f"{a}\t{b}\tCC\n" for a, b in PAIRS), ("1", "2")),
        ("a.csv", "".join(f"{b},{a},7\n" for a, b in [("source", "target"), *PAIRS]), ()),
        ("a.csv", "".join(f"7,{b},{a}\n" for a, b in [("x", "y"), *PAIRS]), ("x", "y")),
        ("a.jsonl", "\n".join(json.dumps({"source": a, "target": b}) for a, b in PAIRS), ()),
        (
            "a.jsonl",
            "\n".join(json.dumps({"id": 1, "translation": {"de": b, "en": a}}) for a, b in PAIRS),
            ("translation.en", "translation.de"),
        ),
    ],
)
def test_tables(write, name, text, columns):
    path = write(text, name)
    assert read_pairs([path], *columns) == PAIRS
    assert read_pairs([path, path], *columns) == PAIRS * 2


def test_line_ends_within_a_side_would_shift_pairs_and_become_spaces(write):
    path = write('en,de\n"two\nlines\n",x\n', "a.csv")
    assert read_pairs([path]) == [("two lines", "x")]


def test_a_table_from_standard_input(monkeypatch):
    for columns in (("de", "en"), ()):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"en\tde\nyes\tja\n")))
        if columns:
            assert read_pairs(["-"], *columns, format="tsv") == [("ja", "yes")]
        else:
            with pytest.raises(DataError, match="standard input is a table: say with --source-col"):
                read_pairs(["-"], format="tsv")


def test_what_is_refused(write):
    table, text = write("a\tb\tc\n1 \t2\t3\n", "a.tsv"), write("x\ny\n", "b.txt")
    with pytest.raises(DataError, match=r"say with --source-column .* it has 'a', 'b', 'c'"):
        read_pairs([table])
    with pytest.raises(DataError, match=r"say with --source-column .* it has 'a', 'b', 'c'"):
        read_pairs([table], "a")
    with pytest.raises(DataError, match="has no column 'd'"):
        read_pairs([table], "a", "d")
    with pytest.raises(DataError, match="both texts and tables were given; expected a source text"):
        read_pairs([table, text])
    for paths in ([], [text], [text] * 3):
        with pytest.raises(DataError, match=f"needs two files, .* {len(paths)} given"):
            read_pairs(paths)
    with pytest.raises(DataError, match=r"b\.txt has 2 lines, but .*c\.txt has 1; give files"):
        read_pairs([text, write("x\n", "c.txt")])
    with pytest.raises(DataError, match=r"d\.csv has no pair"):
        read_pairs([write("a,b\n,\n", "d.csv")])
    with pytest.raises(DataError, match=r"line 1: column 'source' has 7; expected a text"):
        read_pairs([write('{"source": 7, "target": "a"}', "e.jsonl")])


def test_multi30k_as_a_table_is_what_its_two_files_are(tmp_path):
    paths = [DATA / "val.de", DATA / "val.en"]
    if not paths[0].is_file():
        pytest.skip("needs multi30k in ../shared/data")
    pairs = read_pairs(paths)
    assert pairs == list(zip(*map(read_lines, paths), strict=True))
    table = tmp_path / "val.tsv"
    lines = [f"{a}\t{b}\n" for a, b in [("de", "en"), *pairs]]
    table.write_text("".join(lines), encoding="utf-8")
    assert read_pairs([table]) == [(a.strip(" "), b.strip(" ")) for a, b in pairs]
