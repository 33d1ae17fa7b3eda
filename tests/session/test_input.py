"""What the input of training amounts to."""

import jax
import numpy as np
import pytest
from batches import text_batch

from igd_jax.models.config import NAMED
from igd_jax.models.cost import real_tokens, training_flops
from igd_jax.session.input import _of_all

ROW = [5, 6, 7], [8, 1]


def _batch(n_rows: int):
    prompt, target = ROW
    return jax.tree.map(np.asarray, text_batch([prompt] * n_rows, [target] * n_rows, shared=[3, 4]))


@pytest.mark.parametrize("count", [real_tokens, training_flops(NAMED["pico"], vocab_size=10)])
def test_rows_of_all_processes_count_and_what_they_share_counts_once(count):
    assert _of_all(count, [_batch(2)] * 3, 1 / 4) == pytest.approx(3 * count(_batch(8)))
    assert _of_all(count, [_batch(8)] * 3, 1.0) == 3 * count(_batch(8))
