"""Sources: what is read, in which chunks, and what is said about text that cannot be read."""

import gc
import gzip
import io
import os
import sys
import sysconfig
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anaphora.data import (
    DataError,
    Source,
    SourceFile,
    column_names,
    files,
    open_source,
    read_columns,
    read_lines,
    standard_library_source,
    stream_lines,
)
from anaphora.data import sources as module


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 16)


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def pipe_in(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_line_ends_and_byte_order_mark(tmp_path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\n\nfour \xe2\x98\x83")
    source = open_source(path)
    assert "".join(source) == "one\ntwo\nthree\n\nfour ☃"
    assert "".join(source) == "one\ntwo\nthree\n\nfour ☃", "a source can be read again"


def test_chunks_end_at_line_ends(tmp_path, small_blocks):
    text = "".join(f"line {n}\n" for n in range(50)) + "the last"
    chunks = list(open_source(write(tmp_path / "a.txt", text)))
    assert "".join(chunks) == text
    assert len(chunks) > 10
    assert all(chunk.endswith("\n") for chunk in chunks[:-1])


def test_a_very_long_line_is_cut_between_words(tmp_path, small_blocks):
    text = "one two  three four\tfive six seven eight nine ten eleven twelve thirteen " * 3
    text += "x" * 70
    chunks = list(open_source(write(tmp_path / "a.txt", text)))
    assert "".join(chunks) == text
    assert max(map(len, chunks)) <= 2 * module.BLOCK
    spaced = [chunk for chunk in chunks if chunk.startswith(" ")]
    assert len(spaced) > 5
    assert all(not chunk[1].isspace() for chunk in spaced)


@given(st.text(alphabet="ab \n\r☃", max_size=80))
def test_chunks_joined_are_the_text(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("text") / "a.txt", text + "!")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", 8)
        read = "".join(open_source(path))
    assert read == (text + "!").replace("\r\n", "\n").replace("\r", "\n")


def test_several_files_keep_their_lines_apart(tmp_path):
    files = [("b", "one"), ("a", "two\n"), ("c", "3")]
    paths = [write(tmp_path / name, text) for name, text in files]
    assert "".join(open_source(paths)) == "one\ntwo\n3"
    assert open_source(paths).name == "3 files"


def test_folder_is_recursive_sorted_and_leaves_empty_files_out(tmp_path):
    write(tmp_path / "z.txt", "z\n")
    write(tmp_path / "b" / "c" / "1.txt", "1\n")
    write(tmp_path / "b" / "2.txt", "2\n")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "notes.md", "# notes\n")
    assert "".join(open_source(tmp_path)) == "2\n1\nz\n"
    assert "".join(open_source(str(tmp_path), pattern="*.md")) == "# notes\n"


def test_folder_without_a_match(tmp_path):
    write(tmp_path / "notes.md", "# notes\n")
    with pytest.raises(DataError, match=r"matches '\*\.txt' \(files there: 1, first notes\.md\)"):
        open_source(tmp_path)
    folder = tmp_path / "nothing"
    folder.mkdir()
    with pytest.raises(DataError, match="it is empty"):
        open_source(folder)
    write(tmp_path / "empty.txt", "")
    with pytest.raises(DataError, match=r"every file .* is empty"):
        open_source(tmp_path)


def test_hidden_files_and_folders_are_left_out(tmp_path):
    folder = (
        tmp_path / ".home" / "texts"
    )  # what lies above the folder that was given is of no matter
    write(folder / "a.txt", "a\n")
    hidden = ["._a.txt", ".ipynb_checkpoints/a.txt", "b/.c/d/a.txt"]
    for name in hidden:
        write(folder / name, f"{name}\n")
    assert "".join(open_source(folder)) == "a\n"
    assert "".join(open_source(folder / hidden[0])) == "._a.txt\n", "it was asked for"
    (folder / "a.txt").unlink()
    with pytest.raises(
        DataError, match=r"it is empty, not counting 3 whose names or folders begin with a dot"
    ):
        open_source(folder)
    write(folder / "a.md", "a\n")
    with pytest.raises(DataError, match=r"files there: 1, first a\.md, not counting 3 whose names"):
        open_source(folder)


def test_compressed_files_of_a_folder_are_found_by_the_names_that_they_had(tmp_path):
    write(tmp_path / "a.txt.gz", gzip.compress(b"a\n"))
    write(tmp_path / "b.TXT.GZ", gzip.compress(b"B\n"))
    write(tmp_path / "b.txt", b"b\n")
    write(tmp_path / "c.md.gz", gzip.compress(b"c\n"))
    assert "".join(open_source(tmp_path)) == "a\nb\n"
    assert "".join(open_source(tmp_path, pattern="*.md*")) == "c\n"
    write(tmp_path / "b.txt.gz", gzip.compress(b"b\n"))
    with pytest.raises(DataError, match=r"has both b\.txt and b\.txt\.gz; remove one of them"):
        open_source(tmp_path)


def test_missing_empty_and_no_path(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt does not exist; the current folder is"):
        open_source(tmp_path / "gone.txt")
    with pytest.raises(DataError, match=r"empty\.txt is empty"):
        open_source(write(tmp_path / "empty.txt", ""))
    with pytest.raises(DataError, match="no text was given"):
        open_source([])
    only_mark = open_source(write(tmp_path / "mark.txt", b"\xef\xbb\xbf"))
    with pytest.raises(DataError, match=r"mark\.txt holds no text"):
        list(only_mark)


def test_a_file_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "a.txt", "a")
    source = open_source(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.txt cannot be read: No such file"):
        list(source)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(Source([SourceFile(tmp_path, "folder")]))


CSV = (
    'id,body\r\n1,"two\r\nlines, and a ""quote"""\r\n\r\n'
    '2,\r\n3,plain\r\n4,"ends\n"\r\n5,\u2028sep\r\n'
)


def test_csv_column(tmp_path):
    path = write(tmp_path / "a.csv", CSV)
    rows = ['two\nlines, and a "quote"\n', "plain\n", "ends\n", "\u2028sep\n"]
    source = open_source(path, column="body")
    assert list(source) == rows
    assert list(source) == rows
    assert list(open_source(path, column="id")) == ["1\n", "2\n", "3\n", "4\n", "5\n"]


def test_csv_long_field(tmp_path):
    long = "word " * 100_000
    path = write(tmp_path / "a.csv", f'body\n"{long}"\n')
    assert list(open_source(path, column="body")) == [long + "\n"]


def test_csv_messages(tmp_path):
    path = write(tmp_path / "a.CSV", CSV)
    with pytest.raises(DataError, match=r"CSV file: say with --column .* it has 'id', 'body'"):
        open_source(path)
    with pytest.raises(DataError, match=r"has no column 'text'; it has 'id', 'body'"):
        open_source(path, column="text")
    short = open_source(write(tmp_path / "short.csv", "id,body\n1,a\n2\n"), column="body")
    with pytest.raises(
        DataError, match=r"short\.csv, line 3: the row has too few fields \(1\) for column"
    ):
        list(short)
    header_only = open_source(write(tmp_path / "header.csv", "body\n"), column="body")
    with pytest.raises(DataError, match=r"header\.csv holds no text in column 'body'"):
        list(header_only)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Nothing closes the quote: line 3 is where the field begins, not the row.
        (
            'id,body\n1,a\n2,"b\n3,c\n',
            "line 3: a field begins with a quote that is never closed",
        ),
        ('id,body\n"1\n\n2",\n"3\n4","b\n5,c', "line 6: a field begins with a quote"),
        # A quote of a later row closes it.
        (
            'id,body\n1,a\n2,"b\n3,c\n4,"d, e"\n',
            "line 5: a quote closes the field that began in line 3, but 'd' follows it",
        ),
        (
            'id,body\n1,5" disk\n2,"a" b\n',
            "line 3: a quote closes .* in line 3, but ' ' follows it",
        ),
        # More fields than columns.
        (
            "id,body\n1,a\n2,b, c\n",
            "line 3: the row has 3 fields, but the header has 2; .* put quotes",
        ),
        ('id,body\n1,"b\n2,"", c\n3","d\n",e\n', "line 2: the row has 4 fields"),
        ('"id,body\n1,a\n', "line 1: a field begins with a quote"),
        ("body,id,body\na,1,b\n", "has the column 'body' more than once, as columns 1 and 3"),
    ],
)
def test_csv_rows_that_are_not_what_they_seem(tmp_path, text, message):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=rf"a\.csv,? {message}"):
        list(open_source(path, column="body"))


def test_csv_quotes_inside_a_text_and_short_rows(tmp_path):
    path = write(tmp_path / "a.csv", 'body,id,note,note\n5" disk,1\n"""a"" b",2,x\n')
    assert list(open_source(path, column="body")) == ['5" disk\n', '"a" b\n']
    rows = list(read_columns(write(tmp_path / "b.csv", 'id,body\n1,"a\nb"\n2,c\n'), ["body"]))
    assert rows == [(f"{tmp_path}/b.csv, line 2", ["a\nb"]), (f"{tmp_path}/b.csv, line 4", ["c"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id\tbody\tlabel\n1\t"a\nb"\tx\n', "line 2: the last field begins with a quote"),
        ('id\tbody\n1\ta\n2\t"b\nc"\n', "line 3: the last field begins with a quote"),
        ('id\tbody\n1\t"a\tb"\n', "line 2: the row has 3 fields, .* remove tabs from it"),
        ("body\tbody\na\tb\n", "has the column 'body' more than once, as columns 1 and 2"),
    ],
)
def test_tsv_rows_that_were_written_with_quotes(tmp_path, text, message):
    path = write(tmp_path / "a.tsv", text)
    with pytest.raises(DataError, match=rf"a\.tsv,? {message}"):
        list(open_source(path, column="body"))


def test_tsv_quotes_are_ordinary(tmp_path):
    path = write(tmp_path / "a.tsv", 'id\tbody\n1\t"Well\n2\t" she said\n3\t"so"\n')
    assert list(open_source(path, column="body")) == ['"Well\n', '" she said\n', '"so"\n']


def test_standard_input_is_spooled_and_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    pipe_in(monkeypatch, b"one\r\ntwo")
    source = open_source("-")
    assert source.name == "standard input"
    assert "".join(source) == "one\ntwo"
    assert "".join(source) == "one\ntwo"
    assert len(list(tmp_path.iterdir())) == 1
    del source
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_standard_input_that_is_compressed(monkeypatch):
    pipe_in(monkeypatch, gzip.compress("déjà\n".encode("cp1252")))
    assert list(open_source("-", encoding="cp1252")) == ["déjà\n"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_compressed_table_with_an_encoding(tmp_path, suffix):
    separator = {".csv": ",", ".tsv": "\t"}[suffix]
    text = f"id{separator}body\n1{separator}„déjà“\n"
    path = write(tmp_path / f"a{suffix}.gz", gzip.compress(text.encode("utf-16-le")))
    assert list(open_source(path, "body", encoding="utf-16-le")) == ["„déjà“\n"]
    assert column_names(path, "utf-16") == ["id", "body"]
    rows = list(read_columns(path, ["body"], "utf-16"))
    assert rows == [(f"{path}, line 2", ["„déjà“"])]
    if suffix == ".csv":
        with pytest.raises(DataError, match=r"a\.csv\.gz is a CSV file: say with --column"):
            open_source(path, encoding="utf-16")


def test_standard_input_as_csv(monkeypatch):
    pipe_in(monkeypatch, CSV.encode())
    assert next(iter(open_source(["-"], column="body"))).startswith("two\n")


def test_standard_input_messages(monkeypatch, tmp_path):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    with pytest.raises(DataError, match="more than once"):
        open_source(["-", "-"])
    pipe_in(monkeypatch, b"")
    with pytest.raises(DataError, match="standard input is empty"):
        open_source("-")
    pipe_in(monkeypatch, b"text")
    with pytest.raises(DataError, match="does not exist"):
        open_source(["-", tmp_path / "gone.txt"])
    assert list((tmp_path / "spool").iterdir()) == [], "nothing is left"
    pipe_in(monkeypatch, b"\xff")
    with pytest.raises(
        DataError, match=r"standard input is not valid UTF-8: byte 0xFF at offset 0"
    ):
        list(open_source("-"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_spooled(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"once only\n",))
    writer.start()
    source = open_source(pipe)
    writer.join()
    assert [list(source), list(source)] == [["once only\n"]] * 2


def test_memory_stays_bounded_on_one_line(tmp_path):
    path = tmp_path / "line.txt"
    with path.open("w") as file:
        for _ in range(200):
            file.write("word " * 10_000)
    source = open_source(path)
    tracemalloc.start()
    length = sum(map(len, source))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length == 10_000_000
    assert peak < 4e6


def test_standard_library():
    train, valid = standard_library_source()
    names = [file.name for file in train.files], [file.name for file in valid.files]
    again = standard_library_source()
    assert names == tuple([file.name for file in source.files] for source in again)
    assert not set(names[0]) & set(names[1])
    assert "abc.py" in names[0] + names[1]
    assert "json/decoder.py" in names[0] + names[1]
    assert not any(name.startswith(("test/", "site-packages/")) for name in names[0] + names[1])
    train_size, valid_size = sum(map(len, train)), sum(map(len, valid))
    assert 3e6 < train_size < 9e6
    assert 0.01 < valid_size / train_size < 0.2


def test_standard_library_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"is not in .* \(0 files found\); name a text file"):
        standard_library_source()


def test_standard_library_skips_what_is_not_text(monkeypatch, tmp_path):
    for n in range(40):
        write(tmp_path / f"m{n:02}.py", f"# {n}\n")
    write(tmp_path / "latin.py", b"# \xe9\n")
    write(tmp_path / "empty.py", b"")
    write(tmp_path / "._m00.py", "# Finder\n")
    write(tmp_path / "_sysconfigdata_x.py", "build = 1\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    train, valid = standard_library_source()
    assert [file.name for file in valid.files] == ["m19.py", "m39.py"]
    assert len(train.files) == 38


def test_lines_of_a_pipe_come_before_it_ends():
    reading, writing = os.pipe()
    lines = stream_lines(f"/dev/fd/{reading}")
    try:
        os.write(writing, "\ufeffone\r\ntw\u2028o\x0c\n\nli".encode())
        assert [next(lines) for _ in range(3)] == ["one", "tw\u2028o\x0c", ""]
    finally:
        os.close(writing)
    assert list(lines) == ["li"]
    os.close(reading)


@given(st.text(alphabet="ab\n\x85\u2028", min_size=1, max_size=20))
def test_streamed_lines_are_those_that_are_read_at_once(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "streamed.txt"
    path.write_text(text, encoding="utf-8")
    assert list(stream_lines(path)) == read_lines(path)


def test_a_pipe_has_an_encoding_and_may_be_compressed(tmp_path):
    """What `stream_lines` reads as it comes is what it reads from a file."""
    text = "déjà\n\nvu “€”"
    for data, encoding, lines in [
        (text.encode(), "utf-8", text.split("\n")),
        (text.encode("utf-8-sig"), "utf-8", text.split("\n")),
        (text.encode("cp1252"), "cp1252", text.split("\n")),
        (gzip.compress(text.encode("cp1252")), "cp1252", text.split("\n")),
        (text.encode("utf-16"), "utf-16", text.split("\n")),
    ]:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        assert list(stream_lines(pipe, encoding)) == lines
        writer.join()
        pipe.unlink()
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=("a b c\n".encode("utf-16-le"),))
    writer.start()
    with pytest.raises(DataError, match=r"pipe is UTF-16-LE .* not utf-8; give --encoding utf-16"):
        list(stream_lines(pipe))
    writer.join()


def test_a_carriage_return_within_a_line_is_refused_where_lines_count(tmp_path):
    path = tmp_path / "mixed.txt"
    path.write_bytes(b"one\ntw\ro\nthree\n")
    message = r"mixed.txt has carriage returns \(.r\) within lines"
    for read in (read_lines, lambda path: list(stream_lines(path))):
        with pytest.raises(DataError, match=message):
            read(path)
    path.rename(tmp_path / "mixed.csv")
    with pytest.raises(DataError, match=r"mixed.csv has carriage returns"):
        list(read_columns(tmp_path / "mixed.csv", ["one"]))
    path.write_bytes(b"one\rtwo\r")  # as on old computers
    assert read_lines(path) == list(stream_lines(path)) == ["one", "two"]
    assert "".join(open_source(path)) == "one\ntwo\n"
    path.write_bytes(b"one\r\ntw\ro\n")  # a text as a whole has no lines to count
    assert "".join(open_source(path)) == "one\ntw\no\n"


@pytest.mark.parametrize("data", ["日本語".encode("utf-16-le"), "日本語".encode("utf-16-be")])
def test_utf_16_without_a_mark_is_reported(tmp_path, data):
    path = tmp_path / "text.txt"
    path.write_bytes(data * 9)
    with pytest.raises(DataError, match=r"text.txt is not valid utf-16: .* give --encoding with t"):
        "".join(open_source(path, encoding="utf-16"))
    with pytest.raises(DataError, match="encoding 'idna' is unknown to Python"):
        open_source(path, encoding="idna")


# Pieces


@given(
    st.lists(st.text("aé \n\r", min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(1, 6),
    st.sampled_from(["utf-8", "cp1252"]),
    st.booleans(),
)
def test_pieces_are_the_text_and_begin_lines(tmp_path_factory, texts, count, encoding, mark):
    folder = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(texts):
        data = text.encode(encoding)
        write(folder / f"{number}.txt", b"\xef\xbb\xbf" * (mark and encoding == "utf-8") + data)
    source = open_source(folder, encoding=encoding)
    pieces = ["".join(piece) for piece in source.pieces(count)]
    assert "".join(pieces) == "".join(source)
    assert len(pieces) <= count
    assert all(piece.endswith("\n") for piece in pieces[:-1])
    size = sum(len(piece) for piece in pieces)
    if count > 1 and len(texts) == 1 and set(texts[0][::2]) == {"\n"} and size > 2 * count:
        assert len(pieces) == count


def test_pieces_have_similar_sizes(tmp_path):
    lines = [f"line {number}\n" for number in range(3000)]
    write(tmp_path / "a.txt", "".join(lines[:1000]))
    write(tmp_path / "b.txt", "".join(lines[1000:]))
    source = open_source(tmp_path)
    pieces = ["".join(piece) for piece in source.pieces(4)]
    assert "".join(pieces) == "".join(lines)
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) < 40


def test_pieces_of_tables_are_files(tmp_path):
    for number in range(5):
        rows = [f"{number}{k},x\n" for k in range(40)] if number != 3 else [",x\n"] * 40
        write(tmp_path / f"{number}.csv", "text,other\n" + "".join(rows))
    paths = sorted(tmp_path.glob("*.csv"))
    source = open_source(paths, "text")
    pieces = source.pieces(3)
    assert sum((piece.files for piece in pieces), ()) == source.files
    assert 1 < len(pieces) <= 3
    assert "".join(map("".join, pieces)) == "".join(source)
    alone = open_source(paths[2:4], "text").pieces(2)
    assert ["".join(piece) != "" for piece in alone] == [True, False]  # one has no text


@pytest.mark.parametrize("kind", ["gzip", "utf-16", "pipe"])
def test_what_cannot_be_cut_is_one_piece(tmp_path, monkeypatch, kind):
    text = "one\ntwo\n" * 20
    path, encoding = tmp_path / "a.txt", "utf-8"
    if kind == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    elif kind == "utf-16":
        path.write_text(text, encoding="utf-16")
        encoding = "utf-16"
    else:
        pipe_in(monkeypatch, text.encode())
        path = "-"
    source = open_source(path, encoding=encoding)
    assert source.pieces(3) == [source]


def test_a_piece_that_cannot_be_decoded_is_located_in_the_file(tmp_path):
    path = write(tmp_path / "a.txt", b"one\n" * 100 + b"\xff\n" + b"two\n" * 100)
    source = open_source(path)
    with pytest.raises(DataError) as whole:
        list(source)
    with pytest.raises(DataError, match="byte 0xFF at offset 400") as of_piece:
        [list(piece) for piece in source.pieces(7)]
    assert str(of_piece.value) == str(whole.value)
