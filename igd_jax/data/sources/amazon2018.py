"""Amazon review data of 2018: CATEGORY_5.json.gz (or CATEGORY.json.gz) and meta_CATEGORY.json.gz, as downloaded.

The steps are those of the preprocessing that IGD and D3 share: titles are filtered and cleaned, and a time window that
ends on 1 November 2018 is widened until enough items survive the k-core. There are four differences: days are cut in
UTC instead of the local time zone, a title is cleaned once, items are numbered in order of their first review instead
of being shuffled, and of several metadata records of an item the first counts, where the authors drop the item if any
has no usable title, and take the last one else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from igd_jax.data.amazon import WORDS, Release, json_batches, read_category
from igd_jax.data.interactions import Interactions, core_events, take_core, window

_TYPES = {"asin": pa.string(), "title": pa.string(), "description": WORDS, "brand": pa.string(), "category": WORDS}
_END = int(datetime(2018, 11, 1, tzinfo=UTC).timestamp())


def read(
    path: Path,
    *,
    k_core: int = 5,
    min_items: int = 10_000,
    min_rating: float | None = None,
    duplicates: str = "keep",
) -> Interactions:
    """Read one category, with descriptions, brands and categories of its items.

    The window opens on 1 October 2017, or of the latest earlier year from which at least `min_items` items survive the
    k-core; if there is no such year, it includes all earlier reviews.

    Args:
      k_core: fewest reviews per user and item.
      min_items: fewest items, for which the window is widened.
      min_rating: lowest rating to keep, see `keep_rated`.
      duplicates: "keep", as published, or "drop", see `settle_repeats`.

    Raises:
      InputError: a file is missing, ambiguous, damaged or truncated, or nothing is left.
    """
    take = partial(_widen, k_core=k_core, min_items=min_items)
    return read_category(path, _RELEASE, take=take, min_rating=min_rating, duplicates=duplicates)


def _metadata(path: Path, names: Sequence[str], item_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    wanted = pa.array(item_ids, pa.string())
    for batch in json_batches(path, pa.schema([(name, _TYPES[name]) for name in ("asin", *names)])):
        yield from batch.filter(pc.is_in(batch["asin"], value_set=wanted)).to_pylist()


_RELEASE = Release(prefix="", category="category", metadata=_metadata)


def _widen(log: Interactions, *, k_core: int, min_items: int) -> Interactions:
    """Widen the window year by year until enough items survive the k-core or it includes all reviews."""
    first = int(log.timestamp.min())
    for year in range(2017, 0, -1):
        start = datetime(year, 10, 1, tzinfo=UTC)
        seconds = int(start.timestamp())
        recent = window(log, start=seconds, end=_END)
        keep, _ = core_events(recent, k_core)
        n_items = len(np.unique(recent.item[keep]))
        if n_items >= min_items or seconds <= first:
            break
    core = take_core(recent, k_core)
    reached = "" if n_items >= min_items else f" (the whole data: {n_items:,} items, fewer than {min_items:,})"
    notes = {"window": f"{start:%Y-%m-%d} to 2018-11-01{reached}", **core.notes}
    return replace(core, notes=notes)
