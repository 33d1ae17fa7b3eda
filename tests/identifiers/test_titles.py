"""Identifiers are found by name; titles are tokenised once and kept on disk."""

from pathlib import Path

import numpy as np
import pytest
from plain_trie import lists_of

from igd_jax.core.errors import InputError
from igd_jax.data.tokenizer import Tokenizer, train_tokenizer
from igd_jax.identifiers.base import Source, identifiers_class
from igd_jax.items.identifiers import Identifiers

TITLES = ["short", "a long one"]


def _titles(cache: Path, titles: list[str] = TITLES, vocab_size: int = 270, **source) -> Identifiers:
    tokenizer = train_tokenizer(TITLES, vocab_size=vocab_size)
    ids = [str(number) for number in range(len(titles))]
    return identifiers_class("titles")(Source(ids, titles, {}, tokenizer, cache, **source))


def test_rows_are_title_newline_and_eos_and_mentions_go_without_eos(tmp_path):
    tokenizer, found = train_tokenizer(TITLES, vocab_size=270), _titles(tmp_path / "cache")
    encoded = tokenizer.encode([title + "\n" for title in TITLES])
    assert lists_of(found.rows()) == [[*ids, tokenizer.eos] for ids in encoded]
    assert lists_of(found.mentions()) == encoded
    assert found.mentions().ids.dtype == np.int32
    assert (found.vocab_size, found.texts) == (tokenizer.vocab_size, TITLES)


def test_rows_and_mentions_have_what_the_template_puts_around_a_title_and_texts_have_not(tmp_path):
    tokenizer = train_tokenizer(TITLES, vocab_size=270)
    for around in (("", "\n"), ('"', '"\n'), ('"', '"')):
        found = _titles(tmp_path / "cache", around=around)  # the cache of one is not that of another
        encoded = tokenizer.encode([around[0] + title + around[1] for title in TITLES])
        assert lists_of(found.rows()) == [[*ids, tokenizer.eos] for ids in encoded]
        assert lists_of(found.mentions()) == encoded
        assert found.texts == TITLES


def test_unknown_identifiers_are_bad_input_that_names_the_known_ones():
    with pytest.raises(InputError, match=r"config\.identifiers\.name is 'base'; expected one of codes, titles"):
        identifiers_class("base")


def test_titles_are_tokenised_once_and_other_titles_anew(tmp_path, monkeypatch):
    calls = []
    parts = Tokenizer.title_parts
    monkeypatch.setattr(Tokenizer, "title_parts", lambda self, *args: calls.append(args) or parts(self, *args))
    for titles in (TITLES, TITLES, TITLES[::-1]):
        found = _titles(tmp_path / "cache", titles)
        (expected,) = parts(train_tokenizer(TITLES, vocab_size=270), titles)
        assert lists_of(found.rows()) == lists_of(expected)
        found.mentions()
    assert [titles for titles, *_ in calls] == [TITLES, TITLES[::-1]]


def test_another_tokenizer_does_not_get_the_ids_of_the_first(tmp_path):
    rows = [_titles(tmp_path / "cache", vocab_size=size).rows() for size in (257, 270)]
    assert lists_of(rows[0]) != lists_of(rows[1])


def test_a_run_that_has_no_folder_yet_gets_none(tmp_path):
    _titles(tmp_path / "run" / "cache").rows()
    assert not (tmp_path / "run").exists()
