"""Batches of a ranker are the same whoever makes their parts."""

import numpy as np

from igd_jax.core.allowed import Allowed
from igd_jax.session.recommender import Recommender


def test_a_process_of_several_may_hold_no_row_of_a_short_batch(trained):
    ranker = Recommender.load(trained)
    examples = ranker.examples(ranker.session.rows("test").take(np.arange(3)))
    without_first = Allowed(None, np.array([0]))
    parts = [
        ranker.batch(examples, np.arange(3), size=8, own=own, allowed=[without_first] * 3)
        for own in (np.arange(4), np.arange(4, 8))
    ]
    expected = np.zeros((8, len(ranker.index.catalog)), bool)
    expected[:3] = without_first.mask(ranker.index.is_candidate)
    np.testing.assert_array_equal(np.concatenate([part.allowed for part in parts]), expected)
