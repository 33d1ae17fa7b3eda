"""Rows in groups, over any number of devices, and back in their order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igd_jax.core.log import Progress
from igd_jax.core.map_rows import deal_rows, in_groups, map_rows, pad_rows
from igd_jax.training.mesh import make_mesh


@pytest.mark.parametrize("devices", [1, 8])
def test_rows_come_back_in_their_order_without_what_filled_them_up(devices):
    mesh, rows = make_mesh(data=devices), np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    sizes = []

    @jax.jit
    def model(x):
        return {"twice": 2.0 * x, "sum": x.sum(axis=1)}

    def answer(group):
        (batch,) = deal_rows(rows[group], size=5, mesh=mesh)
        sizes.append(len(batch))
        return model(batch)

    groups, told = in_groups(np.argsort(rows[:, 0]), 5), Progress("map", 11, "rows")
    found = map_rows(answer, groups, n_rows=11, progress=told)
    np.testing.assert_array_equal(found["twice"], 2 * rows)
    np.testing.assert_allclose(found["sum"], rows.sum(axis=1), rtol=1e-5)
    assert sizes == [5 if devices == 1 else 8] * 3


def test_rows_are_dealt_out_and_filled_up_with_zeros():
    mesh = make_mesh(data=4)
    ids, lengths = deal_rows(np.ones((3, 2), np.int32), np.array([1, 2, 3], np.int32), size=6, mesh=mesh)
    assert [shard.data.shape for shard in ids.addressable_shards] == [(2, 2)] * 4
    assert lengths.tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(ids, jnp.pad(jnp.ones((3, 2), jnp.int32), ((0, 5), (0, 0))))


def test_groups_hold_every_row_once_and_the_last_may_be_short():
    assert [group.tolist() for group in in_groups(np.array([4, 2, 7]), 2)] == [[4, 2], [7]]
    assert list(in_groups(np.zeros(0, np.int64), 2)) == []
    np.testing.assert_array_equal(pad_rows(np.array([[1.0, 2.0]]), 3), [[1, 2], [0, 0], [0, 0]])
