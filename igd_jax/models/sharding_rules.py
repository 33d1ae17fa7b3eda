"""Rules by which the arrays of a model are split over a mesh (docs/design.md, Devices).

A rule is a pattern of the end of an array's path, and an axis of the mesh, or None, for each of its axes. Weights are
split over ``fsdp`` along the width of the model, and over ``tensor`` along heads, inner width or vocabulary. A state of
an optimizer has the paths of its parameters, so the same rules apply.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from igd_jax.core.sharding import FSDP, TENSOR, put, replicated

Rule = tuple[str, tuple[str | None, ...]]

RULES: tuple[Rule, ...] = (
    # Backbones: [V D], and [L in out] for each map of the stacked layers, whose values may be quantised.
    (r"(embed|head)", (TENSOR, FSDP)),
    (r"(q|k|v|gate|up)\.kernel(\.values|\.scale)?", (None, FSDP, TENSOR)),
    (r"(o|down)\.kernel(\.values|\.scale)?", (None, TENSOR, FSDP)),
    (r"(q|k|v)\.bias", (None, TENSOR)),
    # Adapters [L in r] and [L r out] lie beside the map that they change.
    (r"(q|k|v|gate|up)\.adapter\.a", (None, FSDP, None)),
    (r"(q|k|v|gate|up)\.adapter\.b", (None, None, TENSOR)),
    (r"(o|down)\.adapter\.a", (None, TENSOR, None)),
    (r"(o|down)\.adapter\.b", (None, None, FSDP)),
    # SETRec: tables with a row per item, and its autoencoder's maps [in out].
    (r"tokens\.(vectors|features)", (FSDP, None)),
    (r"tokens\.(encoder|decoder)\.layers\.\d+\.kernel", (FSDP, TENSOR)),
)
LARGE = 1 << 20
"""Numbers from which an array that is whole on every device is named."""


def shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of each array of a tree, by the rule of its path; arrays without a rule are whole on every device.

    An axis that the devices do not divide is not split.

    Args:
      tree: arrays, or their shapes.
      mesh: the devices.
    """
    return jax.tree.map_with_path(partial(_sharding, mesh), tree)


def placed(tree: Any, mesh: Mesh) -> Any:
    """The same arrays on the devices, each split by its rule."""
    leaves, structure = jax.tree.flatten_with_path(tree)
    where = [_sharding(mesh, path, x) for path, x in leaves]
    return jax.tree.unflatten(structure, put([x for _, x in leaves], where))


def as_placed(tree: Any, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of what `placed` gives of the same arrays, or of arrays of these shapes."""
    places = shardings(tree, mesh)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places)


def whole_arrays(tree: Any, mesh: Mesh) -> list[str]:
    """Paths of the large arrays that every device of a mesh of several shards holds whole."""
    if mesh.shape[FSDP] * mesh.shape[TENSOR] == 1:
        return []
    return [
        path_of(path)
        for path, x in jax.tree.leaves_with_path(tree)
        if x.size >= LARGE and not any(_sharding(mesh, path, x).spec)
    ]


def path_of(path: Sequence[Any]) -> str:
    """Path of an array in a tree of modules or of an optimizer's state, such as ``layers.attention.q.kernel``."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", None)))) for key in path]
    return ".".join(part for part in parts if part != "value")


def _sharding(mesh: Mesh, path: Sequence[Any], x: Any) -> NamedSharding:
    """Sharding by the first rule whose pattern matches the path."""
    for pattern, axes in RULES:
        if re.search(rf"(^|\.){pattern}$", path_of(path)) and len(axes) <= len(x.shape):
            fitting = (
                axis if axis is None or size % mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, x.shape, strict=False)
            )
            return NamedSharding(mesh, PartitionSpec(*fitting))
    return replicated(mesh)
