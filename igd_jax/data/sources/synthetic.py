"""An invented shop for experiments: series of games, novels, films, cookbooks and model kits, and their customers.

Titles such as ``The Salt Harbour Saga, Volume 3: The Iron Tide (Collector's Edition) for Desktop`` share long prefixes
and suffixes, so most of their tokens are forced. Users mostly continue with the next volume of the series they bought
last; otherwise they jump to another series of a favourite genre, popular ones more often (Zipf).
"""

from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from igd_jax.core.errors import InputError
from igd_jax.data.interactions import Interactions, select


class Genre(NamedTuple):
    """Wording of the titles of a genre; a series appears in one or two of the versions."""

    kinds: tuple[str, str, str, str]
    part: str
    versions: tuple[str, ...]


class Shop(NamedTuple):
    """Items grouped into lines: a line is one version of one series.

    Attributes:
      titles: title of each item.
      genre, first_item, volumes: genre, first item and number of volumes of each line, genres in order and lines by
        descending popularity within a genre; line l has the items ``first_item[l] + [0, volumes[l])``.
    """

    titles: list[str]
    genre: Int[np.ndarray, " lines"]
    first_item: Int[np.ndarray, " lines"]
    volumes: Int[np.ndarray, " lines"]


# fmt: off
_GENRES = (
    Genre(("Chronicles", "Saga", "Legends", "Quest"), "Volume",
          ("(Collector's Edition) for Desktop", "for Desktop", "for Handheld", "(Gold Edition) for Handheld")),
    Genre(("Mysteries", "Case Files", "Murders", "Letters"), "Book",
          ("(Paperback)", "(Large Print Paperback)", "(Unabridged Audiobook)", "(Pocket Edition)")),
    Genre(("Rebellion", "Expedition", "Affair", "Heist"), "Part",
          ("[Director's Cut on Disc]", "[Widescreen on Disc]", "[Restored Edition on Tape]")),
    Genre(("Kitchen", "Table", "Bakery", "Larder"), "Course",
          ("- Illustrated Hardcover", "- Spiral Bound", "- Illustrated Paperback with Recipe Cards")),
    Genre(("Railway", "Airfield", "Shipyard", "Observatory"), "Set",
          ("(Wooden Model Kit, Scale 1:87)", "(Wooden Model Kit, Scale 1:160)", "(Card Model Kit, Scale 1:87)")),
)
_MOODS = ("Salt", "Amber", "Winter", "Silent", "Copper", "Hollow", "Crimson", "Northern")
_PLACES = (
    "Harbour", "Meadow", "Lantern", "Orchard", "Canyon", "Abbey", "Island", "Mill", "Forest", "Bridge", "Valley",
    "Lighthouse", "Garden", "Station", "Marsh", "Castle", "Quarry", "River", "Village", "Desert", "Tower", "Bay",
)
_ADJECTIVES = (
    "Iron", "Last", "Golden", "Broken", "Secret", "Second", "Burning", "Lost", "Quiet", "Seventh", "Velvet",
    "Frozen", "Hidden", "Endless", "Paper", "Scarlet", "Patient", "Wandering", "Borrowed", "Midnight", "Distant",
)
_THINGS = (
    "Tide", "Crown", "Map", "Guest", "Promise", "Engine", "Feast", "Key", "Mirror", "Witness", "Harvest", "Signal",
    "Door", "Compass", "Storm", "Visitor", "Thread", "Bell", "Recipe", "Shadow", "Journey", "Clock", "Letter",
)
# fmt: on

_MIN_VOLUMES, _MAX_VOLUMES = 3, 8
_ZIPF_EXPONENT = 0.7  # the r-th most popular line of a genre receives r^-0.7 times as many jumps as the most popular
_NEXT_VOLUME = 0.7  # probability of continuing with the line, if there is a next volume
_FROM_THE_START = 0.5  # probability that a jump lands on the first volume instead of a random one
_FIRST_TASTE, _SECOND_TASTE = 0.65, 0.25  # probabilities that a jump goes to a favourite genre; otherwise to any
_MIN_EVENTS = 2  # per user
_YEAR_START, _YEAR_SECONDS = 1_704_067_200, 366 * 86_400  # 2024, UTC


def read(
    path: Path | None = None, *, n_items: int = 300, n_users: int = 600, n_events: int = 8000, seed: int = 0
) -> Interactions:
    """Generate a year of events; equal options give equal events.

    Args:
      path: must be None.
      n_items, n_users, n_events: sizes of the log.
      seed: seed of the random numbers.

    Raises:
      InputError: a path is given, there are more items than names, or fewer than two events per user.
    """
    if path is not None:
        raise InputError(f"the synthetic source makes its own data and reads no input, but got {path}")
    if n_users < 1 or n_events < _MIN_EVENTS * n_users:
        raise InputError(f"{n_events:,} events are too few for {n_users:,} users; give at least two for each user")
    if n_items < 1:
        raise InputError(f"a shop of {n_items} items sells nothing; ask for at least one")
    rng = np.random.default_rng(seed)
    shop = _stock(rng, n_items)
    events_of = _MIN_EVENTS + rng.multinomial(n_events - _MIN_EVENTS * n_users, rng.dirichlet(np.full(n_users, 2.0)))
    user = np.repeat(np.arange(n_users, dtype=np.int32), events_of)
    log = Interactions(
        user=user,
        item=_walk(rng, shop, events_of),
        timestamp=_times(rng, user, n_users),
        user_ids=[f"user{number}" for number in range(n_users)],
        item_ids=[f"item{number}" for number in range(n_items)],
        titles=shop.titles,
    )
    return select(log, np.ones(n_events, bool), reason="never taken")


def _stock(rng: np.random.Generator, n_items: int) -> Shop:
    """Name series, cycling through the genres, until there are `n_items` items."""
    names = [f"The {mood} {place}" for mood in _MOODS for place in _PLACES]
    shuffled = [rng.permutation(4 * len(names)) for _ in _GENRES]
    adjectives = [rng.permutation(_ADJECTIVES) for _ in _GENRES]
    titles: list[str] = []
    lines: list[tuple[int, int, int]] = []
    for rank, (number, genre) in product(range(4 * len(names)), enumerate(_GENRES)):
        name, kind = divmod(int(shuffled[number][rank]), 4)
        thing = rng.choice(_THINGS)
        volumes = [
            f"{names[name]} {genre.kinds[kind]}, {genre.part} {part}: The {adjectives[number][part]} {thing}"
            for part in range(1, 1 + rng.integers(_MIN_VOLUMES, _MAX_VOLUMES, endpoint=True))
        ]
        for version in rng.choice(genre.versions, size=rng.integers(1, 2, endpoint=True), replace=False):
            line = [f"{volume} {version}" for volume in volumes[: n_items - len(titles)]]
            if not line:
                genre_of, first_item, n_volumes = np.array(sorted(lines)).T
                return Shop(titles, genre_of, first_item, n_volumes)
            lines.append((number, len(titles), len(line)))
            titles += line
    raise InputError(f"there are names for {len(titles):,} items only; ask for fewer than {n_items:,}")


def _cumulated_popularity(genre: Int[np.ndarray, " lines"]) -> Float[np.ndarray, " lines"]:
    """Cumulative Zipf popularity of the lines within their genre, from the number of the genre to that plus one."""
    rank = np.arange(len(genre)) - np.searchsorted(genre, genre) + 1
    weight = rank**-_ZIPF_EXPONENT
    total = np.bincount(genre, weight)
    before = np.cumsum(total) - total
    return genre + (np.cumsum(weight) - before[genre]) / total[genre]


def _walk(rng: np.random.Generator, shop: Shop, events_of: Int[np.ndarray, " users"]) -> Int[np.ndarray, " events"]:
    """The items that each user takes, grouped by user; all users are simulated in parallel."""
    n_users, n_lines, n_genres = len(events_of), len(shop.genre), int(shop.genre[-1]) + 1
    popularity = _cumulated_popularity(shop.genre)
    first_taste, second_taste = rng.integers(n_genres, size=(2, n_users))
    line = volume = np.zeros(n_users, np.int64)
    taken = []
    for step in range(events_of.max()):
        taste, fame, landing, place, going = rng.random((5, n_users))
        genre = np.where(taste < _FIRST_TASTE + _SECOND_TASTE, second_taste, rng.integers(n_genres, size=n_users))
        genre = np.where(taste < _FIRST_TASTE, first_taste, genre)
        new_line = np.minimum(np.searchsorted(popularity, genre + fame), n_lines - 1)
        new_volume = np.where(landing < _FROM_THE_START, 0, place * shop.volumes[new_line]).astype(np.int64)
        goes_on = (step > 0) & (going < _NEXT_VOLUME) & (volume + 1 < shop.volumes[line])
        line, volume = np.where(goes_on, line, new_line), np.where(goes_on, volume + 1, new_volume)
        taken.append(shop.first_item[line] + volume)
    is_event = np.arange(len(taken)) < events_of[:, None]
    return np.stack(taken, axis=1)[is_event].astype(np.int32)


def _times(rng: np.random.Generator, user: Int[np.ndarray, " events"], n_users: int) -> Int[np.ndarray, " events"]:
    """Ascending timestamps of the events of each user, within that user's part of the year."""
    first = 0.75 * rng.random(n_users)
    span = (1 - first) * rng.uniform(0.2, 1.0, n_users)
    moment = rng.random(len(user))
    moment = moment[np.lexsort((moment, user))]
    return _YEAR_START + (_YEAR_SECONDS * (first[user] + span[user] * moment)).astype(np.int64)
