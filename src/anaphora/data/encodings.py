"""Opening files as bytes and as text: compression, encodings, and what is wrong with them."""

import codecs
import contextlib
import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from io import DEFAULT_BUFFER_SIZE, BufferedReader, BytesIO, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from anaphora.data.errors import DataError

__all__ = ["check_encoding", "has_plain_lines", "open_bytes", "open_text", "uncompressed_name"]

GZIP = b"\x1f\x8b"

# Archives, and compressed files that are not supported, by how they begin.
ARCHIVES = {
    "zip archive": rb"PK\x03\x04",
    "tar archive": rb".{257}ustar",
    "file compressed with bzip2": rb"BZh[1-9]1AY&SY",
    "file compressed with xz": rb"\xfd7zXZ\x00",
    "file compressed with zstd": rb"\x28\xb5\x2f\xfd",
}
NAMED = 5  # members of an archive that a message lists

# Byte order marks, and the codecs that remove them. UTF-32's mark begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UNICODE = ("utf-8", "utf-16", "utf-32")  # families of codecs

NOT_LEADING = bytes(range(0xC0))  # bytes with which no character beyond ASCII begins in UTF-8

SAMPLE = 1 << 16  # bytes from which an encoding is detected


def check_encoding(encoding: str) -> str:
    """Return Python's name of a text encoding.

    Raises:
        DataError: Python has no encoding of that name.

    >>> check_encoding("Latin-1")
    'iso8859-1'
    """
    try:
        "a".encode(encoding)  # refuses codecs that are not for text, such as hex
        b"a".decode(encoding, "replace")  # and those of internet names
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise DataError(
            f"encoding {encoding!r} is unknown to Python; expected a name such as utf-8, "
            "utf-16, cp1252, latin-1, shift_jis or gb18030"
        ) from error


def uncompressed_name(path: str | os.PathLike[str]) -> str:
    """The name of a file without a final ``.gz``.

    >>> uncompressed_name("reviews.csv.gz"), uncompressed_name("reviews.csv")
    ('reviews.csv', 'reviews.csv')
    """
    name = os.fspath(path)
    return name[:-3] if name.lower().endswith(".gz") else name


@contextlib.contextmanager
def open_bytes(path: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file to read its bytes; one compressed with gzip is decompressed.

    Args:
        path: The file. Compression is recognized by its bytes, not by its name.
        name: Its name in messages.

    Raises:
        DataError: the file cannot be read, or is compressed and damaged or truncated.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "text.gz")
    ...     _ = path.write_bytes(gzip.compress(b"so much depends"))
    ...     with open_bytes(path, "the poem") as stream:
    ...         stream.read()
    b'so much depends'
    """
    compressed = False
    try:
        with path.open("rb") as file:
            compressed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file
    except EOFError as error:
        if not compressed:
            raise
        raise DataError(
            f"{name} is compressed with gzip, but truncated; copy or download it again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{name} is compressed with gzip, but damaged ({error}); copy or download it again"
        ) from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def open_text(
    path: Path, name: str, encoding: str = "utf-8", span: tuple[int, int] | None = None
) -> Iterator[TextIO]:
    r"""Open a file to read its text, without a byte order mark; line ends become ``\n``.

    Args:
        path: The file; it may be compressed with gzip.
        name: Its name in messages.
        encoding: The encoding of the text.
        span: The bytes between which to read, of a file that `has_plain_lines`; None for all.

    Raises:
        DataError: as for `open_bytes` and `check_encoding`; the text has another encoding, or
            the file is not text, such as an archive.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "text.txt")
    ...     _ = path.write_bytes("déjà".encode("cp1252"))
    ...     with open_text(path, "the text", "cp1252") as stream:
    ...         stream.read()
    'déjà'
    """
    with open_bytes(path, name) as stream:
        sample = stream.read(SAMPLE)
        stream.seek(0)
        _refuse_archives(path, name, sample)
        codec = codec_of(name, sample, encoding)
        enough = _enough_utf8(codec, sample)
        if enough is not None and _is_utf8(stream, enough):
            raise DataError(f"{name} is UTF-8, not {encoding}; give --encoding utf-8")
        stream.seek(0)
        raw = stream if span is None else cast(BinaryIO, BufferedReader(_Span(stream, *span)))
        if span is not None and span[0] > 0:
            codec = codec.removesuffix("-sig")  # there is no byte order mark
        try:
            with TextIOWrapper(raw, encoding=codec) as text:
                yield text
            return
        except UnicodeDecodeError as error:
            mistake = error
        except UnicodeError as error:  # of UTF-16 and UTF-32
            raise DataError(f"{name} is not valid {encoding}: {error}{_ORDERS}") from error
    raise DataError(_explain(path, name, encoding, codec)) from mistake


class _Span(RawIOBase):
    """The bytes of a stream from `start` to `end`."""

    def __init__(self, stream: BinaryIO, start: int, end: int) -> None:
        self._stream, self._left = stream, end - start
        stream.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def has_plain_lines(path: Path, encoding: str) -> bool:
    """Whether each byte 10 of a file ends a line, so that it can be read from any line end on: it
    is not compressed, and in UTF-8 or an encoding with one byte for each character.

    >>> has_plain_lines(Path(__file__), "utf-8"), has_plain_lines(Path(__file__), "utf-16")
    (True, False)
    """
    with path.open("rb") as file:
        if file.read(len(GZIP)) == GZIP:
            return False
    codec = check_encoding(encoding)
    if codec in ("utf-8", "ascii"):
        return True
    characters = bytes(range(256)).decode(codec, "replace")
    return len(characters) == 256 and characters[10] == "\n"


_ORDERS = "; without a byte order mark give --encoding with the order, such as utf-16-le"


def codec_of_pipe(name: str, sample: bytes, encoding: str) -> str:
    """The codec of a text that arrives through a pipe, by its beginning.

    Raises:
        DataError: the text seems to have another encoding, or is not text, such as an archive.
    """
    _refuse_archives(Path(), name, sample)
    codec = codec_of(name, sample, encoding)
    lines = sample[: sample.rfind(b"\n") + 1] or sample
    enough = _enough_utf8(codec, lines)
    if enough is not None and _is_utf8(BytesIO(lines), enough):
        raise DataError(f"{name} is UTF-8, not {encoding}; give --encoding utf-8")
    return codec


def _refuse_archives(path: Path, name: str, sample: bytes) -> None:
    for kind, beginning in ARCHIVES.items():
        if not re.match(beginning, sample, re.DOTALL):
            continue
        held = ""
        if kind.startswith("zip"):
            kind += " (as are office documents, such as .docx and .xlsx)"
            with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
                members = archive.namelist()
                more = ", ..." if len(members) > NAMED else ""
                held = f"; it contains {', '.join(members[:NAMED])}{more}"
        raise DataError(f"{name} is a {kind}, not text; unpack it, and give the files in it{held}")


def codec_of(name: str, sample: bytes, encoding: str) -> str:
    """The codec that decodes a text: the requested one, with byte order mark and byte order."""
    requested = check_encoding(encoding)
    found = next((codec for mark, codec in MARKS if sample.startswith(mark)), None)
    sign = "it begins with that byte order mark"
    if found is None:
        found, sign = _wide_codec(sample), "as its zero bytes show"
    if found is None:
        return "utf-8-sig" if requested == "utf-8" else requested
    if _family(found) == _family(requested):
        return found
    advice = found.removesuffix("-sig")
    raise DataError(
        f"{name} is {advice.upper()} ({sign}), not {encoding}; give --encoding {advice}"
    )


def _wide_codec(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: most characters have a zero byte at the same place.

    In every language ASCII characters have it, at least line ends and spaces.
    """
    if sample.count(0) <= len(sample) % 2:  # in an odd number of bytes, one zero proves nothing
        return None
    zeros = [sample[place::4].count(0) / len(sample[place::4] or b"0") for place in range(4)]
    if len(sample) % 4 == 0:
        if zeros[3] == 1 and zeros[2] > 0.9:
            return "utf-32-le"
        if zeros[0] == 1 and zeros[1] > 0.9:
            return "utf-32-be"
    first, second = zeros[0] + zeros[2], zeros[1] + zeros[3]
    if max(first, second) < 0.02 or min(first, second) > 0.1 * max(first, second):
        return None
    return "utf-16-be" if first > second else "utf-16-le"


def _family(codec: str) -> str:
    return next((family for family in UNICODE if codec.startswith(family)), codec)


def _enough_utf8(codec: str, sample: bytes) -> int | None:
    """How many non-ASCII characters prove that a text is UTF-8, if `codec` would decode it too, to
    other text; None if no check is needed.

    One is enough where each byte is a character, as in cp1252: its letters would have to come in
    pairs, of two ranges, and never alone. In multibyte encodings some characters may look like
    UTF-8. UTF-16 without any zero byte has neither spaces nor line ends.
    """
    family = _family(codec)
    if family == "utf-8":
        return None
    if family in UNICODE:
        return None if b"\0" in sample else 0
    return 1 if len(bytes(range(256)).decode(codec, "replace")) == 256 else 8


def _is_utf8(stream: BinaryIO, enough: int) -> bool:
    """Whether a stream is UTF-8, with at least `enough` characters beyond ASCII."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    found = 0
    try:
        while block := stream.read(DEFAULT_BUFFER_SIZE):
            decoder.decode(block)
            found += len(block.translate(None, delete=NOT_LEADING))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return found >= enough


def _explain(path: Path, name: str, encoding: str, codec: str) -> str:
    """Find the first byte of a file that its codec cannot decode, and say what to do."""
    codec = "utf-8" if codec == "utf-8-sig" else codec  # utf-8 counts the bytes of the mark
    decoder = codecs.getincrementaldecoder(codec)()
    offset = 0  # of the first byte not yet decoded
    ascii_before = True
    with open_bytes(path, name) as stream:
        while True:
            block = stream.read(DEFAULT_BUFFER_SIZE)
            waiting = decoder.getstate()[0]
            try:
                ascii_before = decoder.decode(block, final=not block).isascii() and ascii_before
            except UnicodeDecodeError as error:
                place = error.start
                byte = error.object[place]
                ascii_before = ascii_before and error.object[:place].isascii()
                offset += place
                rest = error.object[place:]
                break
            if not block:  # the file has been fixed since
                return f"{name} changed while it was read; try again"
            offset += len(waiting) + len(block) - len(decoder.getstate()[0])
        # Bytes 0x80 to 0x9F are printable in cp1252, but control characters in Latin-1.
        windows = False
        while rest and not windows:
            windows = re.search(rb"[\x80-\x9f]", rest) is not None
            rest = stream.read(DEFAULT_BUFFER_SIZE)
    shown = "UTF-8" if codec == "utf-8" else encoding
    problem = f"{name} is not valid {shown}: byte 0x{byte:02X} at offset {offset:,}"
    if _family(codec) != "utf-8":
        return f"{problem}; give its encoding with --encoding"
    if not ascii_before:
        return f"{problem}, after text that is valid: the file is damaged there; fix that place"
    guess = "cp1252" if windows else "latin-1"
    return (
        f"{problem}. For a Western European language, give --encoding {guess}; otherwise its "
        "encoding, such as cp1251, shift_jis or gb18030"
    )
