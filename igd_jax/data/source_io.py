"""Shared by the sources: reading files, with every fault reported in one line, and parsing the times in them."""

import ast
import codecs
import csv
import gzip
import io
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress
from igd_jax.core.shown import listed, shortened, shown
from igd_jax.data.prepared import EARLIEST, LATEST

DELIMITERS: Mapping[str, str] = {",": ",", ";": ";", "tab": "\t"}
"""Separators of csv cells, by the value of ``--delimiter``."""
DATES = (19_000_000, 21_000_000)
"""Numbers that are dates such as 20180131 rather than seconds, to one below the end."""
MOMENTS = {12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Dates with a time, such as 20180131120000, rather than milliseconds, by the number of their digits."""
OUT_OF_RANGE = "outside the years 1 to 9999"
MOMENT_IN_DIGITS = "the digits are a date and a time, or epoch milliseconds: write 2018-01-31T12:00:00"

_Kind = TypeVar("_Kind")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PROGRESS_LINES = 1000
_LONGEST_LINE = 1 << 24
"""Limit in characters of a line, and of a cell, so that a file without line ends is not read into memory whole."""
_OF_OFFICE = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of zip archives, which xlsx files are, and of older Excel files."""
_PACKED = re.compile(rb"(?P<bzip2>BZh[1-9]1AY&SY)|(?P<xz>\xfd7zXZ)|(?P<zstandard>\x28\xb5\x2f\xfd)")
"""First bytes of packed files that are not unpacked here."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors while reading the file `path` into `InputError`; anything but a regular file is refused."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}; expected a file")
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {shortened(str(path))} ({shortened(reason)})") from None


def text_lines(path: Path, *, encoding: str = "utf-8", newline: str = "") -> Iterator[str]:
    """Yield the lines of a text file, gzipped or not, with their line ends, and report progress.

    Args:
      encoding: "utf-8" also takes a byte order mark, and UTF-16 that begins with one.
      newline: as in `open`; with "", a line ends in "\\n", "\\r" or "\\r\\n".

    Raises:
      InputError: the file cannot be read, is damaged or is not text in that encoding, or a line is endless or holds a
        NUL byte.
    """
    with reading(path), _opened(path) as raw, Progress(path.name, path.stat().st_size, "bytes", done=0) as progress:
        for number, text in enumerate(lines_of(raw, path, encoding=encoding, newline=newline), start=1):
            if number % _PROGRESS_LINES == 0:
                progress.update(max(0, raw.tell() - 1))
            yield text


def lines_of(raw: io.BufferedReader, path: Path | str, *, encoding: str = "utf-8", newline: str = "") -> Iterator[str]:
    """As `text_lines`, of a file that is open already, without progress; `path` may be an address on the Hub."""
    unpacked = _unpacked(raw)
    if unpacked.peek(4)[:4] in _OF_OFFICE:
        raise InputError(f"{path} is a zip archive or an Excel file; unpack it, or save the sheet as csv (UTF-8)")
    if packed := _PACKED.match(unpacked.peek(10)):
        raise InputError(f"{path} is packed by {packed.lastgroup}; unpack it, or pack it by gzip, which is read packed")
    if unpacked.peek(4)[:4] == b"PAR1":
        raise InputError(f"{path} is a parquet file and no text; --source=huggingface reads files named .parquet")
    if encoding == "utf-8":
        is_utf16 = unpacked.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if is_utf16 else "utf-8-sig"
    with io.TextIOWrapper(unpacked, encoding=encoding, newline=newline) as file:
        number = 0
        try:
            while text := file.readline(_LONGEST_LINE):
                number += 1
                if "\0" in text:
                    raise InputError(f"{path} line {number}: a NUL byte, which no text has; save it as UTF-8 text")
                if len(text) == _LONGEST_LINE:
                    raise InputError(f"{path} line {number}: longer than {_LONGEST_LINE:,} characters")
                yield text
        except UnicodeDecodeError as error:
            raise InputError(_not_text(path, error)) from None


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file to read. If its reader is dropped halfway, the garbage collector closes it without a warning."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _unpacked(raw: io.BufferedReader) -> io.BufferedReader | gzip.GzipFile:
    """The file itself or, if it starts with the magic bytes of gzip, its decompressed content."""
    return gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw


def _not_text(path: Path | str, error: UnicodeDecodeError) -> str:
    """Message with the line of the first undecodable byte, which the decoder itself knows only to the block."""
    if not error.encoding.startswith("utf-8"):
        return f"{path} is not {error.encoding} text ({error.reason})"
    if isinstance(path, str):
        return f"{path} is not UTF-8 text ({error.reason})"
    with path.open("rb") as raw:
        lines: BinaryIO = _unpacked(raw)  # type: ignore[assignment]
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as found:
                byte = f"byte {line[found.start]:#04x}"
                remedy = "save it as UTF-8, such as by iconv -f CP1252 -t UTF-8"
                return f"{path} line {number}: not UTF-8 text ({byte}); {remedy}"
    return f"{path} is not UTF-8 text ({error.reason})"


def csv_table(path: Path, *, delimiter: str = ",", **dialect: Any) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header of a csv file, and an iterator over (line number, cells), each row as long as the header.

    The line is that on which the row begins. Blank lines are skipped. Cells stay text: "None" and "NA" are titles like
    any other. `dialect` is that of `csv.reader`.

    Raises:
      InputError: as in `text_lines`; and during iteration, for a row with too few, too many or badly quoted cells.
    """
    return csv_table_of(text_lines(path), path, delimiter=delimiter, **dialect)


def csv_table_of(
    lines: Iterator[str], path: Path | str, *, delimiter: str, **dialect: Any
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """As `csv_table`, from lines with their ends; `path` names them in errors, `dialect` is that of `csv.reader`."""
    rows = _csv_rows(lines, path, delimiter=delimiter, **dialect)
    _, header = next(rows, (1, []))
    return [name.strip() for name in header], rows


def _csv_rows(
    lines: Iterator[str], path: Path | str, *, delimiter: str, **dialect: Any
) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LONGEST_LINE)
    reader = csv.reader(lines, delimiter=delimiter, strict=True, **dialect)
    width, line = 0, 1
    try:
        for cells in reader:
            width = width or len(cells)
            if cells and len(cells) != width:
                is_short = len(cells) < width
                remedy = (
                    "write every cell, even if blank" if is_short else f"a cell that holds {delimiter!r} needs quotes"
                )
                raise InputError(f"{path} line {line}: {len(cells)} cells where the header has {width}; {remedy}")
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        found = f" on line {reader.line_num}" if reader.line_num > line else ""
        raise InputError(
            f"{path} line {line}: {error}{found}; write a quote within quotes twice, and quote the whole cell"
        ) from None


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line number, cells of two or more `columns`) for each row of a csv file; see `csv_table`.

    Raises:
      InputError: as in `csv_table`, or a column is missing.
    """
    header, rows = csv_table(path)
    if missing := [name for name in columns if name not in header]:
        raise InputError(f"{path}: no column {', '.join(missing)}; it has {listed(header) or 'none'}")
    pick = itemgetter(*(header.index(name) for name in columns))
    for line, cells in rows:
        yield line, pick(cells)


def python_literal(text: str, kind: type[_Kind]) -> _Kind | None:
    """The value of a Python literal, without running anything; None if the text is not a literal of that type."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, kind) else None


def is_writable(value: Any) -> bool:
    """Whether a value is a text that files can hold; JSON and Python literals can spell out half a character."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def parse_timestamp(text: str) -> int:
    """Epoch seconds UTC from an ISO date or datetime (without a zone: UTC) or from epoch seconds or milliseconds.

    Numbers above 1e11 are milliseconds (as seconds they would be later than the year 5138).

    Raises:
      ValueError: the text has none of these forms, is outside the years 1 to 9999, or is a date in digits alone.
    """
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return _in_range((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if DATES[0] <= number < DATES[1]:
        raise ValueError("eight digits are a date or epoch seconds: write 2018-01-31 or more digits")
    if number > 1e11 and is_moment(number):
        raise ValueError(MOMENT_IN_DIGITS)
    if abs(number) > 1000 * LATEST:
        raise ValueError(f"{OUT_OF_RANGE}; if these are microseconds or less, divide them until they are milliseconds")
    return _in_range(number / 1000 if abs(number) > 1e11 else number)


def is_moment(number: int | float) -> bool:
    """Whether the digits of a number are a date and a time in one of `MOMENTS`, from 1900 to 2099."""
    digits = f"{number:.0f}"
    if len(digits) not in MOMENTS or digits[:2] not in ("19", "20"):
        return False
    try:
        datetime.strptime(digits, MOMENTS[len(digits)])
    except ValueError:
        return False
    return True


def parse_seconds(text: str) -> int:
    """Parse epoch seconds UTC, a whole number; raises `ValueError` for other texts and outside the years 1 to 9999."""
    with suppress(ValueError):
        if EARLIEST <= (seconds := int(text)) <= LATEST:
            return seconds
    raise ValueError(f"{shown(text)} is not epoch seconds from the year 1 to 9999")


def parse_rating(text: str, *, where: str) -> float:
    """Parse a rating, NaN if blank; raises `InputError`, with `where` in front, if it is not a number."""
    try:
        rating = float(text or "nan")
    except ValueError:
        rating = math.inf
    if math.isinf(rating):
        raise InputError(f"{where}: rating {shown(text)} is not a number")
    return rating


def _in_range(seconds: float) -> int:
    if not EARLIEST <= seconds < LATEST + 1:
        raise ValueError(OUT_OF_RANGE)
    return int(seconds // 1)
