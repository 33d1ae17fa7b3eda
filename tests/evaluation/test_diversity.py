"""Diversity and popularity, against figures that are known by hand."""

import numpy as np
import pytest

from igd_jax.evaluation.diversity import describe_choice, entropy, gini, overlap
from igd_jax.evaluation.metrics import CatalogueRows

CATALOGUE = CatalogueRows.of_items(
    np.arange(5),
    candidates=np.array([1, 1, 1, 1, 0], bool),
    counts=np.array([6, 3, 3, 0, 0]),
    seen=np.array([1, 1, 1, 0, 0], bool),
)


def test_entropy_and_gini_of_equal_of_lonely_and_of_no_counts():
    assert entropy(np.array([2, 2, 2, 2, 0])) == pytest.approx(np.log(4))
    assert entropy(np.array([0, 7])) == entropy(np.zeros(3, int)) == 0
    assert gini(np.array([5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)
    assert gini(np.zeros(4, int)) == 0
    some = np.array([1, 4, 0, 2, 2])
    mean_difference = np.abs(some[:, None] - some[None]).mean()
    assert gini(some) == pytest.approx(mean_difference / (2 * some.mean()))


def test_a_choice_is_described_by_how_often_each_row_is_in_it():
    rows, first_token = np.array([0, 0, 1, 3, 0, 4]), np.array([7, 7, 8, 8, 9])
    found = describe_choice(rows, CATALOGUE, first_token)
    assert found == {
        "n": 6,
        "distinct": 4,
        "coverage": 3 / 4,
        "entropy": pytest.approx(entropy(np.array([3, 1, 1, 1]))),
        "gini": pytest.approx(gini(np.array([3, 1, 0, 1, 1]))),
        "first_token_entropy": pytest.approx(entropy(np.array([4, 1, 1]))),
        "first_token_top": 4 / 6,
        "train_count": 21 / 6,
        "never_target": 2 / 6,
        "head": 3 / 6,
        "mid": 1 / 6,
        "tail": 2 / 6,
    }


def test_a_row_without_a_first_token_has_no_part_in_their_figures():
    first_token = np.array([7, 8, -1, 9, 9])
    found = describe_choice(np.array([0, 1, 1, 2, 2, 2]), CATALOGUE, first_token)
    assert found["first_token_entropy"] == pytest.approx(entropy(np.array([1, 2])))
    assert (found["n"], found["first_token_top"]) == (6, 2 / 3)
    found = describe_choice(np.array([2, 2]), CATALOGUE, first_token)
    assert (found["first_token_entropy"], found["first_token_top"]) == (0, 0)


def test_overlap_is_the_share_of_the_second_list_that_is_in_the_first():
    a, b = np.array([[1, 2, 3], [4, -1, -1], [5, 6, 7]]), np.array([[3, 1, 9], [4, -1, -1], [-1, -1, -1]])
    assert overlap(a, b, 3).tolist() == [2 / 3, 1, 1]  # of nothing, nothing is missed
    assert overlap(a, b, 1).tolist() == [0, 1, 1]
