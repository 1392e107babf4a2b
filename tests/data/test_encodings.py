"""Encodings and compression: what is read, what is recognised, and what is advised."""

import bz2
import codecs
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anaphora.data import DataError, open_source, read_conllu, read_labelled, read_lines
from anaphora.data.encodings import check_encoding, open_text

RUSSIAN = "Все счастливые семьи похожи друг на друга,\r\nкаждая несчастливая семья\n" * 3
CHINESE = "道可道，非常道。\n名可名，非常名。\n" * 3
GERMAN = "„Schöne Größe“ – für 5 €\n"


@pytest.fixture
def write(tmp_path):
    """A function that writes a file and returns its path."""

    def write(data, name="old text.txt"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def read(path, encoding="utf-8"):
    return "".join(open_source(path, encoding=encoding))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        *[(f"utf-{width}{order}", RUSSIAN) for width in (16, 32) for order in ("", "-le", "-be")],
        ("utf-8-sig", RUSSIAN),
        ("UTF8", CHINESE),
        ("cp1252", GERMAN),
        ("windows-1252", GERMAN),
        ("Latin-1", "Größe\n"),
        ("cp1251", RUSSIAN),
        ("koi8-r", RUSSIAN),
        ("gb18030", CHINESE),
        ("big5", "道可道\n"),
        ("iso2022_jp", "吾輩は猫である\n"),
        ("shift_jis", "吾輩は猫である\n"),
        ("cp500", "EBCDIC\n"),
    ],
)
def test_text_of_an_encoding(write, encoding, text):
    data = text.encode(encoding)
    expected = text.replace("\r\n", "\n")
    assert read(write(data), encoding) == expected
    assert read(write(gzip.compress(data)), encoding) == expected, "told from its bytes"


@pytest.mark.parametrize("text", ["plain\n", GERMAN, RUSSIAN, CHINESE])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("marked", [True, False])
def test_the_order_of_bytes_is_told_from_the_text(write, encoding, text, marked):
    """With a mark or without, whichever of the family is named; another encoding is refused."""
    family = encoding[:6]
    path = write((("\ufeff" if marked else "") + text).encode(encoding))
    for name in (family, family + "-le", family + "-be"):
        assert read(path, name) == text.replace("\r\n", "\n")
    for name in ("utf-8", "cp1252", "gb18030"):
        sign = "it begins with that byte order mark" if marked else "as its zero bytes show"
        advice = family if marked else encoding
        with pytest.raises(DataError) as caught:
            read(path, name)
        assert str(caught.value) == (
            f"{path} is {advice.upper()} ({sign}), not {name}; give --encoding {advice}"
        )


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\ufeff"), min_size=1))
def test_no_text_of_utf8_is_taken_for_another(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode())
    assert read(path) == text
    path.write_bytes(codecs.BOM_UTF8 + text.encode())
    assert read(path) == text


def test_utf16_that_was_cut_inside_a_character(write):
    path = write(RUSSIAN.encode("utf-16-le")[:-1])
    with pytest.raises(DataError, match=r"is UTF-16-LE \(as its zero bytes show\), not utf-8"):
        read(path)
    with pytest.raises(
        DataError, match=r"not valid utf-16-le: byte 0x0A at offset \d+; give its encoding"
    ):
        read(path, "utf-16-le")


def test_a_zero_character_here_and_there_is_no_utf16(write):
    text = "some text\0 and more of it, " * 20
    assert read(write(text.encode())) == text
    assert read(write(b"a\0b")) == "a\0b"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9 au", "0xE9 at offset 3. For a Western European language, give --encoding l"),
        (b"caf\xe9 \x93au lait\x94", "0xE9 at offset 3. For .* give --encoding cp1252; otherwise"),
        (b"a\xe9" + b"b" * 20_000 + b"\x80", "0xE9 at offset 1. For .* give --encoding cp1252;"),
        (b"\xe9" * 2 + b"b" * 20_000, "0xE9 at offset 0. For .* give --encoding latin-1;"),
        (b"x" * 20_000 + b"\xe2\x98\x83\xff", "0xFF at offset 20,003, after text that is valid"),
        (b"\xe2\x98\x83" + b"x" * 20_000 + b"\xff", "0xFF at offset 20,003, after text that is"),
        (b"\xef\xbb\xbf\xc3\xa9 cut short \xe2\x98", "0xE2 at offset 16, after text that is valid"),
    ],
)  # fmt: skip
def test_text_that_is_not_utf8(write, data, message):
    for path in (write(data), write(gzip.compress(data), "a.gz")):
        with pytest.raises(DataError, match=rf"{path} is not valid UTF-8: byte {message}"):
            read(path)


def test_invalid_bytes_across_a_read_of_the_search(write):
    cut = io.DEFAULT_BUFFER_SIZE
    path = write(b"a" * (cut - 1) + "é".encode() + b"b" * cut + b"\xc3(")
    with pytest.raises(DataError, match=f"byte 0xC3 at offset {2 * cut + 1:,}"):
        read(path)


def test_text_that_is_not_of_the_encoding_that_was_named(write):
    for encoding in ("cp1252", "latin-1", "koi8-r", "cp1251"):
        with pytest.raises(DataError, match=f"is UTF-8, not {encoding}; give --encoding utf-8"):
            read(write(GERMAN.encode()), encoding)
        assert read(write(b"plain\n"), encoding) == "plain\n"
    with pytest.raises(
        DataError, match=r"not valid shift_jis: byte 0x85 at offset 1; give its encoding"
    ):
        read(write(b"a\x85\x01"), "shift_jis")
    with pytest.raises(
        DataError, match="not valid ascii: byte 0xE9 at offset 1; give its encoding"
    ):
        read(write(b"a\xe9"), "ascii")


@pytest.mark.parametrize("name", ["utf-9", "", "hex", "rot13", "undefined", "a\0b"])
def test_encodings_that_there_are_none_of(write, name):
    with pytest.raises(DataError, match="is unknown to Python; expected a name such as utf-8"):
        open_source(write(b"text"), encoding=name)
    with pytest.raises(DataError, match="is unknown to Python"):
        check_encoding(name)


def test_members_of_gzip_follow_each_other(write):
    assert read(write(gzip.compress(b"one\ntw") + gzip.compress(b"o\n"))) == "one\ntwo\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-9], "truncated; copy or download it again"),
        (lambda data: data[:3], "truncated"),
        (lambda data: data[:-8] + bytes(8), r"damaged \(CRC check failed.*; copy or download"),
        (lambda data: data[:12] + b"\xff\xff\xff" + data[15:], "damaged"),
        (lambda data: data + b"more", r"damaged \(Not a gzipped file"),
    ],
)
def test_gzip_that_is_damaged(write, change, message):
    data = change(gzip.compress(b"".join(b"%d\n" % n for n in range(3000))))
    with pytest.raises(DataError, match=rf"a\.txt\.gz is compressed with gzip, but {message}"):
        read(write(data, "a.txt.gz"))


def test_gzip_of_nothing(write):
    with pytest.raises(DataError, match="holds no text: there is nothing to read"):
        read(write(gzip.compress(b"")))


def test_archives_and_other_compression(write):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for n in range(6):
            archive.writestr(f"{n}.txt", "text")
    with pytest.raises(DataError) as caught:
        read(write(buffer.getvalue()))
    assert "is a zip archive (as are office documents, such as .docx" in str(caught.value)
    assert str(caught.value).endswith(
        "not text; unpack it, and give the files in it; it contains 0.txt, 1.txt, 2.txt, "
        "3.txt, 4.txt, ..."
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    with pytest.raises(
        DataError, match="is a tar archive, not text; unpack it, and give the files"
    ):
        read(write(buffer.getvalue()))
    for compress, name in [(bz2.compress, "bzip2"), (lzma.compress, "xz")]:
        with pytest.raises(DataError, match=f"is a file compressed with {name}, not text; unpack"):
            read(write(compress(b"text")))
    assert read(write(b"PK, BZh and 7z\n")) == "PK, BZh and 7z\n"


def test_reading_on_after_an_error_of_the_reader(write):
    """What goes wrong while a file is open, but not with it, is not taken for its fault."""
    with pytest.raises(EOFError, match="mine"), open_text(write(b"a"), "a"):
        raise EOFError("mine")


def test_every_reader_takes_an_encoding_and_compressed_files(write, tmp_path):
    write(gzip.compress("groß\n".encode("cp1252")), "a.txt.gz")
    write("kühl\n".encode("cp1252"), "b.txt")
    write(b"x\n", "._b.txt")
    assert read_labelled(tmp_path, encoding="cp1252") == [("groß", "a"), ("kühl", "b")]
    assert read_lines(tmp_path / "a.txt.gz", "cp1252") == ["groß"]
    for name in ("a.txt.gz", "b.txt", "._b.txt"):
        (tmp_path / name).unlink()
    write(b"x\n", ".a.txt")
    with pytest.raises(DataError, match=r"no \.txt file \(it is empty, not counting 1 whose names"):
        read_labelled(tmp_path)
    write(gzip.compress("text,label\ngroß,gut\n".encode("cp1252")), "a.csv.gz")
    assert read_labelled(tmp_path / "a.csv.gz", "text", "label", "cp1252") == [("groß", "gut")]
    with pytest.raises(DataError, match=r"is a table: say with .* it has 'text', 'label'"):
        read_labelled(tmp_path / "a.csv.gz", encoding="cp1252")
    words = "1\tgroß\t_\tADJ\n".encode("cp1252")
    write(gzip.compress(words), "a.conllu.gz")
    write(b"1\tx\t_\tX\n", ".b.conllu")
    assert read_conllu(tmp_path, encoding="cp1252") == [(["groß"], ["ADJ"])]
