"""How items are written: the protocol that titles, and any other kind of identifiers, fulfil."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from igd_jax.core.ragged import Ragged


@runtime_checkable
class Identifiers(Protocol):
    """How items are written. Chosen by the config before the catalogue and the trie are built.

    Attributes:
      vocab_size: number of token ids, from 0; those from the tokenizer's size on are further vocabulary.
      texts: mentions in words, by item, where they are words (titles); None where they are ids of their own.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def texts(self) -> Sequence[str] | None: ...

    def rows(self) -> Ragged:
        """Token row of each item, ending in one EOS id that stands nowhere else in any row."""

    def mentions(self) -> Ragged:
        """Token row of each item inside a history, without EOS; where there are `texts`, of the text and a newline."""
