"""Arrays over the devices of a mesh; those of two processes are in tests/test_pair.py."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from igd_jax.core import sharding
from igd_jax.core.sharding import FSDP
from igd_jax.training.mesh import make_mesh


@pytest.mark.parametrize("most", [1, 30, 10_000])
def test_an_array_that_is_gathered_in_parts_is_whole(monkeypatch, most):
    """The last part overlaps the one before it."""
    monkeypatch.setattr(sharding, "_MOST_GATHERED", most)
    x = np.arange(7 * 3 * 8, dtype=np.float32).reshape(7, 3, 8)
    mesh = make_mesh(data=2, fsdp=4)
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(None, None, FSDP)))
    np.testing.assert_array_equal(sharding._gathered(split), x)
