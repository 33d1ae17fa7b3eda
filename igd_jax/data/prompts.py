"""Every word that a model is given: templates, and prompts as ids.

The text of a template is data: models are trained on it, misspellings included. Never mend one; add another.

Items of a history are not tokenised again. Each has its ids between two others and its ids at the end of a history, and
a prompt joins them, when it is asked for: only the lengths of all prompts are known before. Where a token might cross
the border between two items (`data.borders`), the whole prompt is tokenised instead, so ids are always those of the
whole text; many such prompts are kept on disk.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.log import told
from igd_jax.core.ragged import Ragged, TokenRows
from igd_jax.data.borders import left_of, right_of
from igd_jax.data.joined import JoinedRows, Pieces
from igd_jax.data.token_cache import cached_rows
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.items.identifiers import Identifiers

_AT_ONCE = 1 << 13
_KEPT_ON_DISK = 10_000
"""Prompts tokenised whole, from which number on they are kept on disk: fewer take seconds."""


@dataclass(frozen=True)
class Template:
    """What stands around the titles of a history; ``{category}`` is the noun for the items.

    Attributes:
      apart: text that is tokenised on its own, before all else; may be empty.
      lead: text before the history.
      before, after: text on both sides of each title; after the last one stands `closing` instead of `after`.
      closing: text after the history.
      unknown: text instead of lead and history in the counterfactual prompt, which says that they are not known.
    """

    apart: str
    lead: str
    before: str
    after: str
    closing: str
    unknown: str


_IGD = Template(
    apart=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request. \n\n"
        "### Instruction:\n"
        "Given a list of {category} the user recetenly enjoy, please write a new {category} that the user may bought\n"
    ),
    lead="### User Input: \nThe user has palyed the following {category}s before:",
    before=" ",
    after=",",
    closing="\n\n### Response: \n",
    unknown="### User Input: \nUnknow",
)
"""The prompt of the IGD authors, byte for byte; titles unquoted."""

_PLAIN = Template(
    apart="",
    lead="Past {category}, oldest first:\n",
    before="",
    after="\n",
    closing="\n\nNext:\n",
    unknown="Past {category}, oldest first:\nunknown",
)
"""Ours: one title per line, oldest first, and few words around them, since every token costs time."""

TEMPLATES = {"igd": _IGD, "plain": _PLAIN}


def filled(template: str, *, category: str) -> Template:
    """A template with its category.

    Args:
      template: `config.data.prompt`.
      category: noun for the items, such as ``books``.

    Raises:
      InputError: there is no such template.
    """
    if template not in TEMPLATES:
        raise InputError(f"config.data.prompt is {template!r}; known prompts are {', '.join(sorted(TEMPLATES))}")
    return Template(**{name: text.format(category=category) for name, text in vars(TEMPLATES[template]).items()})


def render(template: str, history: Sequence[str] | None, *, category: str) -> tuple[str, ...]:
    """The pieces of one prompt, to be tokenised apart and joined as ids.

    Args:
      history: titles, oldest first; None for the counterfactual prompt.

    Raises:
      InputError: there is no such template.
    """
    return _render(filled(template, category=category), history)


def _render(words: Template, history: Sequence[str] | None) -> tuple[str, ...]:
    told = words.unknown if history is None else words.lead + words.before + (words.after + words.before).join(history)
    return (words.apart, told + words.closing) if words.apart else (told + words.closing,)


class Prompts:
    """Prompts as ids: BOS where the tokenizer has one, the template's words, and the history between them.

    Histories of items that are no words (`Identifiers.texts` is None) stand as their mentions, end to end, between the
    ids of the words before and after; those are then the ids of the whole by definition.

    Attributes:
      n_whole: histories of items that were tokenised whole so far, since a token might have crossed a border.
    """

    def __init__(self, template: str, category: str, tokenizer: Tokenizer, identifiers: Identifiers, cache: Path):
        self._words, self._tokenizer = filled(template, category=category), tokenizer
        self._identifiers, self._cache = identifiers, cache
        self.n_whole = 0

    @property
    def has_words(self) -> bool:
        """Whether items are written in words."""
        return self._identifiers.texts is not None

    def of_items(self, history: Ragged) -> TokenRows:
        """The prompt of each history of items, oldest first; joined when it is asked for."""
        texts = self._identifiers.texts
        if texts is not None and not self._tokenizer.splits_at_borders:
            return self._whole(history, texts)
        pieces, n_rows = self._pieces, len(history)
        lengths, may_merge = np.zeros(n_rows, np.int32), np.zeros(n_rows, bool)
        for rows in told(_groups(n_rows), "measured", n_rows, "prompts"):
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
        return self._tokenizer.encode_prompts([_render(self._words, history) for history in histories])

    def without_history(self) -> Int[np.ndarray, " ids"]:
        """The counterfactual prompt, which says that the history is not known."""
        return self._tokenizer.encode_prompts([_render(self._words, None)])[0]

    def _whole(self, history: Ragged, texts: Sequence[str]) -> Ragged:
        n_rows = len(history)
        self.n_whole += n_rows

        def parts() -> Iterator[Ragged]:
            for rows in told(_groups(n_rows), "tokenised whole", n_rows, "prompts"):
                yield self.of_texts([[texts[item] for item in history[row]] for row in rows])

        if n_rows < _KEPT_ON_DISK:
            return Ragged.concatenate([_NO_ROWS, *parts()])
        words = (self._words.apart, self._words.lead, self._words.before, self._words.after, self._words.closing)
        mark = fingerprint(self._tokenizer.fingerprint, *words, history.ids, history.start, *texts)
        self._cache.mkdir(parents=True, exist_ok=True)
        return cached_rows(self._cache, f"prompts-{mark}", n_rows, parts)

    @cached_property
    def _pieces(self) -> Pieces:
        words, texts = self._words, self._identifiers.texts
        if texts is None:
            return self._mentioned(self._identifiers.mentions())
        is_mention = (words.before, words.after) == ("", "\n")
        inside = [self._identifiers.mentions()] if is_mention else self._encoded(words.after)
        start = self._tokenizer.encode_prompts([(words.apart, words.lead), _render(words, [])])
        n_items = len(texts)

        def kinds(of: Callable[[str], int], part: slice, end: str) -> UInt8[np.ndarray, " n_items"]:
            kind = cache(lambda text: of(words.before + text + end))
            return np.fromiter((kind(text[part]) for text in texts), np.uint8, n_items)

        first, last = slice(1), slice(-2, None)  # what a kind depends on
        left, none = kinds(left_of, last, words.after), np.zeros(n_items, np.uint8)
        right, right_last = kinds(right_of, first, words.after), kinds(right_of, first, words.closing)
        return Pieces(
            Ragged.concatenate([*inside, *self._encoded(words.closing), start]),
            np.concatenate([left, none, np.array([left_of(words.lead), 0], np.uint8)]),
            np.concatenate([right, right_last, np.zeros(2, np.uint8)]),
        )

    def _encoded(self, end: str) -> Iterator[Ragged]:
        """Ids of each title with what stands before it, and `end`."""
        assert self._identifiers.texts is not None
        return self._tokenizer.encode_parts(self._words.before, self._identifiers.texts, end)

    def _mentioned(self, mentions: Ragged) -> Pieces:
        """Pieces that are ids of their own."""
        words, n_items = self._words, len(mentions)
        closing = Ragged.from_lists(self._tokenizer.encode([words.closing]))
        pairs = np.stack([np.arange(n_items), np.full(n_items, n_items)], axis=1).astype(np.int32)
        last = Ragged.concatenate([mentions, closing]).join(Ragged(pairs.ravel(), 2 * np.arange(n_items + 1)))
        start = self._tokenizer.encode_prompts([(words.apart, words.lead), (words.apart, words.lead, words.closing)])
        every = np.ones(2 * n_items + 2, np.uint8)
        return Pieces(Ragged.concatenate([mentions, last, start]), every, every)


_NO_ROWS = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))


def _groups(n_rows: int) -> Iterator[range]:
    """Numbers of rows, some thousands at a time."""
    return (range(begin, min(begin + _AT_ONCE, n_rows)) for begin in range(0, n_rows, _AT_ONCE))
