"""Titles between other texts have the ids of the whole."""

import numpy as np
import pytest
from plain_trie import lists_of

from igd_jax.core.ragged import Ragged
from igd_jax.data.mentions import between
from igd_jax.data.tokenizer import train_tokenizer

TITLES = [
    *("", "one", "two words", "three whole words", " leads", "trails ", "a  b", " ", "  ", "a ", " a", "a b ", " a b"),
    *("a \n b", "tab\tbetween words", "no\u00a0break", "x , y", "e \u0301 f", "日本 語 の 本", "a b", "a b"),
]
AROUND = [("", "\n"), ("", "\n\nNext:\n"), (" ", ","), (" ", "\n\n### Response: \n")]


@pytest.mark.parametrize(("before", "after"), AROUND)
def test_every_title_has_the_ids_of_the_whole(before, after):
    tokenizer, rng = (
        train_tokenizer([before + title + after for title in TITLES], vocab_size=400),
        np.random.default_rng(0),
    )
    titles = [*TITLES, *("".join(rng.choice([*"ab  \n,.'1"], 7)) for _ in range(300))]
    lines = Ragged.from_lists(tokenizer.encode([title + "\n" for title in titles]))
    found = between(before, after, titles, lines, tokenizer)
    assert lists_of(found) == tokenizer.encode([before + title + after for title in titles])


def test_no_titles_have_no_ids():
    tokenizer = train_tokenizer(TITLES, vocab_size=300)
    assert len(between(" ", ",", [], tokenizer.encode_titles([]), tokenizer)) == 0
