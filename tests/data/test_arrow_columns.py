"""Columns of every Arrow type as texts, numbers and times."""

import datetime as dt
import math

import pyarrow as pa
import pytest

from igd_jax.data.arrow_columns import as_numbers, as_seconds, as_text
from igd_jax.data.source_io import parse_timestamp


@pytest.mark.parametrize(
    "texts",
    [
        ["2018-11-01", "1960-01-01"],
        ["2018-11-01T00:00:00", "2018-11-01 23:59:59.9"],
        ["2018-11-01T00:00:00Z", "2018-11-01T02:00:00+02:00"],
        ["2018-11-01", "2018-11-01T02:00:00+02:00", "1541030400"],
        ["1541030400", "1541030400.7", "1541030400123", "1.5410304e9", "0", "-86400", "-0.5"],
    ],
)
def test_texts_are_the_times_that_parse_timestamp_gives(texts):
    assert as_seconds(pa.array(texts)).tolist() == [parse_timestamp(text) for text in texts]


MOMENT = dt.datetime(2018, 11, 1, 0, 0, 0, 900_000)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1541030400]),
        pa.array([1541030400], pa.uint32()),
        pa.array([1541030400123]),
        pa.array([1541030400.7]),
        pa.array([1541030400123.0]),
        *(pa.array([MOMENT]).cast(pa.timestamp(unit), safe=False) for unit in ("s", "ms", "us", "ns")),
        pa.array([MOMENT], pa.timestamp("us", "UTC")),
        pa.array([MOMENT], pa.timestamp("us")).cast(pa.timestamp("us", "Asia/Tokyo")),
        pa.array([MOMENT.date()]),
        pa.array([MOMENT.date()]).cast(pa.date64()),
    ],
    ids=lambda column: str(column.type),
)
def test_times_of_every_type_are_utc_seconds(column):
    assert as_seconds(column).tolist() == [1541030400]


def test_times_before_1970_are_rounded_down():
    column = pa.array([dt.datetime(1969, 12, 31, 23, 59, 59, 500_000)])
    assert as_seconds(column).tolist() == as_seconds(pa.array([-0.5])).tolist() == [-1]


@pytest.mark.parametrize(
    "column",
    [
        ["yesterday"],
        ["5", "31.01.2018"],
        ["20181101"],
        ["nan"],
        ["1e30"],
        [20181101],
        ["20180131120000"],
        ["5", "2018-01-31", "201801311200"],
        [20180131120000],
        [201801311200.0, 5.0],
        [1e30],
        [float("inf")],
        [2**62],
        [-(10**11)],
    ],
    ids=str,
)
def test_other_times_are_refused(column):
    with pytest.raises(ValueError, match=r"31\.01|yesterday|eight digits|the digits are|years 1 to 9999"):
        as_seconds(pa.array(column))


def test_digits_that_are_no_date_are_milliseconds():
    assert as_seconds(pa.array([20181331120000, 201801312460])).tolist() == [20181331120, 201801312]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()], ids=str)
def test_short_floats_are_no_times(kind):
    with pytest.raises(ValueError, match=f"{kind.bit_width} bits are too coarse for epoch seconds: write"):
        as_seconds(pa.array([5.0]).cast(kind))


@pytest.mark.parametrize("second", [-62_135_596_801, 253_402_300_800])
def test_datetimes_outside_the_years_1_to_9999_are_refused(second):
    with pytest.raises(ValueError, match="years 1 to 9999"):
        as_seconds(pa.array([second]).cast(pa.timestamp("s")))


@pytest.mark.parametrize("column", [[5, None], [5.0, float("nan")], [" 5 ", ""], [5.0, None]], ids=str)
def test_ratings_are_numbers(column):
    numbers = as_numbers(pa.array(column)).to_pylist()
    assert numbers[0] == 5
    assert math.isnan(numbers[1])


@pytest.mark.parametrize("column", [["good"], [True], [[1]]], ids=str)
def test_other_ratings_are_refused(column):
    with pytest.raises(ValueError, match=r"good|expected numbers"):
        as_numbers(pa.array(column))


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([7, None, -1]), ["7", None, "-1"]),
        (pa.array([7.0, float("nan"), None]), ["7", None, None]),
        (pa.array([" 007 ", "", "\u00a0"], pa.large_string()), ["007", None, None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.nulls(2), [None, None]),
        (pa.array([["a", "b"], [], None]), ["a, b", None, None]),
        (pa.array([["a", None, "b"], [None], None]), ["a, b", None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_ids_and_titles_are_texts(column, texts):
    assert as_text(column).to_pylist() == texts


@pytest.mark.parametrize("column", [[1.5], [True], [{"a": 1}], [[1]], [b"x"]], ids=str)
def test_other_columns_are_no_texts(column):
    with pytest.raises(ValueError, match=r"whole numbers"):
        as_text(pa.array(column))
