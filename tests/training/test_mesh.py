"""One mesh axis over devices; rows are dealt out evenly, everything else is whole everywhere."""

import jax
import numpy as np
import pytest

from igd_jax.core.errors import InputError
from igd_jax.training.mesh import by_row, check_divides, make_mesh, replicated


@pytest.mark.parametrize(("asked", "size"), [(-1, 8), (1, 1), (4, 4), (8, 8)])
def test_the_mesh_has_the_devices_asked_for(asked, size):
    mesh = make_mesh(data=asked)
    assert mesh.size == size
    assert mesh.axis_names == ("data",)


@pytest.mark.parametrize("asked", [0, 9, -2])
def test_other_numbers_of_devices_are_bad_input(asked):
    with pytest.raises(InputError, match=rf"config.mesh.data is {asked}, but there are 8 devices"):
        make_mesh(data=asked)


def test_rows_are_dealt_out_and_parameters_are_whole():
    mesh = make_mesh(data=4)
    rows = jax.device_put(np.arange(16).reshape(8, 2), by_row(mesh))
    assert [shard.data.shape for shard in rows.addressable_shards] == [(2, 2)] * 4
    whole = jax.device_put(np.arange(16), replicated(mesh))
    assert [shard.data.shape for shard in whole.addressable_shards] == [(16,)] * 4


def test_rows_that_cannot_be_dealt_out_are_bad_input():
    mesh = make_mesh(data=8)
    check_divides("config.decode.batch_size", 16, mesh)
    with pytest.raises(InputError, match=r"config.decode.batch_size is 12, which 8 devices do not divide"):
        check_divides("config.decode.batch_size", 12, mesh)
