"""What a run is put together from: the rows of train that there are for it, and a mark of all of it."""

import numpy as np
import tiny_run
from runs import session_of

from igd_jax.session import session


def test_rows_that_are_evenly_spread_can_stand_for_all(tiny, tmp_path):
    run = session_of(tiny_run.tiny_config(tiny, {"data.max_examples": 20}), tmp_path)
    spread = run.prepared.splits["train"].take(np.arange(20) * tiny_run.N_ROWS["train"] // 20)
    assert len(run.rows("valid")) == tiny_run.N_ROWS["valid"]
    np.testing.assert_array_equal(run.rows("train").timestamp, spread.timestamp)
    np.testing.assert_array_equal(run.counts, np.bincount(spread.target, minlength=len(tiny_run.TITLES)))
    np.testing.assert_array_equal(run.seen, spread.seen(len(tiny_run.TITLES)))


def test_the_fingerprint_of_a_run_is_that_of_its_rows(tiny, tmp_path, monkeypatch):
    """A run on as many other rows, such as the first ones, is another one; a limit beyond all rows is none."""

    def mark(limit):
        return session_of(tiny_run.tiny_config(tiny, {"data.max_examples": limit}), tmp_path).fingerprint

    some, more, all_rows = mark(20), mark(21), mark(0)
    assert len({some, more, all_rows}) == 3
    assert mark(tiny_run.N_ROWS["train"] + 1) == all_rows
    monkeypatch.setattr(session, "evenly_spaced", lambda n, limit: np.arange(limit))
    assert mark(20) != some
