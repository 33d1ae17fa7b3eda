"""Candidates chosen by name or by file."""

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.items.candidates import choose_candidates

TITLES = ["B", "A", "A", "C D", "C"]
COUNTS = np.array([2, 1, 0, 0, 3])
SEEN = np.array([True, True, False, False, True])
IDS = [f"item{number}" for number in range(5)]


def _choose(which: str, *, counts=COUNTS, seen=SEEN):
    return choose_candidates(which, IDS, TITLES, counts=counts, seen=seen, option="config.items.candidates")


def test_catalogue_means_all_and_train_means_titles_that_someone_took():
    assert _choose("catalogue").all()
    # Item 2 was never taken itself, but its title was.
    assert _choose("train").tolist() == [True, True, True, False, True]


def test_warm_means_titles_that_training_saw_and_cold_the_others():
    assert _choose("warm").tolist() == [True, True, True, False, True]
    assert _choose("cold").tolist() == [False, False, False, True, False]
    assert _choose("cold", seen=SEEN & (np.arange(5) > 0)).tolist() == [True, False, False, True, False]
    assert _choose("train", seen=np.zeros(5, bool)).tolist() == [True, True, True, False, True]


def test_a_blank_title_is_a_candidate_only_where_published_or_named(tmp_path):
    path = tmp_path / "in_stock.txt"
    path.write_text("item0\nitem1\n", encoding="utf-8")
    expected = {"catalogue": [0, 0, 1, 1], "train": [1, 1, 1, 0], "warm": [0, 0, 1, 0], "cold": [0, 0, 0, 1]}
    for which, mask in {**expected, str(path): [1, 1, 0, 0]}.items():
        found = choose_candidates(
            which, IDS[:4], ["", " ", "A", "B"], counts=np.array([2, 1, 1, 0]), seen=np.arange(4) < 3, option="x"
        )
        assert found.tolist() == [bool(each) for each in mask], which


def test_without_a_cold_title_no_candidate_is_left():
    assert not _choose("cold", seen=np.ones(5, bool)).any()


def test_a_file_names_candidates_line_by_line(tmp_path):
    path = tmp_path / "in_stock.txt"
    path.write_text("item3\n\n  item0 \nitem3\n", encoding="utf-8")
    assert _choose(str(path)).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_may_begin_with_the_mark_of_its_encoding(tmp_path, encoding):
    path = tmp_path / "in_stock.txt"
    path.write_text("item3\nitem0\n", encoding=encoding)
    assert _choose(str(path)).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize(("text", "encoding"), [("caf\xe9\n", "latin-1"), ("item3\ud800", "utf-16")])
def test_a_file_that_is_no_text_is_bad_input(tmp_path, text, encoding):
    path = tmp_path / "in_stock.txt"
    path.write_bytes(text.encode(encoding, "surrogatepass"))
    with pytest.raises(InputError, match=r"in_stock.txt \(config.items.candidates\) is no UTF-8 text \(.* at byte \d"):
        _choose(str(path))


def test_a_file_with_unknown_items_or_no_file_is_bad_input(tmp_path):
    path = tmp_path / "in_stock.txt"
    path.write_text("item3\nitem77\nitem78\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"in_stock\.txt \(config\.items\.candidates\) names 2 item ids .* 'item77'"):
        _choose(str(path))
    with pytest.raises(InputError, match=r"^config\.items\.candidates is 'trian'"):
        _choose("trian")


def test_an_empty_file_leaves_no_candidate(tmp_path):
    path = tmp_path / "in_stock.txt"
    path.write_text("\n", encoding="utf-8")
    assert not _choose(str(path)).any()
