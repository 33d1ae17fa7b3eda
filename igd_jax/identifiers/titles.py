"""Items are written as their titles: ``tokenizer(title + newline)`` and EOS."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import atomic_file
from igd_jax.core.ragged import Ragged
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.identifiers.base import Source


class Titles:
    """Titles as identifiers; see `items.identifiers.Identifiers`."""

    def __init__(self, source: Source):
        self.vocab_size, self.texts = source.tokenizer.vocab_size, source.titles
        self._rows = title_rows(source.titles, source.tokenizer, cache=source.cache)

    def rows(self) -> Ragged:
        """Ids of each title, a newline and EOS."""
        return self._rows

    def mentions(self) -> Ragged:
        """Ids of each title and a newline."""
        lengths = self._rows.lengths - 1
        keep = np.ones(len(self._rows.ids), bool)
        keep[self._rows.start[1:] - 1] = False
        start = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=start[1:])
        return Ragged(self._rows.ids[keep], start)


def title_rows(titles: Sequence[str], tokenizer: Tokenizer, *, cache: Path) -> Ragged:
    """Token rows of all titles, from the folder `cache` when these titles were tokenised there before.

    The cache is written only beside something: a first start that ends in bad input leaves no folder behind.
    """
    path = cache / f"titles-{fingerprint(tokenizer.fingerprint, *titles)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as saved:
            return Ragged(saved["ids"], saved["start"])
    rows = tokenizer.encode_titles(titles)
    if not cache.parent.is_dir():
        return rows
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez(file, ids=rows.ids, start=rows.start)
    return rows


IDENTIFIERS = Titles
