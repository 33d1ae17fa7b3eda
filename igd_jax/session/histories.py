"""Histories in the form that the model of a run reads."""

from collections.abc import Sequence

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged, TokenRows
from igd_jax.data.examples import Examples, item_examples, make_examples
from igd_jax.data.prepared import Rows
from igd_jax.items.index import ItemIndex
from igd_jax.session.requests import ItemNames, Request, Resolved
from igd_jax.session.session import Session

FEW = 16
"""Most requests at once whose unknown titles are looked for among those that are spelt alike."""


class Histories:
    """Makes prompts, or rows of items, that leave room for every candidate of `index`."""

    def __init__(self, session: Session, index: ItemIndex, names: ItemNames):
        self._session, self._index, self._names = session, index, names

    @property
    def reads_words(self) -> bool:
        """Whether a history may contain arbitrary text."""
        return self._session.method.inputs == "text" and self._session.identifiers.texts is not None

    def of_rows(self, rows: Rows) -> Examples:
        """Rows of a split, without their targets."""
        history = rows.history
        if self._session.method.inputs == "items":
            return item_examples(history)
        return self._fit(self._session.prompts.of_items(history))

    def of_requests(
        self, requests: Sequence[Request], resolved: Sequence[Resolved]
    ) -> tuple[Examples, list[list[str]]]:
        """Histories of requests, and notes on parts that are not read as given.

        The notes of a few requests, `FEW`, also suggest what was meant; looking for it takes time.
        """
        pairs = zip(requests, resolved, strict=True)
        notes = [self._unknown(request, found, suggests=len(requests) <= FEW) for request, found in pairs]
        if self.reads_words:
            histories = [
                [entry if item is None else self._index.titles[item] for entry, item in pairs]
                for pairs in (zip(r.history, f.items, strict=True) for r, f in zip(requests, resolved, strict=True))
            ]
            examples = self._fit(self._session.prompts.of_texts(histories))
            for told, is_whole in zip(notes, examples.has_prefix.tolist(), strict=True):
                if not is_whole:
                    limit = self._session.settings.data.max_length
                    told.append(f"the history is cut to its newest part: with a title over {limit} tokens")
            return examples, notes
        known = [[item for item in found.items if item is not None] for found in resolved]
        history = Ragged.from_lists(known)
        if self._session.method.inputs == "items":
            return item_examples(history), notes
        return self._fit(self._session.prompts.of_items(history)), notes

    def _fit(self, prompts: TokenRows) -> Examples:
        return make_examples(prompts, room=room_of_prompts(self._session, self._index))

    def _unknown(self, request: Request, found: Resolved, *, suggests: bool) -> list[str]:
        """A note for each entry of the history that is not in the catalogue."""
        becomes = "; the model reads it as plain text"
        if not self.reads_words:
            becomes = ", so the model cannot read it; it is left out"
        return [
            f"{entry!r} is neither a title nor an item of the catalogue{becomes}"
            f"{self._names.suggested(entry) if suggests else ''}"
            for entry, item in zip(request.history, found.items, strict=True)
            if item is None
        ]


def room_of_prompts(session: Session, index: ItemIndex) -> int:
    """Tokens that a prompt may have, so that the longest candidate fits after it.

    Raises:
      InputError: there are none.
    """
    limit = session.settings.data.max_length
    if (room := limit - index.longest) < 1:
        raise InputError(
            f"config.data.max_length is {limit}, but the longest candidate alone has {index.longest} tokens; raise it"
        )
    return room
