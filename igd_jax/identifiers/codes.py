"""Items written as codes: a few new tokens per item, such as ``<a_12> <b_7> <c_201>`` (docs/methods/tiger.md)."""

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.shown import shown
from igd_jax.data.prepared import parts_of_code
from igd_jax.identifiers.base import Source


class Codes:
    """An item is written as the parts of its code, each a new id; items with equal codes are one identifier.

    New ids are numbered in the order of the sorted parts, as in LETTER's code. A part means the same at each place.
    """

    texts = None

    def __init__(self, source: Source):
        """Read the field ``code`` of the items.

        Raises:
          InputError: an item has none.
        """
        written = source.texts.get("code", [""] * len(source.item_ids))
        codes = [*map(parts_of_code, written)]
        if without := [item for item, code in zip(source.item_ids, codes, strict=True) if not code]:
            raise InputError(
                f"config.identifiers.name is 'codes', but {len(without):,} of {len(written):,} items have none, such "
                f"as {shown(without[0])}; prepare data with codes: --source=letter, or a column called code"
            )
        first, self._eos = source.tokenizer.vocab_size, source.tokenizer.eos
        self.names = dict(enumerate(sorted(set().union(*codes)), start=first))
        self.vocab_size = first + len(self.names)
        id_of = {part: number for number, part in self.names.items()}
        self._ids = [[id_of[part] for part in code] for code in codes]

    def rows(self) -> Ragged:
        """Ids of a code, and EOS."""
        return Ragged.from_lists([[*ids, self._eos] for ids in self._ids])

    def mentions(self) -> Ragged:
        """Ids of a code."""
        return Ragged.from_lists(self._ids)


IDENTIFIERS = Codes
