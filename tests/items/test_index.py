"""One call from titles to gain, candidates chosen by name or by file."""

import numpy as np
import pytest
from plain_trie import EOS, lists_of

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.items.index import build_index, choose_candidates

TITLES = ["B", "A", "A", "C D", "C"]
TOKENS = Ragged.from_lists([[2, 9, EOS], [1, 9, EOS], [1, 9, EOS], [3, 4, 9, EOS], [3, 9, EOS]])
COUNTS = np.array([2, 1, 0, 0, 3])
SEEN = np.array([True, True, False, False, True])
IDS = [f"item{number}" for number in range(5)]


def _choose(which: str, *, counts=COUNTS, seen=SEEN):
    return choose_candidates(which, IDS, TITLES, counts=counts, seen=seen)


def _index(which: str = "catalogue"):
    return build_index(TITLES, TOKENS, COUNTS, candidates=_choose(which))


def test_rows_know_their_title_and_the_longest_length():
    index = _index()
    assert [index.title_of_row(row) for row in range(len(index.catalog))] == ["A", "B", "C D", "C"]
    assert index.longest_title == 4
    assert lists_of(index.item_tokens) == lists_of(TOKENS)


def test_walked_titles_carry_their_tokens_mask_and_gain():
    index = _index()
    walk = index.walk(TOKENS.take(np.array([4, 3, 0])))
    assert walk.tokens.tolist() == [[3, 9, EOS, 0], [3, 4, 9, EOS], [2, 9, EOS, 0]]
    assert walk.mask.sum(axis=1).tolist() == [3, 4, 3]
    assert walk.on_trie.all()
    p = np.array([1, 2, 3]) / 6  # A, B, C; nobody took C D
    mass = -p * np.log(p)
    expected = [[mass[:2].sum(), 0, 0, 0], [mass[:2].sum(), mass[2], 0, 0], [mass[[0, 2]].sum(), 0, 0, 0]]
    np.testing.assert_allclose(walk.gain, expected, rtol=1e-12)
    assert walk.forced.tolist() == [[gain == 0 for gain in row] for row in expected]


def test_a_title_off_the_trie_gains_nothing_on_all_its_tokens():
    index = _index("train")
    walk = index.walk(TOKENS.take(np.array([3, 4])))  # C D is no candidate, but begins like C, which is one
    assert walk.on_trie.tolist() == [False, True]
    assert not walk.gain[0].any()
    assert walk.forced[0].all()
    assert walk.gain[1].any()
    assert walk.mask.sum(axis=1).tolist() == [4, 3]


def test_catalogue_means_all_and_train_means_titles_that_someone_took():
    assert _choose("catalogue").all()
    # Item 2 was never taken itself, but its title was.
    assert _choose("train").tolist() == [True, True, True, False, True]


def test_warm_means_titles_that_training_saw_and_cold_the_others():
    assert _choose("warm").tolist() == [True, True, True, False, True]
    assert _choose("cold").tolist() == [False, False, False, True, False]
    assert _choose("cold", seen=SEEN & (np.arange(5) > 0)).tolist() == [True, False, False, True, False]
    assert _choose("train", seen=np.zeros(5, bool)).tolist() == [True, True, True, False, True]
    index = _index("cold")
    assert [index.title_of_row(row) for row in range(len(index.catalog))] == ["C D"]


def test_without_a_cold_title_no_candidate_is_left():
    with pytest.raises(InputError, match="no candidate"):
        build_index(TITLES, TOKENS, COUNTS, candidates=_choose("cold", seen=np.ones(5, bool)))


def test_a_file_names_candidates_line_by_line(tmp_path):
    path = tmp_path / "in_stock.txt"
    path.write_text("item3\n\n  item0 \nitem3\n", encoding="utf-8")
    assert _choose(str(path)).tolist() == [True, False, False, True, False]


def test_a_file_with_unknown_items_or_no_file_is_bad_input(tmp_path):
    path = tmp_path / "in_stock.txt"
    path.write_text("item3\nitem77\nitem78\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"2 item ids .* 'item77'"):
        _choose(str(path))
    with pytest.raises(InputError, match="trian"):
        _choose("trian")


def test_an_empty_file_leaves_no_candidate(tmp_path):
    path = tmp_path / "in_stock.txt"
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="no candidate"):
        _index(str(path))
