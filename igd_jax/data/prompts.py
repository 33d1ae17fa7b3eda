"""Prompts as ids: the words of a template around a history.

Items of a history are not tokenised again. Each has its ids between two others and its ids at the end of a history, and
a prompt joins them, when it is asked for: only the lengths of all prompts are known before. Where a token might cross
the border between two items (`data.borders`), the whole prompt is tokenised instead, so ids are always those of the
whole text; many such prompts are kept on disk.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.log import with_progress
from igd_jax.core.ragged import NO_ROWS, Ragged, TokenRows
from igd_jax.data.borders import left_of, right_of
from igd_jax.data.joined import JoinedRows, Pieces
from igd_jax.data.templates import Template
from igd_jax.data.token_cache import cached_rows
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.items.identifiers import Identifiers

_AT_ONCE = 1 << 13
_KEPT_ON_DISK = 10_000
"""Prompts tokenised whole, from which number on they are kept on disk: fewer take seconds."""


def render(words: Template, history: Sequence[str] | None) -> tuple[str, ...]:
    """The pieces of one prompt, to be tokenised apart and joined as ids.

    Args:
      words: the template, with its nouns.
      history: titles, oldest first; None for the counterfactual prompt.
    """
    if history is None:
        told = words.unknown
    else:
        titles = (words.quote + title + words.quote for title in history)
        told = words.lead + words.before + (words.after + words.before).join(titles) + words.closing
    return (words.apart, told) if words.apart else (told,)


class Prompts:
    """Prompts as ids: BOS where the tokenizer has one, the template's words, and the history between them.

    Titles are quoted where the template says so; free text of a history is quoted like the titles of the catalogue.

    Histories of items that are not words (`Identifiers.texts` is None) stand as their mentions, end to end, between the
    ids of the words before and after; those are then the ids of the whole by definition.
    """

    def __init__(self, words: Template, tokenizer: Tokenizer, identifiers: Identifiers, cache: Path):
        self._words, self._tokenizer = words, tokenizer
        self._identifiers, self._cache = identifiers, cache
        self._end = np.array([tokenizer.eos] if words.has_eos else [], np.int32)
        if words.has_eos and self.has_words:
            raise InputError(
                "config.data.prompt names a template for codes, but items are written in words, which it would not "
                "keep apart; choose another, or config.identifiers.name=codes"
            )

    @property
    def has_words(self) -> bool:
        """Whether items are written in words."""
        return self._identifiers.texts is not None

    @property
    def quote(self) -> str:
        """Mark on both sides of each title, in histories and answers; may be empty."""
        return self._words.quote

    @cached_property
    def n_words(self) -> int:
        """Tokens of a prompt without items: the words of the template alone."""
        return int(self.of_items(Ragged.from_lists([[]])).lengths[0])

    def of_items(self, history: Ragged) -> TokenRows:
        """The prompt of each history of items, oldest first; joined when it is asked for."""
        texts = self._identifiers.texts
        if texts is not None and not self._tokenizer.splits_at_borders:
            return self._whole(history, texts)
        pieces, n_rows = self._pieces, len(history)
        lengths, may_merge = np.zeros(n_rows, np.int32), np.zeros(n_rows, bool)
        for rows in with_progress(_groups(n_rows), "measured", n_rows, "prompts"):
            numbers = pieces.numbers(history.part(rows.start, rows.stop))
            lengths[rows.start : rows.stop] = np.add.reduceat(pieces.rows.lengths[numbers.ids], numbers.start[:-1])
            if texts is not None:
                may_merge[rows.start : rows.stop] = pieces.may_merge(numbers)
        which_whole = np.flatnonzero(may_merge)
        whole = self._whole(history.take(which_whole), texts or ())
        lengths[which_whole] = whole.lengths
        return JoinedRows(pieces, history, lengths, which_whole, whole)

    def of_texts(self, histories: Sequence[Sequence[str]]) -> Ragged:
        """The prompt of each history of free text, oldest first, tokenised whole.

        Raises:
          InputError: items are not written in words.
        """
        if not self.has_words:
            raise InputError("a history of free text was given, but items are not written in words; give items by id")
        return self._tokenizer.encode_prompts([render(self._words, history) for history in histories])

    def without_history(self) -> Int[np.ndarray, " ids"]:
        """The counterfactual prompt, which says that the history is not known."""
        return np.append(self._tokenizer.encode_prompts([render(self._words, None)])[0], self._end)

    def _whole(self, history: Ragged, texts: Sequence[str]) -> Ragged:
        n_rows = len(history)

        def parts() -> Iterator[Ragged]:
            for rows in with_progress(_groups(n_rows), "tokenised whole", n_rows, "prompts"):
                yield self.of_texts([[texts[item] for item in history[row]] for row in rows])

        if n_rows < _KEPT_ON_DISK:
            return Ragged.concatenate([NO_ROWS, *parts()])
        self._cache.mkdir(parents=True, exist_ok=True)
        mark = self._mark(history.ids, history.start, *texts)
        return cached_rows(self._cache, f"prompts-{mark}", n_rows, parts)

    def _mark(self, *parts: str | np.ndarray) -> str:
        """Fingerprint that changes with the tokenizer, the template, and `parts`."""
        return fingerprint(self._tokenizer.fingerprint, *map(str, vars(self._words).values()), *parts)

    @cached_property
    def _pieces(self) -> Pieces:
        words, texts = self._words, self._identifiers.texts
        if texts is None:
            return self._mentioned(self._identifiers.mentions())
        before, after, closing = words.before + words.quote, words.quote + words.after, words.quote + words.closing
        is_mention, n_items = (before, after) == words.around, len(texts)
        mentions = self._identifiers.mentions() if is_mention else NO_ROWS

        def rows() -> Iterator[Ragged]:
            yield from [mentions] if is_mention else self._encoded(before, after)
            yield from self._encoded(before, closing)
            yield self._tokenizer.encode_prompts([(words.apart, words.lead), render(words, [])])

        def kinds(of: Callable[[str], int], part: slice, end: str) -> UInt8[np.ndarray, " n_items"]:
            kind = cache(lambda text: of(before + text + end))
            return np.fromiter((kind(text[part]) for text in texts), np.uint8, n_items)

        first, last = slice(1), slice(-2, None)  # what a kind depends on
        left, none = kinds(left_of, last, after), np.zeros(n_items, np.uint8)
        right, right_last = kinds(right_of, first, after), kinds(right_of, first, closing)
        return Pieces(
            cached_rows(
                self._cache, f"pieces-{self._mark(mentions.ids, mentions.start, *texts)}", 2 * n_items + 2, rows
            ),
            np.concatenate([left, none, np.array([left_of(words.lead), 0], np.uint8)]),
            np.concatenate([right, right_last, np.zeros(2, np.uint8)]),
        )

    def _encoded(self, before: str, after: str) -> Iterator[Ragged]:
        """Ids of each title with what stands on both sides of it."""
        assert self._identifiers.texts is not None
        return self._tokenizer.encode_parts(before, self._identifiers.texts, after)

    def _mentioned(self, mentions: Ragged) -> Pieces:
        """Pieces that are ids of their own."""
        words, n_items = self._words, len(mentions)
        (closing,) = self._tokenizer.encode([words.closing])
        closing = [*closing, *self._end.tolist()]
        last = mentions.followed_by(Ragged.from_lists([closing]).take(np.zeros(n_items, int)))
        start = self._tokenizer.encode_prompts([(words.apart, words.lead)])[0].tolist()
        starts = Ragged.from_lists([start, [*start, *closing]])
        every = np.ones(2 * n_items + 2, np.uint8)
        return Pieces(Ragged.concatenate([mentions, last, starts]), every, every)


def _groups(n_rows: int) -> Iterator[range]:
    """Numbers of rows, some thousands at a time."""
    return (range(begin, min(begin + _AT_ONCE, n_rows)) for begin in range(0, n_rows, _AT_ONCE))
