"""Shardings of arrays over the devices of a mesh: replicated, split by row, and how models say so while they run."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

_MOST_GATHERED = 1 << 24
"""Numbers of an array of several processes that every device holds whole at a time, to fetch it."""
DATA, FSDP, TENSOR = AXES = ("data", "fsdp", "tensor")
"""Axes of every mesh: copies of the model, its shards by the width of weights, and those within one product."""
ROWS = (DATA, FSDP)
"""Axes over which the rows of a batch are dealt."""


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh, *, first: int = 0) -> NamedSharding:
    """The axis of the rows, which is number `first`, split over the devices that have rows of their own."""
    return NamedSharding(mesh, PartitionSpec(*[None] * first, ROWS))


def row_shards(mesh: Mesh) -> int:
    """Number of parts into which the rows of a batch are dealt."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def row_shards_here() -> int:
    """The same while a model is traced: 1 outside of ``jax.set_mesh``."""
    shape = jax.sharding.get_abstract_mesh().shape
    return shape.get(DATA, 1) * shape.get(FSDP, 1)


def tensor_share(size: int, mesh: Mesh | AbstractMesh) -> int:
    """Length on each device of an axis that is split over ``tensor``: all of it where that does not divide it."""
    n_parts = mesh.shape.get(TENSOR, 1)
    return size if size % n_parts else size // n_parts


def platform_here() -> str:
    """Platform for which a model is traced: that of the mesh, whose devices may be elsewhere, or of this process."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def n_devices_here() -> int:
    """Number of devices of the mesh; 1 outside of ``jax.set_mesh``."""
    return max(1, jax.sharding.get_abstract_mesh().size)


def divisible(n_rows: int, mesh: Mesh) -> int:
    """`n_rows` rounded up to a multiple of the number of parts."""
    return -(-n_rows // row_shards(mesh)) * row_shards(mesh)


def put(tree: Any, shardings: Any) -> Any:
    """The same arrays on the devices; of several processes, each copies what its own devices hold.

    Args:
      tree: arrays, which all processes have alike, or on the devices already.
      shardings: sharding of each, or one for all.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def put_one(x: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, sharding)
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(put_one, tree, jax.tree.broadcast(shardings, tree))


def fetch(tree: Any) -> Any:
    """The whole arrays of a tree as NumPy's, in every process."""

    def whole(x: jax.Array) -> Any:
        return x if x.is_fully_addressable or x.is_fully_replicated else _gathered(x)

    return jax.device_get(jax.tree.map(whole, tree))


def _gathered(x: jax.Array) -> np.ndarray:
    """An array of several processes, some of its first axis at a time, as a gather puts it on every device."""
    at_once = min(max(_MOST_GATHERED * len(x) // x.size, 1), len(x))
    out = np.empty(x.shape, x.dtype)
    for begin in range(0, len(x), at_once):
        start = min(begin, len(x) - at_once)  # the last ones may be fetched twice
        out[start : start + at_once] = multihost_utils.process_allgather(_some(x, np.int32(start), at_once), tiled=True)
    return out


_some = jax.jit(jax.lax.dynamic_slice_in_dim, static_argnums=2)
"""Some of the first axis of an array; compiled once per shape, as layers have several arrays of each."""


def keep_rows(
    x: Shaped[Array, "B ..."], *, last: str | None = None, over: Sequence[str] = ROWS
) -> Shaped[Array, "B ..."]:
    """The same array, whose rows stay where the batch put them; to be called while a model is traced.

    Without this the compiler may follow a weight that is split by its width, and gather all rows instead of the
    weight. Nothing changes outside of ``jax.set_mesh``, on one device, or for rows that cannot be dealt evenly.

    Args:
      x: states of a batch.
      last: axis of the mesh over which the last axis of `x` is split; None = not split.
      over: axes of the mesh over which the rows are dealt.
    """
    shape = jax.sharding.get_abstract_mesh().shape
    if not shape or all(size == 1 for size in shape.values()) or x.shape[0] % prod(shape[axis] for axis in over):
        return x
    between = [None] * (x.ndim - 2)
    fits = last is None or x.shape[-1] % shape[last] == 0
    return jax.lax.with_sharding_constraint(x, PartitionSpec(tuple(over), *between, last if fits else None))
