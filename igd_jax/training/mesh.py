"""Meshes are made here only. Rows of a batch are dealt over the axes ``data`` and ``fsdp``."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh
from jaxtyping import Int

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import AXES, by_row, replicated, row_shards
from igd_jax.core.types import ItemBatch, TextBatch


def make_mesh(*, data: int, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh of data x fsdp x tensor devices.

    Args:
      data: copies of the model, each with rows of its own; -1 = as many as there are devices for.
      fsdp: devices over which the weights of a copy are split, and its rows are dealt.
      tensor: devices that share the heads, the inner width and the vocabulary of the same rows.

    Raises:
      InputError: there are fewer devices, or another number than `fsdp` times `tensor` divides.
    """
    devices, shards = jax.devices(), fsdp * tensor
    asked = f"config.mesh is data {data} x fsdp {fsdp} x tensor {tensor}, but there are {len(devices)} devices"
    if data == -1 and len(devices) % shards:
        raise InputError(f"{asked}, which {shards} do not divide; give fsdp and tensor whose product does")
    n_data = len(devices) // shards if data == -1 else data
    if n_data * shards > len(devices):
        raise InputError(
            f"{asked}; give --config.mesh.data=-1 --config.mesh.fsdp=1 --config.mesh.tensor=1, or others that fit"
        )
    if n_data * shards < len(devices) and jax.process_count() > 1:
        raise InputError(f"{asked} of {jax.process_count()} processes, which all have to be used; give data -1")
    return mesh_over(devices[: n_data * shards], fsdp=fsdp, tensor=tensor)


def mesh_over(devices: Sequence[jax.Device], *, fsdp: int, tensor: int) -> Mesh:
    """A mesh of all of these devices, which may be a description of some that are not there.

    Axis types are Auto, as jax's default, Explicit, would require annotations of embedding look-ups.
    """
    shape, types = (len(devices) // (fsdp * tensor), fsdp, tensor), (AxisType.Auto,) * len(AXES)
    try:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    except NotImplementedError:  # on v6e and v5p JAX splits an axis of the torus only if it is asked to
        split = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(split, AXES, axis_types=types)


def local_rows(size: int, mesh: Mesh) -> Int[np.ndarray, " own"]:
    """Places of the rows, of a batch of `size`, that devices of this process hold, ascending: a process alone, all."""
    held = by_row(mesh).addressable_devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[rows] for rows in held.values() if rows is not None]))


def put_batch(
    batch: TextBatch | ItemBatch, mesh: Mesh, *, size: int | None = None, is_stack: bool = False
) -> TextBatch | ItemBatch:
    """Put a batch on the devices: arrays with rows are split, arrays that rows share are replicated.

    Args:
      batch: the batch, the same in all processes; or, with a `size`, the rows of it that `local_rows` gives.
      mesh: the devices.
      size: number of rows of the whole batch; None = of what is given.
      is_stack: whether it is several batches, stacked along a new first axis, which is not split.
    """
    axis = int(is_stack)
    shardings = jax.tree.map(lambda _: by_row(mesh, first=axis), batch)
    n_rows, n_own = (1, 1) if size is None else (size, len(local_rows(size, mesh)))
    shapes = jax.tree.map(lambda x: (*x.shape[:axis], x.shape[axis] * n_rows // n_own, *x.shape[axis + 1 :]), batch)
    if isinstance(batch, TextBatch):
        shardings = replace(shardings, shared_prefix=replicated(mesh), first=replicated(mesh))
        shapes = replace(shapes, shared_prefix=batch.shared_prefix.shape, first=batch.first.shape)
    return jax.make_array_from_process_local_data(shardings, batch, shapes)


def check_divides(name: str, size: int, mesh: Mesh) -> None:
    """Raise `InputError` unless `size`, the value of `name`, can be dealt evenly."""
    if size % (parts := row_shards(mesh)):
        raise InputError(f"{name} is {size}, which {parts} devices do not divide; use a multiple of {parts}")
