"""Prompts that are ranked lose whole items, oldest first, where they are too long, and never the words around these."""

from pathlib import Path

import numpy as np
import pytest
from plain_trie import lists_of

from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import ranked_examples
from igd_jax.data.prompts import Prompts, render
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.identifiers.base import Source
from igd_jax.identifiers.titles import Titles

NO_CACHE = Path("no such folder") / "cache"
TITLES = ["a", "two words", "", " leads", "a long title, with many words in it", "trails "]


@pytest.mark.parametrize("template", ["plain", "igd", "d3"])
@pytest.mark.parametrize("splits_at_borders", [True, False])
def test_each_row_has_the_longest_of_its_newest_histories_that_fits(template, splits_at_borders, monkeypatch):
    tokenizer, rng = train_tokenizer([f"{title}\n" for title in TITLES], vocab_size=300), np.random.default_rng(0)
    monkeypatch.setattr(type(tokenizer), "splits_at_borders", splits_at_borders)
    source = Source(["1", "2", "3", "4", "5", "6"], TITLES, {}, tokenizer, NO_CACHE)
    words = filled(template, category="books")
    prompts = Prompts(words, tokenizer, Titles(source), NO_CACHE)
    histories = [rng.integers(0, len(TITLES), n).tolist() for n in (*range(12), 60, 300)]

    def ids_of(history: list[int]) -> list[int]:
        pieces = render(words, [TITLES[item] for item in history])
        return tokenizer.encode_prompts([pieces])[0].tolist()

    for room in (prompts.n_words, prompts.n_words + 9, prompts.n_words + 60, 10_000):
        expected = [
            next(ids for begin in range(len(history) + 1) if len(ids := ids_of(history[begin:])) <= room)
            for history in histories
        ]
        found = ranked_examples(Ragged.from_lists(histories), prompts.of_items, room=room)
        assert lists_of(found.prompt) == expected
        assert found.is_cut.tolist() == [ids_of(h) != ids for h, ids in zip(histories, expected, strict=True)]
        assert found.has_prefix.all()
        first = ids_of([])[:3]
        assert all(row[:3] == first for row in expected)
        assert found.shared_prefix[:3].tolist() == first
    assert not found.is_cut.any()


def test_no_rows_are_no_examples():
    none = ranked_examples(Ragged.from_lists([]), lambda history: history, room=1)
    assert (len(none), len(none.is_cut), len(none.shared_prefix)) == (0, 0, 0)
