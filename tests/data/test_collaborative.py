"""Collaborative sources: popularity, and the file that one run leaves for others."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.data.collaborative import (
    FILE,
    Collaborative,
    load_collaborative,
    load_item_vectors,
    popularity,
    save_collaborative,
)

WANTED = {"fingerprint": "abc", "split": "test", "n_rows": 4, "n_items": 5, "n_train": 9}


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    return Collaborative(*(rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 5)))


@pytest.fixture
def folder(source, tmp_path):
    users = {"valid": source.users[:2] + 1, "test": source.users}
    save_collaborative(tmp_path, source.items, users, fingerprint="abc", n_train=9)
    return tmp_path


def test_scores_are_inner_products_of_the_rows_asked_for(source):
    found = source.scores(np.array([2, 0]))
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found, source.users[[2, 0]] @ source.items.T, rtol=1e-6)
    np.testing.assert_array_equal(source.take(np.array([2, 0])).scores(np.array([0, 1])), found)


def test_a_file_comes_back_as_it_was(source, folder):
    again = load_collaborative(folder, **WANTED)
    np.testing.assert_array_equal(again.users, source.users)
    np.testing.assert_array_equal(again.items, source.items)
    assert again.users.dtype == again.items.dtype == np.float32
    valid = load_collaborative(folder, **WANTED | {"split": "valid", "n_rows": 2})
    np.testing.assert_array_equal(valid.users, source.users[:2] + 1)
    np.testing.assert_array_equal(load_item_vectors(folder, fingerprint="abc", n_items=5, n_train=9), source.items)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fingerprint": "xyz"}, "has vectors of data abc, but this run's data is xyz; train a collaborative run on"),
        ({"split": "train"}, "which has no scores for the rows of train; rank those of valid or test"),
        (
            {"n_rows": 5},
            "has 4 rows of test, 3 wide, but that split has 5, and items are 3 wide; finish ",
        ),
        ({"split": "valid"}, "has 2 rows of valid, 3 wide, but that split has 4"),
        ({"n_items": 6}, "has 5 item vectors for 6 items; finish the collaborative run again"),
    ],
)
def test_scores_of_something_else_are_bad_input(folder, changes, told):
    with pytest.raises(InputError, match=told):
        load_collaborative(folder, **WANTED | changes)


def test_a_source_of_other_train_rows_is_told(folder, capsys):
    load_collaborative(folder, **WANTED)
    load_item_vectors(folder, fingerprint="abc", n_items=5, n_train=9)
    assert capsys.readouterr().out == ""
    load_collaborative(folder, **WANTED | {"n_train": 4})
    load_item_vectors(folder, fingerprint="abc", n_items=5, n_train=4)
    told = f"note: {folder / FILE} was learned from 9 train rows, and 4 are in use here; methods differ in data"
    assert capsys.readouterr().out.splitlines() == [told, told]


def test_item_vectors_that_do_not_fit_are_bad_input(folder, source):
    with pytest.raises(InputError, match="has vectors of data abc, but this run's data is xyz"):
        load_item_vectors(folder, fingerprint="xyz", n_items=5, n_train=9)
    with pytest.raises(InputError, match="has 5 item vectors for 4 items"):
        load_item_vectors(folder, fingerprint="abc", n_items=4, n_train=9)
    broken = np.where(np.arange(5)[:, None] == 2, np.float32("nan"), source.items)
    save_collaborative(folder, broken, {}, fingerprint="abc", n_train=9)
    with pytest.raises(InputError, match=r"'items' in .*: 3 of 15 numbers are nan or infinite; finish"):
        load_item_vectors(folder, fingerprint="abc", n_items=5, n_train=9)


def test_vectors_of_users_that_do_not_fit_are_bad_input(folder, source):
    broken = {"test": np.where(np.arange(4)[:, None] == 2, np.float32("inf"), source.users)}
    save_collaborative(folder, source.items, broken, fingerprint="abc", n_train=9)
    with pytest.raises(InputError, match=r"'test' in .*: 3 of 12 numbers are nan or infinite; finish the collab"):
        load_collaborative(folder, **WANTED)
    save_file({"items": source.items, "test": source.items[:4, :2]}, folder / FILE, metadata={"fingerprint": "abc"})
    with pytest.raises(InputError, match=r"has 4 rows of test, 2 wide, but that split has 4, and items are 3 wide"):
        load_collaborative(folder, **WANTED)


def test_a_missing_or_broken_file_is_bad_input(folder):
    save_file({"items": np.ones((5, 3), np.float32)}, folder / FILE, metadata={"fingerprint": "abc"})
    with pytest.raises(InputError, match=r"has tensors items; expected 'items', .* and 'test', a matrix of floats"):
        load_collaborative(folder, **WANTED)
    (folder / FILE).write_bytes(b"not a file of tensors")
    for path in (folder, folder / "none"):
        with pytest.raises(InputError, match=r"cannot be read .*; finish the collaborative run again"):
            load_collaborative(path, **WANTED)


def test_popularity_is_the_log_of_counts_the_same_for_all_and_nothing_for_none():
    found = popularity(np.array([3, 0, 1]), 4).scores(np.array([3, 1]))
    np.testing.assert_array_equal(found, [np.float32([np.log(3), -np.inf, 0])] * 2)
    assert found.dtype == np.float32
