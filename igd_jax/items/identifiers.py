"""How items are written: the protocol of titles and all other kinds of identifiers."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from igd_jax.core.ragged import Ragged


@runtime_checkable
class Identifiers(Protocol):
    """How items are written. Selected by the config before the catalogue and the trie are built.

    Attributes:
      vocab_size: number of token ids; ids beyond the tokenizer's vocabulary are new.
      texts: words of each item, its bare title, or None if mentions are ids without a text.
      names: how new ids are shown to people.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def texts(self) -> Sequence[str] | None: ...

    @property
    def names(self) -> Mapping[int, str]: ...

    def rows(self) -> Ragged:
        """Token row of each item, ending in one EOS id, which occurs nowhere else in any row."""

    def mentions(self) -> Ragged:
        """Token row of each item inside a history, without EOS; if there are `texts`, as in `rows`."""
