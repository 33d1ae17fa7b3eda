"""Times and text files as users have them."""

import bz2
import gzip
import itertools
import lzma
import re

import pytest
from source_files import LONG, short, write

from igd_jax.core.errors import InputError
from igd_jax.data.prepared import EARLIEST, LATEST
from igd_jax.data.source_io import parse_seconds, parse_timestamp, text_lines


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2018-11-01", 1541030400),
        ("2018-11-01T00:00:00", 1541030400),
        ("2018-11-01 00:00:00.9", 1541030400),
        ("2018-11-01T00:00:00Z", 1541030400),
        ("2018-11-01T02:00:00+02:00", 1541030400),
        ("1541030400", 1541030400),
        ("1541030400.7", 1541030400),
        ("1541030400123", 1541030400),
        ("1.5410304e9", 1541030400),
        ("0", 0),
        ("-86400", -86400),
        ("1960-01-01", -315619200),
    ],
)
def test_timestamps_are_utc_seconds(text, seconds):
    assert parse_timestamp(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "31.01.2018", "20181101", "20181101.0", "nan", "inf", "1e30", "2018-13-01", "253402300800000"],
)
def test_other_timestamps_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_timestamp(text)


@pytest.mark.parametrize("text", ["20180131120000", "201801311200", "20991231235959.0", "190001010000"])
def test_a_date_and_a_time_in_digits_alone_are_not_milliseconds(text):
    with pytest.raises(ValueError, match="the digits are a date and a time, or epoch milliseconds: write 2018-01-31T"):
        parse_timestamp(text)


@pytest.mark.parametrize("text", ["20181331120000", "201801312460", "210001010000", "189912312359", "20180229000000"])
def test_digits_that_are_no_date_are_milliseconds(text):
    assert parse_timestamp(text) == int(text) // 1000


@pytest.mark.parametrize("text", ["0001-01-01", "-62135596800000", "9999-12-31T23:59:59.9", "253402300799000"])
def test_the_first_and_the_last_second_are_times(text):
    assert parse_timestamp(text) in (EARLIEST, LATEST)


@pytest.mark.parametrize("text", ["253402300799", "-62135596800", "0", "1541030400"])
def test_seconds_are_whole_numbers(text):
    assert parse_seconds(text) == int(text)


@pytest.mark.parametrize("text", ["", "1.5", "253402300800", "-62135596801", "9" * 5000], ids=short)
def test_other_seconds_are_refused(text):
    with pytest.raises(ValueError, match="is not epoch seconds from the year 1 to 9999"):
        parse_seconds(text)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_how_far_reading_is_told_in_bytes_of_the_file(tmp_path, monkeypatch, capsys, pack):
    clock = itertools.count(step=10)
    monkeypatch.setattr("igd_jax.core.log.time.monotonic", lambda: next(clock))
    path = write(tmp_path / "my.csv", pack(b"line\n" * 3000))
    assert len(list(text_lines(path))) == 3000
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert all(re.match(rf"my\.csv: [\d,]+/{path.stat().st_size:,} bytes \(\d", line) for line in told)


def test_a_line_without_an_end_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("igd_jax.data.source_io._LONGEST_LINE", 1000)
    with pytest.raises(InputError, match=r"line 2: longer than 1,000 characters"):
        list(text_lines(write(tmp_path / "my.txt", "line\n" + LONG)))


@pytest.mark.parametrize("first", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_an_excel_file_is_named(tmp_path, first):
    with pytest.raises(InputError, match=r"my.xlsx is a zip archive or an Excel file; unpack it, or save the sheet as"):
        list(text_lines(write(tmp_path / "my.xlsx", first + b"\x14\0\x06\0")))


@pytest.mark.parametrize(
    ("name", "packed"),
    [("bzip2", bz2.compress(b"u,i\n")), ("xz", lzma.compress(b"u,i\n")), ("zstandard", b"\x28\xb5\x2f\xfd\x24\x00")],
)
def test_a_packed_file_is_named_unless_it_is_gzip(tmp_path, name, packed):
    with pytest.raises(InputError, match=f"my.csv is packed by {name}; unpack it, or pack it by gzip"):
        list(text_lines(write(tmp_path / "my.csv", packed)))
    assert list(text_lines(write(tmp_path / "my.csv", gzip.compress(b"BZh,i\n")))) == ["BZh,i\n"]
