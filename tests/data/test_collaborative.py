"""Collaborative sources: popularity, and the file that one run leaves for another."""

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.data.collaborative import FILE, Collaborative, load_collaborative, popularity, save_collaborative

WANTED = {"fingerprint": "abc", "split": "test", "n_rows": 4, "n_items": 5}


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    return Collaborative(*(rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 5)))


@pytest.fixture
def folder(source, tmp_path):
    save_collaborative(source, tmp_path / FILE, fingerprint="abc", split="test")
    return tmp_path


def test_scores_are_inner_products_of_the_rows_asked_for(source):
    found = source.scores(np.array([2, 0]))
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found, source.users[[2, 0]] @ source.items.T, rtol=1e-6)


def test_a_file_comes_back_as_it_was(source, folder):
    again = load_collaborative(folder, **WANTED)
    np.testing.assert_array_equal(again.users, source.users)
    np.testing.assert_array_equal(again.items, source.items)
    assert again.users.dtype == again.items.dtype == np.float32


def test_the_first_rows_can_be_read_alone(source, folder):
    np.testing.assert_array_equal(load_collaborative(folder, **WANTED | {"n_rows": 2}).users, source.users[:2])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fingerprint": "xyz"}, "has scores of fingerprint abc, but the rows to rank are of fingerprint xyz"),
        ({"split": "valid"}, "has scores of split test, but the rows to rank are of split valid"),
        ({"n_rows": 5}, "has 4 rows of 5 items, but 5 rows of 5 items are in that split"),
        ({"n_items": 6}, "has 4 rows of 5 items, but 4 rows of 6 items are in that split"),
    ],
)
def test_scores_of_something_else_are_bad_input(folder, changes, told):
    with pytest.raises(InputError, match=told):
        load_collaborative(folder, **WANTED | changes)


def test_a_missing_or_broken_file_is_bad_input(folder):
    with pytest.raises(
        InputError, match=r"holds no collaborative.safetensors; expected 'popularity' or the evaluation"
    ):
        load_collaborative(folder / "none", **WANTED)
    (folder / FILE).write_bytes(b"not a file of tensors")
    with pytest.raises(InputError, match=r"cannot be read .*; evaluate the collaborative run again"):
        load_collaborative(folder, **WANTED)


def test_popularity_is_the_log_of_counts_the_same_for_all_and_nothing_for_none():
    found = popularity(np.array([3, 0, 1]), 4).scores(np.array([3, 1]))
    np.testing.assert_array_equal(found, [np.float32([np.log(3), -np.inf, 0])] * 2)
    assert found.dtype == np.float32
