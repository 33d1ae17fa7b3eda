"""Converts Arrow columns of any type to text, numbers and epoch seconds."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64, Num

from igd_jax.core.shown import shown
from igd_jax.data.prepared import EARLIEST, LATEST
from igd_jax.data.source_io import DATES, MOMENT_IN_DIGITS, MOMENTS, OUT_OF_RANGE, is_moment, parse_timestamp

_TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def holds_words(kind: pa.DataType) -> bool:
    """Whether `as_text` can read words from a column of this type: strings, or lists of strings."""
    return is_text(kind.value_type if _is_list(kind) else kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def without_blanks(column: pa.Array) -> pa.Array:
    """The column with NaN and blank texts replaced by null, and texts stripped of surrounding spaces."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), None, column)
    if is_text(column.type):
        column = pc.utf8_trim_whitespace(column.cast(pa.string()))
        return pc.if_else(pc.equal(column, ""), None, column)
    return column


def as_text(column: pa.Array) -> pa.Array:
    """Ids, titles or words as strings: integers and integral floats in digits, lists of words joined by commas.

    Blank values are null, as in `without_blanks`.

    Raises:
      ValueError: the column has another type, or floats that are not integral.
    """
    if _is_list(column.type) and is_text(column.type.value_type):
        if column.flatten().null_count:  # one null would make the whole text one
            column = pa.array([words and [word for word in words if word is not None] for words in column.to_pylist()])
        column = pc.binary_join(column.cast(pa.list_(pa.string())), ", ")
    column = without_blanks(column)
    if pa.types.is_floating(column.type):
        try:
            column = column.cast(pa.int64())  # pandas turns integers into floats if one is missing
        except pa.ArrowInvalid as error:
            raise ValueError(f"{column.type}, and not all of them whole numbers: {error}") from None
    if pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.string())
    if not is_text(column.type):
        raise ValueError(f"expected texts or whole numbers, got {column.type}")
    return column


def as_numbers(column: pa.Array) -> pa.Array:
    """Numbers, or texts of numbers, as float64; NaN for missing ones.

    Raises:
      ValueError: the column has another type, or a text that is not a number.
    """
    column = without_blanks(column)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind) or is_text(kind)):
        raise ValueError(f"expected numbers, got {kind}")
    return column.cast(pa.float64()).fill_null(float("nan"))


def as_seconds(column: pa.Array) -> Int64[np.ndarray, " rows"]:
    """Epoch seconds UTC, by the rules of `parse_timestamp`, from numbers, texts, dates or datetimes without nulls.

    Raises:
      ValueError: the column has another type, floats of fewer than 64 bits included, or a value is not a time in the
        years 1 to 9999.
    """
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"), safe=False)
        kind = column.type
    if pa.types.is_timestamp(kind):
        seconds = column.cast(pa.int64()).to_numpy() // _TICKS_PER_SECOND[kind.unit]
        if ((seconds < EARLIEST) | (seconds > LATEST)).any():
            raise ValueError(OUT_OF_RANGE)
        return seconds
    if pa.types.is_integer(kind):
        return _seconds_of_numbers(column.cast(pa.int64()).to_numpy())
    if pa.types.is_float64(kind):
        return _seconds_of_numbers(column.to_numpy())
    if pa.types.is_floating(kind):
        raise ValueError(f"{kind.bit_width} bits are too coarse for epoch seconds: write double, int64 or datetimes")
    if is_text(kind):
        return _seconds_of_texts(column)
    if pa.types.is_null(kind):  # and without nulls: no rows
        return np.zeros(0, np.int64)
    raise ValueError(f"expected numbers, texts, dates or datetimes, got {kind}")


def _seconds_of_numbers(numbers: Num[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
    """Epoch seconds from seconds or, above 1e11, milliseconds."""
    seconds = np.where((numbers > 1e11) | (numbers < -1e11), numbers / 1000, numbers)
    if (wrong := ~((seconds >= EARLIEST) & (seconds < LATEST + 1))).any():
        raise ValueError(f"{numbers[wrong.argmax()]}: {OUT_OF_RANGE}")
    if (dates := (numbers >= DATES[0]) & (numbers < DATES[1])).any():
        raise ValueError(f"{numbers[dates.argmax()]:.0f}: eight digits are a date or epoch seconds")
    moments = np.any([(numbers >= 19 * 10 ** (n - 2)) & (numbers < 21 * 10 ** (n - 2)) for n in MOMENTS], axis=0)
    for number in numbers[moments].tolist():  # few, if any: as milliseconds these are of 1976 or after 2570
        if is_moment(number):
            raise ValueError(f"{number:.0f}: {MOMENT_IN_DIGITS}")
    return np.floor(seconds).astype(np.int64)


def _seconds_of_texts(texts: pa.Array) -> Int64[np.ndarray, " rows"]:
    """Epoch seconds from texts: all at once if they have one format, else one by one."""
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return as_seconds(texts.cast(kind))
        except pa.ArrowInvalid:
            continue
    return np.array([_parse(text) for text in texts.to_pylist()], np.int64)


def _parse(text: str) -> int:
    try:
        return parse_timestamp(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)}: {error}") from None
