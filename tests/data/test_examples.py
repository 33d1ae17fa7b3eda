"""Prompts are cut from the left to make room for the target, which is never cut."""

import numpy as np
import pytest
from plain_trie import EOS, lists_of

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples, item_examples, make_examples, room_beside, shared_prefix
from igd_jax.items.index import ItemIndex, build_index

TITLES = ["short", "a long one"]
TOKENS = Ragged.from_lists([[7, EOS], [7, 8, 9, EOS]])
PROMPTS = Ragged.from_lists([[1, 2, 3, 4, 5], [1, 2], [1, 2, 3, 4, 5], [1, 2, 3]])
TARGET = np.array([0, 0, 1, 1], np.int32)


@pytest.fixture
def index():
    return build_index(TITLES, TOKENS, np.array([1, 1]), candidates=np.ones(2, bool))


def _fitted(index: ItemIndex, *, max_length: int) -> Examples:
    return make_examples(PROMPTS, room=room_beside(TARGET, index, max_length=max_length), target=TARGET)


def test_prompts_lose_their_oldest_tokens_and_are_counted(index):
    examples = _fitted(index, max_length=6)
    assert lists_of(examples.prompt) == [[2, 3, 4, 5], [1, 2], [4, 5], [2, 3]]
    assert examples.is_cut.tolist() == [True, False, True, True]
    assert len(examples) == 4
    assert examples.target is TARGET


def test_the_shared_prefix_is_what_all_prompts_that_were_not_cut_begin_with(index):
    examples = _fitted(index, max_length=7)
    assert lists_of(examples.prompt) == [[1, 2, 3, 4, 5], [1, 2], [3, 4, 5], [1, 2, 3]]
    assert examples.shared_prefix.tolist() == [1]  # a token is left to the shortest
    assert examples.has_prefix.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("rows", "prefix"),
    [([[1, 2, 3], [1, 2, 4]], [1, 2]), ([[1, 2], [3, 2]], []), ([[1, 2, 3]], []), ([[5], [5]], []), ([], [])],
)
def test_a_shared_prefix_leaves_a_token_to_each_row_and_needs_two_rows(rows, prefix):
    assert shared_prefix(Ragged.from_lists(rows), np.ones(len(rows), bool)).tolist() == prefix


def test_nothing_is_cut_where_there_is_room(index):
    examples = _fitted(index, max_length=9)
    assert lists_of(examples.prompt) == lists_of(PROMPTS)
    assert not examples.is_cut.any()


def test_a_title_without_room_for_a_prompt_is_bad_input(index):
    with pytest.raises(InputError, match=r"max_length is 4, but the title 'a long one' alone has 4 tokens"):
        _fitted(index, max_length=4)


def test_no_rows_are_no_examples(index):
    room = room_beside(TARGET[:0], index, max_length=1)
    none = make_examples(Ragged.from_lists([]), room=room, target=TARGET[:0])
    assert (len(none), len(none.is_cut)) == (0, 0)


def test_rows_of_items_hold_no_text():
    history = Ragged.from_lists([[3], [1, 2]])
    for target in (None, TARGET[:2]):
        examples = item_examples(history, target)
        assert (len(examples), examples.is_cut.sum(), len(examples.shared_prefix)) == (2, 0, 0)
        assert (examples.history, examples.target) == (history, target)


def test_rows_of_items_lose_their_oldest():
    examples = item_examples(Ragged.from_lists([[3], [1, 2, 5], []]), room=2)
    assert lists_of(examples.history) == [[3], [2, 5], []]
    assert examples.is_cut.tolist() == [False, True, False]
