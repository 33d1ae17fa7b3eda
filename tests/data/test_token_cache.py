"""Rows are made once, written as they are made, mapped into memory, and made again where the file is damaged."""

from pathlib import Path

import numpy as np
import pytest
from plain_trie import lists_of

from igd_jax.core.ragged import Ragged
from igd_jax.data.token_cache import cached_rows

ROWS = [[1, 2, 3], [], [4], [5, 6]]


class Maker:
    """Makes the rows in two parts, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self):
        self.times += 1
        yield Ragged.from_lists(ROWS[:3])
        yield Ragged.from_lists(ROWS[3:])


def _cached(folder: Path, make: Maker) -> Ragged:
    return cached_rows(folder / "cache", "rows", len(ROWS), make)


def test_rows_are_made_once_and_come_back_from_the_file(tmp_path):
    make = Maker()
    for _ in range(2):
        rows = _cached(tmp_path, make)
        assert lists_of(rows) == ROWS
        assert (rows.ids.dtype, rows.start.dtype) == (np.int32, np.int64)
        assert not rows.ids.flags.owndata
    assert make.times == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["rows.rows"]


@pytest.mark.parametrize("n_bytes", [0, 7, 8, 40, 47, 48, -1])
def test_a_file_that_was_cut_short_is_told_and_made_again(tmp_path, capsys, n_bytes):
    _cached(tmp_path, make := Maker())
    path = tmp_path / "cache" / "rows.rows"
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert lists_of(_cached(tmp_path, make)) == ROWS
    assert capsys.readouterr().out == f"{path} is damaged; made again\n"
    assert make.times == 2
    assert lists_of(_cached(tmp_path, make)) == ROWS
    assert make.times == 2


@pytest.mark.parametrize("place", [0, 9, 50, 71])
def test_a_file_with_a_flipped_bit_is_made_again(tmp_path, place):
    _cached(tmp_path, make := Maker())
    path = tmp_path / "cache" / "rows.rows"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert lists_of(_cached(tmp_path, make)) == ROWS
    assert make.times == 2


def test_no_rows_and_rows_without_ids_can_be_kept(tmp_path):
    for name, lists in (("none", []), ("empty", [[], []])):
        for _ in range(2):
            rows = cached_rows(tmp_path / "cache", name, len(lists), lambda lists=lists: [Ragged.from_lists(lists)])
            assert lists_of(rows) == lists


def test_what_is_not_made_to_its_end_is_not_kept(tmp_path):
    def broken():
        yield Ragged.from_lists(ROWS[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _cached(tmp_path, broken)
    assert lists_of(_cached(tmp_path, Maker())) == ROWS


def test_where_there_is_no_folder_yet_nothing_is_written(tmp_path):
    assert lists_of(_cached(tmp_path / "run", Maker())) == ROWS
    assert not (tmp_path / "run").exists()
