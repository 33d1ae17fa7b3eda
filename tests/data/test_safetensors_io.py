"""Matrices in files: their numbers are finite, and those of a cache are made again where they are damaged."""

import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.data.safetensors_io import cached_matrix, read_cached, read_matrices, write_matrices

MATRIX = np.arange(6, dtype=np.float32).reshape(3, 2)
MADE_FROM = {"model": "abc"}


@pytest.fixture
def path(tmp_path):
    write_matrices(tmp_path / "x.safetensors", {"x": MATRIX}, MADE_FROM)
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_have_to_be_finite_unless_they_may_lack(path, number, dtype):
    given = np.where(MATRIX == 5, number, MATRIX).astype(dtype)
    write_matrices(path, {"x": given}, {})
    with pytest.raises(InputError, match=r"'x' in .*x.safetensors: 1 of 6 numbers are nan or infinite; make it again"):
        read_matrices(path, "x", remedy="make it again")
    (found,), _ = read_matrices(path, "x", remedy="make it again", may_lack=True)
    np.testing.assert_array_equal(found, given.astype(np.float32))


def test_a_cache_gives_what_it_was_given(path, capsys):
    np.testing.assert_array_equal(read_cached(path, "x", shape=(3, 2), metadata=MADE_FROM), MATRIX)
    assert read_cached(path.with_name("none"), "x", shape=(3, 2), metadata=MADE_FROM) is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("shape", "metadata", "damage", "told"),
    [
        ((3, 2), MADE_FROM, lambda path: path.write_bytes(path.read_bytes()[:-4]), "cannot be read as safetensors"),
        ((3, 2), MADE_FROM, lambda path: path.write_bytes(b""), "cannot be read as safetensors"),
        ((4, 2), MADE_FROM, lambda path: None, "holds (3, 2) numbers of"),
        ((3, 2), {"model": "xyz"}, lambda path: None, "expected (3, 2) of {'model': 'xyz'}; it is made again"),
        ((3, 2), MADE_FROM, lambda path: write_matrices(path, {"x": MATRIX * np.nan}, MADE_FROM), "nan or infinite"),
    ],
)
def test_a_damaged_cache_is_told_in_one_line_and_made_again(path, shape, metadata, damage, told, capsys):
    damage(path)
    assert read_cached(path, "x", shape=shape, metadata=metadata) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert told in line
    assert line.endswith("; it is made again")


def test_a_matrix_is_made_once_and_kept_where_there_is_a_run(tmp_path):
    made = iter(range(1, 9))

    def cached(path):
        return cached_matrix(path, "x", lambda: MATRIX + next(made), shape=(3, 2), metadata=MADE_FROM)

    for path in 2 * [tmp_path / "cache" / "x.safetensors"]:
        np.testing.assert_array_equal(cached(path), MATRIX + 1)
    path.write_bytes(b"")
    np.testing.assert_array_equal(cached(path), MATRIX + 2)
    np.testing.assert_array_equal(read_cached(path, "x", shape=(3, 2), metadata=MADE_FROM), MATRIX + 2)
    np.testing.assert_array_equal(cached(tmp_path / "no run" / "cache" / "x.safetensors"), MATRIX + 3)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
