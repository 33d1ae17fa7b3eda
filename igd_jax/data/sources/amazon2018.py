"""Amazon review data of 2018: CATEGORY_5.json.gz (or CATEGORY.json.gz) and meta_CATEGORY.json.gz, as downloaded.

The steps are those of the preprocessing that IGD and D3 share: titles are filtered and cleaned, and a time window that
ends on 1 November 2018 is widened until enough items survive the k-core. There are three differences: days are cut in
UTC instead of the local time zone, a title is cleaned once, and items are numbered in order of their first review
instead of being shuffled.
"""

import html
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from jaxtyping import Float64

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress, say
from igd_jax.data.event_log import IdCodes
from igd_jax.data.interactions import (
    Interactions,
    core_events,
    drop_untitled,
    keep_rated,
    settle_repeats,
    take_core,
    window,
)
from igd_jax.data.prepared import align_texts
from igd_jax.data.source_io import reading

_REVIEWS = pa.schema([("reviewerID", pa.string()), ("asin", pa.string()), ("unixReviewTime", pa.int64())])
_RATED = _REVIEWS.append(pa.field("overall", pa.float64()))
_META = pa.schema([("asin", pa.string()), ("title", pa.string())])
_WORDS = pa.list_(pa.string())
_TEXTS = pa.schema([("asin", pa.string()), ("description", _WORDS), ("brand", pa.string()), ("category", _WORDS)])
_KINDS = {
    pa.string(): "a text",
    pa.int64(): "a whole number",
    pa.float64(): "a number",
    _WORDS: "a list of texts",
}
_BLOCK_BYTES = 1 << 24  # longer than any record
_END = int(datetime(2018, 11, 1, tzinfo=UTC).timestamp())
_MAX_WORDS = 20


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
    reviews, meta = _find(path)
    is_rated = min_rating is not None
    say(
        f"columns: reviewerID as user, asin as item, unixReviewTime as timestamp,{' overall as rating,' * is_rated} "
        f"title, description, brand, category; not read: {'' if is_rated else 'overall, '}all others"
    )
    log, ratings, codes = _read_reviews(reviews, _RATED if is_rated else _REVIEWS)
    titles, notes = _read_titles(meta, codes)
    log = keep_rated(replace(log, titles=titles, notes=notes), ratings, min_rating)
    log = drop_untitled(log)
    if duplicates != "keep":
        log = settle_repeats(log, duplicates)  # before the core, which counts events
    core = settle_repeats(_widen(log, k_core=k_core, min_items=min_items), duplicates)
    return replace(core, texts=_read_texts(meta, core.item_ids))


def _find(folder: Path) -> tuple[Path, Path]:
    metas = sorted(folder.glob("meta_*.json.gz"))
    if len(metas) != 1:
        raise InputError(f"{folder} has {len(metas)} files like meta_CATEGORY.json.gz; expected one category")
    category = metas[0].name.removeprefix("meta_").removesuffix(".json.gz")
    for name in (f"{category}_5.json.gz", f"{category}.json.gz"):
        if (folder / name).is_file():
            return folder / name, metas[0]
    raise InputError(f"{folder} has {metas[0].name} but neither {category}_5.json.gz nor {category}.json.gz")


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Stream the columns of `schema` from a gzipped file of JSON lines."""
    size = path.stat().st_size
    with (
        Progress(path.name, size, "bytes") as progress,
        reading(path),
        pa.OSFile(str(path)) as raw,
        pa.CompressedInputStream(raw, "gzip") as stream,
    ):
        try:
            batches = pj.open_json(
                stream,
                read_options=pj.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
            for batch in batches:
                batch.validate(full=True)  # bytes that are not UTF-8
                yield batch
                progress.update(min(raw.tell(), size - 1))
        except pa.ArrowInvalid as error:
            if not (found := re.search(r"Column\(/(\w+).*\) changed from \w+ to (\w+)", str(error))):
                raise
            field, kind = found.groups()
            raise InputError(
                f"{path}: {field} of a record is or holds a JSON {kind}; expected {_KINDS[schema.field(field).type]}, "
                "as in the Amazon data of 2018"
            ) from None
        progress.update(size)


def _read_reviews(path: Path, schema: pa.Schema) -> tuple[Interactions, Float64[np.ndarray, "events"], IdCodes]:
    """All events without titles, their ratings (NaN if missing), and the numbering of items."""
    users, items = IdCodes(), IdCodes()
    columns: list[tuple[np.ndarray, ...]] = []
    dropped: Counter[str] = Counter()
    for batch in _batches(path, schema):
        rating = batch["overall"] if "overall" in schema.names else pa.nulls(len(batch), pa.float64())
        whole = batch.select(_REVIEWS.names).append_column("rating", rating.fill_null(math.nan)).drop_null()
        dropped["no reviewerID, asin or unixReviewTime: events"] += batch.num_rows - whole.num_rows
        user, item, timestamp, rating = whole.columns
        columns.append((users.encode(user), items.encode(item), timestamp.to_numpy(), rating.to_numpy()))
    if not len(items):
        raise InputError(
            f"no record of {path} has reviewerID, asin and unixReviewTime; expected Amazon reviews of 2018"
        )
    user, item, timestamp, ratings = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    log = Interactions(
        user=user,
        item=item,
        timestamp=timestamp,
        user_ids=users.ids(),
        item_ids=items.ids(),
        titles=[""] * len(items),
        dropped=dict(dropped),
    )
    return log, ratings, items


def _read_titles(path: Path, codes: IdCodes) -> tuple[list[str], dict[str, str | int]]:
    """Clean titles of the reviewed items, blank if unusable, and counts of the reasons."""
    titles: list[str | None] = [None] * len(codes)
    wrong: Counter[str] = Counter()
    for batch in _batches(path, _META):
        for asin, title in zip(batch["asin"].to_pylist(), batch["title"].to_pylist(), strict=True):
            if asin not in codes:
                continue
            code = codes.code(asin)
            if titles[code] is not None:
                wrong["metadata records after an item's first"] += 1
                continue
            titles[code], fault = clean_title(title or "")
            if fault:
                wrong[fault] += 1
    wrong["items without metadata"] = titles.count(None)
    return [title or "" for title in titles], {fault: count for fault, count in wrong.items() if count}


def clean_title(raw: str) -> tuple[str, str]:
    """(title, "") or, if the title is unusable, ("", reason)."""
    if "<span id" in raw:
        return "", "titles with <span id"
    title = raw.replace("&quot;", '"').replace("&amp;", "&").strip(" ").strip('"')
    if len(title) < 2:
        return "", "titles shorter than 2 characters"
    if len(title.split(" ")) > _MAX_WORDS:
        return "", f"titles of more than {_MAX_WORDS} words"
    return title, ""


def _read_texts(path: Path, item_ids: Sequence[str]) -> dict[str, list[str]]:
    """Texts of the remaining items from their first metadata record, in the form of `Prepared.texts`."""
    left = pa.array(item_ids, pa.string())
    texts: dict[str, dict[str, str]] = {name: {} for name in _TEXTS.names[1:]}
    for batch in _batches(path, _TEXTS):
        for record in batch.filter(pc.is_in(batch["asin"], value_set=left)).to_pylist():
            item = record.pop("asin")
            for name, value in record.items():
                texts[name].setdefault(item, clean_text(value or ""))
    return align_texts(texts, item_ids)


def clean_text(raw: str | list[str]) -> str:
    """Text without HTML, on one line; the distinct members of a list are joined by commas."""
    parts = [raw] if isinstance(raw, str) else [part or "" for part in raw]
    plain = (" ".join(re.sub(r"<[^>]*>", " ", html.unescape(part)).split()) for part in parts)
    return ", ".join(dict.fromkeys(filter(None, plain)))


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
