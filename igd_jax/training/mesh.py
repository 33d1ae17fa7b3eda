"""Meshes are made here only. Data-parallel: parameters are replicated, batches are split along rows."""

from dataclasses import replace

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from igd_jax.core.errors import InputError
from igd_jax.core.sharding import by_row, replicated
from igd_jax.core.types import ItemBatch, TextBatch


def make_mesh(*, data: int) -> Mesh:
    """A mesh of `data` devices; -1 = all.

    Axis types are Auto, as jax's default, Explicit, would require annotations of embedding look-ups.

    Raises:
      InputError: there are fewer devices.
    """
    devices = jax.devices()
    n_data = len(devices) if data == -1 else data
    if n_data > len(devices):
        raise InputError(f"config.mesh.data is {data}, but there are {len(devices)} devices; use -1 for all of them")
    return Mesh(np.array(devices[:n_data]), ("data",), axis_types=(AxisType.Auto,))


def put_batch(batch: TextBatch | ItemBatch, mesh: Mesh) -> TextBatch | ItemBatch:
    """Put a batch on the devices: arrays with rows are split, arrays that rows share are replicated."""
    shardings = jax.tree.map(lambda _: by_row(mesh), batch)
    if isinstance(batch, TextBatch):
        shardings = replace(shardings, shared_prefix=replicated(mesh), first=replicated(mesh))
    return jax.device_put(batch, shardings)


def check_divides(name: str, size: int, mesh: Mesh) -> None:
    """Raise `InputError` unless `size`, the value of `name`, is a multiple of the number of devices."""
    if size % mesh.size:
        raise InputError(f"{name} is {size}, which {mesh.size} devices do not divide; use a multiple of {mesh.size}")
