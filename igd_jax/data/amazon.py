"""What the sources of Amazon review data share: reviews in JSON lines, and titles and texts out of metadata."""

import html
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from jaxtyping import Float64

from igd_jax.core.errors import InputError
from igd_jax.core.log import Progress, say
from igd_jax.data.event_log import IdCodes, align_texts
from igd_jax.data.interactions import Interactions, drop_untitled, keep_rated, settle_repeats
from igd_jax.data.prepared import EARLIEST, LATEST, TEXT_FIELDS
from igd_jax.data.source_io import OUT_OF_RANGE, reading

WORDS = pa.list_(pa.string())
_REVIEWS = pa.schema([("reviewerID", pa.string()), ("asin", pa.string()), ("unixReviewTime", pa.int64())])
_RATED = _REVIEWS.append(pa.field("overall", pa.float64()))
_KINDS = {
    pa.string(): "a text",
    pa.int64(): "a whole number",
    pa.float64(): "a number",
    WORDS: "a list of texts",
}
_BLOCK_BYTES = 1 << 24  # longer than any record
_MAX_WORDS = 20
_TAGS = (
    "a|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|embed|font|h[1-6]|head|hr|html|i|iframe|img|input|li|link|"
    "meta|object|ol|p|param|pre|s|script|small|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul"
)
_TAG = re.compile(rf"<(?:!--.*?--|!doctype[^>]*|/?(?:{_TAGS})(?:\s[^<>]*=[^<>]*)?\s*/?)>", re.IGNORECASE | re.DOTALL)
"""A comment or a tag of HTML, with attributes that have values; ``a <b and c> d`` has none."""


class Release(NamedTuple):
    """Layout of the files of one year.

    Attributes:
      prefix: what precedes the category in the name of the file of reviews.
      category: how the line about columns names the column that is read as category.
      metadata: function of the metadata's path, names of fields, and item ids. It yields the records of these items
        in file order, as dicts with ``asin`` and the fields, out of ``title`` and `TEXT_FIELDS`. A value is a text or,
        but for the title, a list of texts; None, or no key, where there is none.
    """

    prefix: str
    category: str
    metadata: Callable[[Path, Sequence[str], Sequence[str]], Iterator[dict[str, Any]]]


def read_category(
    folder: Path,
    release: Release,
    *,
    take: Callable[[Interactions], Interactions],
    min_rating: float | None,
    duplicates: str,
) -> Interactions:
    """Read one category, with descriptions, brands and categories of its items.

    Args:
      folder: folder of the files of reviews and metadata.
      release: layout of these files.
      take: function that selects a time window or a core of the events of titled items.
      min_rating: lowest rating to keep, see `keep_rated`.
      duplicates: "keep" or "drop", see `settle_repeats`.

    Raises:
      InputError: a file is missing, ambiguous, damaged or truncated, or nothing is left.
    """
    reviews, meta = _find(folder, release.prefix)
    is_rated = min_rating is not None
    say(
        f"columns: reviewerID as user, asin as item, unixReviewTime as timestamp,{' overall as rating,' * is_rated} "
        f"title, description, brand, {release.category}; not read: {'' if is_rated else 'overall, '}all others"
    )
    log, ratings, codes = _read_reviews(reviews, _RATED if is_rated else _REVIEWS)
    titles, notes = _read_titles(release.metadata(meta, ("title",), codes.ids()), codes)
    log = keep_rated(replace(log, titles=titles, notes=notes), ratings, min_rating)
    log = drop_untitled(log)
    if duplicates != "keep":
        log = settle_repeats(log, duplicates)  # before the core, which counts events
    core = settle_repeats(take(log), duplicates)
    return replace(core, texts=_read_texts(release.metadata(meta, TEXT_FIELDS, core.item_ids), core.item_ids))


def _find(folder: Path, prefix: str) -> tuple[Path, Path]:
    metas = sorted(folder.glob("meta_*.json.gz"))
    if len(metas) != 1:
        raise InputError(f"{folder} has {len(metas)} files like meta_CATEGORY.json.gz; expected one category")
    category = metas[0].name.removeprefix("meta_").removesuffix(".json.gz")
    names = [f"{prefix}{category}{ending}" for ending in ("_5.json.gz", ".json.gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name, metas[0]
    raise InputError(f"{folder} has {metas[0].name} but neither {' nor '.join(names)}")


def json_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Stream the columns of `schema`, of types in `_KINDS`, from a gzipped file of JSON lines.

    Raises:
      InputError: the file cannot be read or is damaged, or a value has another type.
    """
    size = path.stat().st_size
    with (
        Progress(path.name, size, "bytes", done=0) as progress,
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
                "as in the published data"
            ) from None
        progress.update(size)


def _read_reviews(path: Path, schema: pa.Schema) -> tuple[Interactions, Float64[np.ndarray, " events"], IdCodes]:
    """All events without titles, their ratings (NaN if missing), and the numbering of items."""
    users, items = IdCodes(), IdCodes()
    columns: list[tuple[np.ndarray, ...]] = []
    dropped: Counter[str] = Counter()
    for batch in json_batches(path, schema):
        rating = batch["overall"] if "overall" in schema.names else pa.nulls(len(batch), pa.float64())
        user, item = _null_if_blank(batch["reviewerID"]), _null_if_blank(batch["asin"])
        read = [user, item, batch["unixReviewTime"], rating.fill_null(math.nan)]
        whole = pa.record_batch(read, names=[*_REVIEWS.names, "rating"]).drop_null()
        dropped["no reviewerID, asin or unixReviewTime: events"] += batch.num_rows - whole.num_rows
        user, item, timestamp, rating = whole.columns
        columns.append((users.encode(user), items.encode(item), timestamp.to_numpy(), rating.to_numpy()))
    if not len(items):
        raise InputError(f"no record of {path} has reviewerID, asin and unixReviewTime; expected Amazon reviews")
    user, item, timestamp, ratings = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    if (wrong := (timestamp < EARLIEST) | (timestamp > LATEST)).any():
        given = timestamp[wrong.argmax()]
        raise InputError(f"{path}: unixReviewTime {given} is {OUT_OF_RANGE}; expected epoch seconds")
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


def _null_if_blank(ids: pa.Array) -> pa.Array:
    """The ids, unchanged, but for blank ones: all of these would be one user or item."""
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(ids), ""), None, ids)


def _read_titles(records: Iterable[dict[str, Any]], codes: IdCodes) -> tuple[list[str], dict[str, str | int]]:
    """Clean titles of the reviewed items, blank if unusable, and counts of the reasons."""
    titles: list[str | None] = [None] * len(codes)
    wrong: Counter[str] = Counter()
    for record in records:
        code = codes.code(record["asin"])
        if titles[code] is not None:
            wrong["metadata records after an item's first"] += 1
            continue
        titles[code], fault = clean_title(record.get("title") or "")
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


def _read_texts(records: Iterable[dict[str, Any]], item_ids: Sequence[str]) -> dict[str, list[str]]:
    """Texts of the items from their first metadata record, in the form of `Prepared.texts`."""
    texts: dict[str, dict[str, str]] = {name: {} for name in TEXT_FIELDS}
    for record in records:
        for name, column in texts.items():
            column.setdefault(record["asin"], clean_text(record.get(name) or ""))
    return align_texts(texts, item_ids)


def clean_text(raw: str | list[str | None]) -> str:
    """Text without tags of HTML, escaped or not, on one line; the distinct members of a list are joined by commas."""
    parts = [raw] if isinstance(raw, str) else [part or "" for part in raw]
    plain = (" ".join(_TAG.sub(" ", html.unescape(part)).split()) for part in parts)
    return ", ".join(dict.fromkeys(filter(None, plain)))
