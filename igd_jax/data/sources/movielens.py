"""MovieLens 100K (u.data, u.item) and 1M (ratings.dat, movies.dat), as GroupLens publishes them; stars are ignored."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import Interactions
from igd_jax.data.source_io import EventLog, reading

_GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""Genres of 100K, in the order of a film's last fields; "unknown" comes before them."""


def _flagged_genres(film: list[str]) -> list[str]:
    return [genre for genre, flag in zip(_GENRES, film[6:], strict=False) if flag == "1"]


def _named_genres(film: list[str]) -> list[str]:
    return "".join(film[2:3]).split("|")


class Layout(NamedTuple):
    """Files of one release, their separators, and how a film's genres are read."""

    ratings: str
    ratings_separator: str
    movies: str
    movies_separator: str
    genres: Callable[[list[str]], list[str]]


_LAYOUTS = (
    Layout("u.data", "\t", "u.item", "|", _flagged_genres),
    Layout("ratings.dat", "::", "movies.dat", "::", _named_genres),
)


def read(path: Path) -> Interactions:
    """Read a MovieLens folder: every rating is an event, whatever its stars.

    Items are numbered in the order in which they are first rated. Their genres are their category.

    Raises:
      InputError: the folder holds neither layout, or a line has too few fields or no number where one belongs.
    """
    layout = next((layout for layout in _LAYOUTS if (path / layout.ratings).is_file()), None)
    if layout is None:
        raise InputError(f"{path} holds neither u.data and u.item (100K) nor ratings.dat and movies.dat (1M)")
    log = EventLog()
    for line, (user, item, _, timestamp, *_) in _fields(path / layout.ratings, layout.ratings_separator, 4):
        if not timestamp.isdecimal():
            raise InputError(f"{path / layout.ratings} line {line}: timestamp {timestamp!r} is not epoch seconds")
        log.add(user, item, int(timestamp))
    films = [film for _, film in _fields(path / layout.movies, layout.movies_separator, 2)]
    genres = {film[0]: ", ".join(layout.genres(film)) for film in films}
    return log.finish({film[0]: film[1] for film in films}, texts={"category": genres}, dropped={})


def _fields(path: Path, separator: str, count: int) -> Iterator[tuple[int, list[str]]]:
    """Give (line number, the fields) of each line, of which there are at least `count`."""
    with reading(path), path.open(encoding="latin-1", newline="\n") as file:
        for line, text in enumerate(file, start=1):
            fields = text.rstrip("\r\n").split(separator)
            if len(fields) < count:
                raise InputError(f"{path} line {line}: {len(fields)} fields, expected {count} parted by {separator!r}")
            yield line, fields
