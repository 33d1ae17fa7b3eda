"""Puts a catalogue and three splits of rows together, and describes them."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from jaxtyping import Bool

from igd_jax.core.errors import InputError
from igd_jax.core.lines import one_line
from igd_jax.core.shown import shortened, shown
from igd_jax.data.prepared import SCHEMA_VERSION, SPLITS, Prepared, Rows, fingerprint_of

TIMES = {split: time for time, split in enumerate(SPLITS)}
"""Times of the rows of splits for which none are published."""
NO_TIMES: dict[str, str | int] = {"times": "none are published; 0, 1 and 2 stand for the splits"}
"""The note on it."""


def assemble(
    *,
    item_ids: list[str],
    titles: list[str],
    splits: dict[str, Rows],
    dropped: dict[str, int],
    notes: dict[str, str | int],
    texts: dict[str, list[str]] | None = None,
    seen_beside_rows: Bool[np.ndarray, " items"] | None = None,
) -> Prepared:
    """Put a catalogue and its splits together and describe them in `meta`.

    Raises:
      InputError: a split is empty, or its histories are too long to be written.
    """
    counts = {name: len(splits[name]) for name in SPLITS}
    if not all(counts.values()):
        raise InputError(_no_rows(counts, dropped))
    for name, rows in splits.items():
        if (total := int(rows.history.start[-1])) >= 2**31:
            raise InputError(f"{name} has histories of {total:,} items, 2^31 or more; limit them (--max_history ...)")
    if n_blank := sum(not title.strip() for title in titles):
        notes = notes | {"items with a blank title, kept as published": n_blank}
    if n_broken := sum(one_line(title) != title for title in titles):
        notes = notes | {"items with a line break in the title, kept as published": n_broken}
    if n_again := sum(map(_n_repeats, splits.values())):
        notes = notes | {"rows whose target is the last item of their history": n_again}
    times, texts = np.concatenate([rows.timestamp for rows in splits.values()]), texts or {}
    shared = [count for count in Counter(titles).values() if count > 1]
    meta = {
        "schema_version": SCHEMA_VERSION,
        "users": len(set().union(*(rows.user for rows in splits.values()))),
        "items": len(item_ids),
        "rows": counts,
        "dates": [iso_time(int(times.min())), iso_time(int(times.max()))],
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "notes": notes,
        "items_with_text": {name: sum(map(bool, column)) for name, column in texts.items()},
        "titles_shared_by_several_items": len(shared),
        "items_with_a_shared_title": sum(shared),
        "train_rows_after_first_test_row": int((splits["train"].timestamp > splits["test"].timestamp.min()).sum()),
    }
    prepared = Prepared(item_ids, titles, splits, meta, texts, seen_beside_rows)
    meta["fingerprint"] = fingerprint_of(prepared)
    return prepared


def _no_rows(counts: Mapping[str, int], dropped: Mapping[str, int]) -> str:
    """Message about a split without rows, with what was dropped before."""
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    gone = [f"{reason} {count:,}" for reason, count in dropped.items() if reason.endswith(": events") and count]
    before = f" (dropped before: {shortened(', '.join(gone), 280)})" if gone else ""
    return f"every split needs at least one row, but there are {told}{before}; give more events or filter less"


def _n_repeats(rows: Rows) -> int:
    """Number of rows whose target is the last item of their history."""
    has_history = rows.history.lengths > 0
    last = rows.history.ids[rows.history.start[1:][has_history] - 1]
    return int((last == rows.target[has_history]).sum())


def tell_one_title(prepared: Prepared) -> list[str]:
    """A line for train and for test, if more than half of its targets have one title."""
    codes = {title: code for code, title in enumerate(dict.fromkeys(prepared.titles))}
    title_of = np.array([codes[title] for title in prepared.titles], np.int32)
    lines = []
    for split in ("train", "test"):
        target = prepared.splits[split].target
        counts = np.bincount(title_of[target], minlength=len(codes))
        if 2 * (most := int(counts.max())) <= len(target):
            continue
        title, n_items = shown(list(codes)[counts.argmax()]), int((title_of == counts.argmax()).sum())
        told = f"NOTE: {most:,} of {len(target):,} {split} targets have one title, {title}, "
        several = f"of {n_items:,} items: lists cannot tell these apart; drop such items"
        lines.append(told + (several if n_items > 1 else "of one item: a list that holds it is right for all of them"))
    return lines


def iso_time(timestamp: int) -> str:
    """Epoch seconds as ``2018-01-31T23:59:00Z``."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat().replace("+00:00", "Z")
