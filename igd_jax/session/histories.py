"""Histories in the form that the model of a run reads."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Int

from igd_jax.core.log import say
from igd_jax.core.ragged import Ragged, TokenRows, starts_of
from igd_jax.data.examples import Examples, item_examples, ranked_examples, shared_prefix
from igd_jax.data.prepared import Rows
from igd_jax.items.index import ItemIndex
from igd_jax.session.limits import room_of_prompts
from igd_jax.session.requests import ItemNames, Resolved
from igd_jax.session.session import Session

_TITLES_TRIED = 256
FEW = 16
"""Most unknown titles at once that are looked for among those that are spelt alike."""


class Histories:
    """Makes prompts, or rows of items, after which there is room for every candidate of `index`."""

    def __init__(self, session: Session, index: ItemIndex):
        self._session, self._index = session, index

    @cached_property
    def _room(self) -> int:
        return room_of_prompts(self._session, self._index)

    @cached_property
    def _head(self) -> Int[np.ndarray, " P"]:
        """Ids that a prompt begins with whatever its history, as far as some titles and none tell.

        What the requests of a call happen to share would be another number of ids each time, and another program.
        """
        prompts, texts = self._session.prompts, self._session.identifiers.texts
        n_items = len(self._index.titles)
        some = range(0, n_items, -(-n_items // _TITLES_TRIED))
        if texts is None:
            tried: TokenRows = prompts.of_items(Ragged.from_lists([*([item] for item in some), []]))
        else:
            tried = prompts.of_texts([*([texts[item]] for item in some), []])
        return shared_prefix(tried, np.ones(len(tried), bool))

    @property
    def _limit(self) -> str:
        """The limit of histories that were cut."""
        if self._session.method.inputs == "items":
            return f"over {self._session.most_items} items"
        return f"over {self._room} tokens in the prompt"

    @property
    def reads_words(self) -> bool:
        """Whether a history may contain arbitrary text."""
        return self._session.method.inputs == "text" and self._session.identifiers.texts is not None

    def of_items(self, history: Ragged, *, is_request: bool = False) -> Examples:
        """Histories of items, oldest first."""
        if self._session.method.inputs == "items":
            return item_examples(history, room=self._session.most_items)
        head = self._head if is_request else None
        return ranked_examples(history, self._session.prompts.of_items, room=self._room, head=head)

    def of_rows(self, rows: Rows) -> Examples:
        """Rows of a split, without their targets. Prints how many histories were cut."""
        examples = self.of_items(rows.history)
        if n_cut := int(examples.is_cut.sum()):
            say(f"{n_cut:,} of {len(examples):,} histories without their oldest items: {self._limit}")
        return examples

    def of_requests(self, resolved: Sequence[Resolved], names: ItemNames) -> tuple[Examples, list[list[str]]]:
        """Histories of requests, and notes on parts that are not read as given.

        The notes on a few unknown titles, `FEW`, also suggest what of `names` was meant; looking for it takes time.
        """
        n_unknown = sum(item is None for found in resolved for _, item in found.entries)
        notes = [self._unknown(found, names if n_unknown <= FEW else None) for found in resolved]
        if self.reads_words:
            texts = self._session.identifiers.texts
            assert texts is not None
            examples = self._of_texts(
                [[entry if item is None else texts[item] for entry, item in found.entries] for found in resolved]
            )
        else:
            known = [[item for item in found.items if item is not None] for found in resolved]
            examples = self.of_items(Ragged.from_lists(known), is_request=True)
        for row in np.flatnonzero(examples.is_cut).tolist():
            notes[row].append(f"the history is cut to its newest items: {self._limit}")
        return examples, notes

    def _of_texts(self, histories: Sequence[Sequence[str]]) -> Examples:
        texts = [text for history in histories for text in history]

        def prompts_of(history: Ragged) -> TokenRows:
            return self._session.prompts.of_texts(
                [[texts[place] for place in history[row]] for row in range(len(history))]
            )

        lengths = np.array([len(history) for history in histories], np.int64)
        places = Ragged(np.arange(len(texts), dtype=np.int32), starts_of(lengths))
        return ranked_examples(places, prompts_of, room=self._room, head=self._head)

    def _unknown(self, found: Resolved, names: ItemNames | None) -> list[str]:
        """A note for each entry of the history that is not in the catalogue, with suggestions if there are names."""
        becomes = "; the model reads it as plain text"
        if not self.reads_words:
            becomes = ", so the model cannot read it; it is left out"
        return [
            f"{entry!r} is neither a title nor an item of the catalogue{becomes}"
            f"{names.suggested(entry) if names else ''}"
            for entry, item in found.entries
            if item is None
        ]
