"""Identifiers of a run, checked against the items before anything is built on them (docs/howto/own_identifier.md)."""

import numpy as np

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import json_list
from igd_jax.core.ragged import Ragged
from igd_jax.identifiers.base import Source, identifiers_class
from igd_jax.items.identifiers import Identifiers


def make_identifiers(name: str, source: Source) -> tuple[Identifiers, Ragged, list[np.ndarray | bytes]]:
    """Make the identifiers called `name`.

    Returns:
      The identifiers, their rows, and parts of a fingerprint that change with what prompts hold of items; none where
      that follows from the rows and the titles, as of identifiers that are titles.

    Raises:
      InputError: there is no such kind, or it does not have one row, mention and text per item, with ids below
        `vocab_size`.
    """
    identifiers = identifiers_class(name)(source)
    rows, mentions, texts = identifiers.rows(), identifiers.mentions(), identifiers.texts
    n_items = len(source.item_ids)
    for member, parts in (("rows()", rows), ("mentions()", mentions), ("texts", texts)):
        if parts is not None and len(parts) != n_items:
            raise InputError(
                f"{member} of the identifiers {name!r} has {len(parts):,} entries for {n_items:,} items; expected one "
                "per item, in their order: correct it"
            )
    for member, parts in (("rows()", rows), ("mentions()", mentions)):
        least, most = int(parts.ids.min(initial=0)), int(parts.ids.max(initial=0))
        if least < 0 or most >= identifiers.vocab_size:
            raise InputError(
                f"{member} of the identifiers {name!r} has the id {least if least < 0 else most}, but their vocab_size "
                f"is {identifiers.vocab_size}; expected ids from 0 to vocab_size - 1: correct one of them"
            )
    others: list[np.ndarray | bytes] = []
    if not _follow(mentions, rows):
        others += [mentions.ids, mentions.start]
    if texts is not None and list(texts) != list(source.titles):
        others += [json_list(texts)]
    return identifiers, rows, others


def _follow(mentions: Ragged, rows: Ragged) -> bool:
    """Whether mentions are the rows without EOS."""
    is_like = np.array_equal(mentions.start, rows.start - np.arange(len(rows) + 1))
    return is_like and np.array_equal(mentions.ids, np.delete(rows.ids, rows.start[1:] - 1))
