"""Amazon review data of 2014: reviews_CATEGORY_5.json.gz (or reviews_CATEGORY.json.gz) and meta_CATEGORY.json.gz.

Both are read as downloaded: reviews are JSON lines, metadata have one Python literal per line. Titles and texts are
cleaned like those of 2018. No time window has been published for these data, which end in July 2014, so all reviews are
events.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.shown import shown
from igd_jax.data.amazon import Release, read_category
from igd_jax.data.interactions import Interactions, take_core
from igd_jax.data.source_io import is_writable, python_literal, text_lines

_LONGEST_RECORD = 1 << 20
"""Limit in characters: parsing takes hundreds of bytes per character."""


def read(path: Path, *, k_core: int = 5, min_rating: float | None = None, duplicates: str = "drop") -> Interactions:
    """Read one category, with descriptions, brands and categories of its items.

    Args:
      k_core: fewest reviews per user and item.
      min_rating: lowest rating to keep, see `keep_rated`.
      duplicates: "drop" or "keep", see `settle_repeats`.

    Raises:
      InputError: a file is missing, ambiguous, damaged or truncated, or nothing is left.
    """
    take = partial(take_core, k=k_core)
    return read_category(path, _RELEASE, take=take, min_rating=min_rating, duplicates=duplicates)


def _metadata(path: Path, names: Sequence[str], item_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Records with all of their fields, whichever are named: a literal is parsed as a whole."""
    wanted = set(item_ids)
    for line, text in enumerate(text_lines(path, newline="\n"), start=1):
        try:
            record = _parse(text)
        except ValueError as error:
            raise InputError(f"{path} line {line}: {error}") from None
        if record.get("asin") in wanted:
            yield record


_RELEASE = Release(prefix="reviews_", category="categories as category", metadata=_metadata)


def _parse(text: str) -> dict[str, Any]:
    """Parse a record, and add ``category``, the names in its lists of ``categories``.

    Raises:
      ValueError: the line is too long or no dict, or a field that is read has another type.
    """
    if len(text) > _LONGEST_RECORD:
        raise ValueError(f"longer than {_LONGEST_RECORD:,} characters; expected a Python dict")
    if (record := python_literal(text, dict)) is None:
        raise ValueError(f"expected a Python dict such as {{'asin': '0001', ...}}, got {shown(text.rstrip())}")
    for name in ("asin", "title", "description", "brand"):
        if (value := record.get(name)) is not None and not is_writable(value):
            raise ValueError(f"{name} is {shown(value)}; expected a text")
    names = _flat(record.get("categories"))
    if not all(name is None or is_writable(name) for name in names):
        raise ValueError(f"categories are {shown(record['categories'])}; expected lists of texts")
    return record | {"category": names}


def _flat(value: Any) -> list:
    """Members of nested lists."""
    return [name for part in value for name in _flat(part)] if isinstance(value, list) else [value]
