"""MovieLens 100K (u.data, u.item) and 1M (ratings.dat, movies.dat), as GroupLens publishes them; stars are ignored."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import Interactions
from igd_jax.data.reading import EventLog, reading


class Layout(NamedTuple):
    """The files of one release and what parts their fields."""

    ratings: str
    ratings_separator: str
    movies: str
    movies_separator: str


_LAYOUTS = (Layout("u.data", "\t", "u.item", "|"), Layout("ratings.dat", "::", "movies.dat", "::"))


def read(path: Path) -> Interactions:
    """Read a MovieLens folder: every rating is an event, whatever its stars.

    Items are numbered in the order in which they are first rated.

    Raises:
      InputError: the folder holds neither layout, or a line has too few fields or no number where one belongs.
    """
    layout = next((layout for layout in _LAYOUTS if (path / layout.ratings).is_file()), None)
    if layout is None:
        raise InputError(f"{path} holds neither u.data and u.item (100K) nor ratings.dat and movies.dat (1M)")
    log = EventLog()
    for line, (user, item, _, timestamp) in _fields(path / layout.ratings, layout.ratings_separator, 4):
        if not timestamp.isdecimal():
            raise InputError(f"{path / layout.ratings} line {line}: timestamp {timestamp!r} is not epoch seconds")
        log.add(user, item, int(timestamp))
    titles = {item: title for _, (item, title) in _fields(path / layout.movies, layout.movies_separator, 2)}
    return log.finish(titles, dropped={})


def _fields(path: Path, separator: str, count: int) -> Iterator[tuple[int, list[str]]]:
    """Give (line number, the first `count` fields) of each line."""
    with reading(path), path.open(encoding="latin-1", newline="\n") as file:
        for line, text in enumerate(file, start=1):
            fields = text.rstrip("\r\n").split(separator)
            if len(fields) < count:
                raise InputError(f"{path} line {line}: {len(fields)} fields, expected {count} parted by {separator!r}")
            yield line, fields[:count]
