"""What the input of training amounts to."""

from types import SimpleNamespace
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from batches import text_batch

from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import item_examples
from igd_jax.models.config import NAMED
from igd_jax.models.cost import real_tokens, training_flops
from igd_jax.session.input import _of_all, micro_batches
from igd_jax.session.session import Session
from igd_jax.training.mesh import make_mesh

ROW = [5, 6, 7], [8, 1]


def _batch(n_rows: int):
    prompt, target = ROW
    return jax.tree.map(np.asarray, text_batch([prompt] * n_rows, [target] * n_rows, shared=[3, 4]))


@pytest.mark.parametrize("count", [real_tokens, training_flops(NAMED["pico"], vocab_size=10)])
def test_rows_of_all_processes_count_and_what_they_share_counts_once(count):
    assert _of_all(count, [_batch(2)] * 3, 1 / 4) == pytest.approx(3 * count(_batch(8)))
    assert _of_all(count, [_batch(8)] * 3, 1.0) == 3 * count(_batch(8))


@pytest.mark.parametrize("normalizer", ["global", "micro_batch"])
def test_histories_are_counted_in_all_rows_whose_loss_is_divided_once(normalizer):
    histories = Ragged.from_lists([[1], [1, 2], [1, 2, 3], [4], [5, 6, 7, 8]])
    train = SimpleNamespace(micro_batch_size=2, seed=0)
    settings = SimpleNamespace(train=train, loss=SimpleNamespace(normalizer=normalizer))
    session = Mock(spec=Session, settings=settings, mesh=make_mesh(data=1), method=SimpleNamespace(inputs="items"))
    batches = micro_batches(session, {}, item_examples(histories, np.zeros(5, np.int32)), np.arange(5), step=0)
    found = [np.asarray(batch.rows_per_read).tolist() for batch in batches]
    whole = [[5 / 11, 5 / 11], [5 / 11, 5 / 11], [5 / 11, 0]]
    own = [[2 / 3, 2 / 3], [2 / 4, 2 / 4], [1 / 4, 0]]
    np.testing.assert_allclose(found, whole if normalizer == "global" else own, rtol=1e-6)
