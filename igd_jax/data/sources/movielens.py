"""MovieLens as published by GroupLens.

100K is u.data and u.item, 1M and 10M are ratings.dat and movies.dat, 20M and later are ratings.csv and movies.csv.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.data.event_log import EventLog
from igd_jax.data.interactions import Interactions, keep_rated, settle_repeats
from igd_jax.data.source_io import csv_rows, parse_rating, parse_seconds, reading, text_lines

_GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""Genres of 100K, in the order of the last fields of a film, where they follow "unknown"."""
_NO_GENRES = "(no genres listed)"

Fields = Iterator[tuple[int, Sequence[str]]]
"""Line number and fields of each line of a file."""


def _fields(path: Path, *, separator: str, count: int, encoding: str = "latin-1") -> Fields:
    """Lines that must have at least `count` fields."""
    for line, text in enumerate(text_lines(path, encoding=encoding, newline="\n"), start=1):
        fields = text.rstrip("\r\n").split(separator)
        if len(fields) < count:
            raise InputError(f"{path} line {line}: {len(fields)} fields, expected {count} separated by {separator!r}")
        yield line, fields


def _films(path: Path, *, separator: str) -> Fields:
    """Films in UTF-8 if the file is that, as that of 10M is, else in latin-1, as those of 100K and 1M are."""
    encoding = "utf-8"
    with reading(path):
        try:
            path.read_bytes().decode()
        except UnicodeDecodeError:
            encoding = "latin-1"
    return _fields(path, separator=separator, count=2, encoding=encoding)


def _flagged_genres(film: Sequence[str]) -> list[str]:
    return [genre for genre, flag in zip(_GENRES, film[6:], strict=False) if flag == "1"]


def _named_genres(film: Sequence[str]) -> list[str]:
    return [genre for genre in "".join(film[2:3]).split("|") if genre != _NO_GENRES]


class Layout(NamedTuple):
    """Files of one release, functions that read their fields and the genres of a film, and unread fields."""

    ratings: str
    read_ratings: Callable[[Path], Fields]
    movies: str
    read_movies: Callable[[Path], Fields]
    genres: Callable[[Sequence[str]], list[str]]
    unread: tuple[str, ...] = ()


_LAYOUTS = (
    Layout(
        "u.data",
        partial(_fields, separator="\t", count=4),
        "u.item",
        partial(_films, separator="|"),
        _flagged_genres,
        ("release dates", "link"),
    ),
    Layout(
        "ratings.dat",
        partial(_fields, separator="::", count=4),
        "movies.dat",
        partial(_films, separator="::"),
        _named_genres,
    ),
    Layout(
        "ratings.csv",
        partial(csv_rows, columns=("userId", "movieId", "rating", "timestamp")),
        "movies.csv",
        partial(csv_rows, columns=("movieId", "title", "genres")),
        _named_genres,
    ),
)


def read(path: Path, *, min_rating: float | None = None, duplicates: str = "drop") -> Interactions:
    """Read a MovieLens folder: every rating is an event.

    Items are numbered in order of their first rating. Genres become the category.

    Args:
      min_rating: lowest rating to keep, see `keep_rated`.
      duplicates: "drop" or "keep", see `settle_repeats`.

    Raises:
      InputError: the folder has none of the layouts, or a line has too few fields or a malformed number.
    """
    layout = next((layout for layout in _LAYOUTS if (path / layout.ratings).is_file()), None)
    if layout is None:
        raise InputError(
            f"{path} holds neither u.data and u.item (100K) nor ratings.dat and movies.dat (1M, 10M) nor ratings.csv "
            "and movies.csv (20M and later)"
        )
    is_rated = min_rating is not None
    unread = (*(() if is_rated else ("rating",)), *layout.unread)
    say(
        f"columns: user, item, {'rating, ' if is_rated else ''}timestamp, title, genres as category"
        + (f"; not read: {', '.join(unread)}" if unread else "")
    )
    log, ratings = EventLog(), array("d")
    file = str(path / layout.ratings)
    for line, (user, item, rating, timestamp, *_) in layout.read_ratings(path / layout.ratings):
        try:
            log.add(user, item, parse_seconds(timestamp))
        except ValueError as error:
            raise InputError(f"{file} line {line}: timestamp {error}") from None
        if is_rated:
            ratings.append(parse_rating(rating, where=f"{file} line {line}"))
    films = [film for _, film in layout.read_movies(path / layout.movies)]
    genres = {film[0]: ", ".join(layout.genres(film)) for film in films}
    events = log.finish({film[0]: film[1] for film in films}, texts={"category": genres}, dropped={})
    return settle_repeats(keep_rated(events, np.array(ratings), min_rating), duplicates)
