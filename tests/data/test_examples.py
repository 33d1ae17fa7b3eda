"""Prompts are cut from the left to make room for the target, which is never cut; titles are tokenised once."""

import numpy as np
import pytest
from plain_trie import EOS, lists_of

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import make_examples, shared_prefix, title_tokens
from igd_jax.data.tokenizer import Tokenizer, train_tokenizer
from igd_jax.items.index import build_index

TITLES = ["short", "a long one"]
TOKENS = Ragged.from_lists([[7, EOS], [7, 8, 9, EOS]])
PROMPTS = Ragged.from_lists([[1, 2, 3, 4, 5], [1, 2], [1, 2, 3, 4, 5], [1, 2, 3]])
TARGET = np.array([0, 0, 1, 1], np.int32)


@pytest.fixture
def index():
    return build_index(TITLES, TOKENS, np.array([1, 1]), candidates=np.ones(2, bool))


def test_prompts_lose_their_oldest_tokens_and_are_counted(index):
    examples = make_examples(PROMPTS, TARGET, index, max_length=6)
    assert lists_of(examples.prompt) == [[2, 3, 4, 5], [1, 2], [4, 5], [2, 3]]
    assert examples.n_cut == 3
    assert len(examples) == 4
    assert examples.target is TARGET


def test_the_header_is_what_all_prompts_that_were_not_cut_begin_with(index):
    examples = make_examples(PROMPTS, TARGET, index, max_length=7)
    assert lists_of(examples.prompt) == [[1, 2, 3, 4, 5], [1, 2], [3, 4, 5], [1, 2, 3]]
    assert examples.header.tolist() == [1]  # a token is left to the shortest
    assert examples.has_header.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("rows", "prefix"),
    [([[1, 2, 3], [1, 2, 4]], [1, 2]), ([[1, 2], [3, 2]], []), ([[1, 2, 3]], []), ([[5], [5]], []), ([], [])],
)
def test_a_shared_prefix_leaves_a_token_to_each_row_and_needs_two_rows(rows, prefix):
    assert shared_prefix(Ragged.from_lists(rows), np.ones(len(rows), bool)).tolist() == prefix


def test_nothing_is_cut_where_there_is_room(index):
    examples = make_examples(PROMPTS, TARGET, index, max_length=9)
    assert lists_of(examples.prompt) == lists_of(PROMPTS)
    assert examples.n_cut == 0


def test_a_title_without_room_for_a_prompt_is_bad_input(index):
    with pytest.raises(InputError, match=r"max_length is 4, but the title 'a long one' alone has 4 tokens"):
        make_examples(PROMPTS, TARGET, index, max_length=4)


def test_no_rows_are_no_examples(index):
    none = make_examples(Ragged.from_lists([]), TARGET[:0], index, max_length=1)
    assert (len(none), none.n_cut) == (0, 0)


def test_titles_are_tokenised_once_and_other_titles_anew(tmp_path, monkeypatch):
    tokenizer = train_tokenizer(TITLES, vocab_size=270)
    calls = []
    encode = Tokenizer.encode_titles
    monkeypatch.setattr(Tokenizer, "encode_titles", lambda self, titles: calls.append(titles) or encode(self, titles))
    for titles in (TITLES, TITLES, TITLES[::-1]):
        rows = title_tokens(titles, tokenizer, cache=tmp_path / "cache")
        assert lists_of(rows) == lists_of(encode(tokenizer, titles))
    assert calls == [TITLES, TITLES[::-1]]


def test_another_tokenizer_does_not_get_the_ids_of_the_first(tmp_path):
    rows = [
        title_tokens(TITLES, train_tokenizer(TITLES, vocab_size=size), cache=tmp_path / "cache") for size in (257, 270)
    ]
    assert lists_of(rows[0]) != lists_of(rows[1])


def test_a_run_that_has_no_folder_yet_gets_none(tmp_path):
    title_tokens(TITLES, train_tokenizer(TITLES, vocab_size=260), cache=tmp_path / "run" / "cache")
    assert not (tmp_path / "run").exists()
