"""Items written as their titles, in tokens of the tokenizer."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.ragged import Ragged
from igd_jax.data.token_cache import cached_rows
from igd_jax.identifiers.base import Source


class Titles:
    """An item is written as its title, with what the template puts around it; equal titles are one identifier.

    In IGD's template that is a newline after the title; D3's quotes the title, too.
    """

    names: Mapping[int, str] = {}

    def __init__(self, source: Source):
        self._source = source

    @property
    def vocab_size(self) -> int:
        """Size of the tokenizer's vocabulary; there are no new ids."""
        return self._source.tokenizer.vocab_size

    @property
    def texts(self) -> Sequence[str]:
        """The bare titles."""
        return self._source.titles

    def rows(self) -> Ragged:
        """Ids of a title with what stands around it, and EOS."""
        return self._rows

    def mentions(self) -> Ragged:
        """Ids of a title with what stands around it."""
        is_end = np.zeros(len(self._rows.ids), bool)
        is_end[self._rows.start[1:] - 1] = True
        return Ragged(self._rows.ids[~is_end], self._rows.start - np.arange(len(self._rows) + 1))

    @cached_property
    def _rows(self) -> Ragged:
        titles, tokenizer, around = self._source.titles, self._source.tokenizer, self._source.around
        name = f"titles-{fingerprint(tokenizer.fingerprint, *around, *titles)}"
        return cached_rows(self._source.cache, name, len(titles), lambda: tokenizer.title_parts(titles, *around))


IDENTIFIERS = Titles
