"""What a run is trained on top of, as a short text: the variables that are neither trained nor saved."""

from typing import Any

import jax
from flax import nnx

from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.sharding import fetch


def frozen_fingerprint(frozen: Any) -> str:
    """Fingerprint of the variables that are neither trained nor saved in checkpoints.

    Variables with a ``made_from`` are represented by it, as their values may differ slightly between devices. For all
    others, every number counts, since a single damaged weight changes results.
    """
    parts: list[str] = []
    for variable in jax.tree.leaves(frozen, is_leaf=lambda node: isinstance(node, nnx.Variable)):
        made_from = variable.get_metadata().get("made_from")
        arrays = (fetch(leaf) for leaf in jax.tree.leaves(variable))
        parts += [made_from] if made_from else [fingerprint(array) for array in arrays]
    return fingerprint(*parts)
