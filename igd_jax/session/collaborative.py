"""Collaborative scores: reads the source that a run uses, and exports vectors for others to use."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.log import Progress, say
from igd_jax.core.map_rows import in_groups, map_rows
from igd_jax.core.sharding import divisible, fetch, put, replicated
from igd_jax.core.types import ItemBatch
from igd_jax.data.batches import make_item_batch
from igd_jax.data.collaborative import EXPORTED, Collaborative, load_collaborative, popularity, save_collaborative
from igd_jax.methods.base import CollaborativeMethod
from igd_jax.session.session import Session
from igd_jax.training.mesh import put_batch


def collaborative_source(session: Session, *, split: str | None, n_rows: int) -> Collaborative | None:
    """The source that `config.decode.collaborative` names, for all rows of a split; None if the field is empty.

    Args:
      session: the run.
      split: name of the split; None for new histories.
      n_rows: number of rows.

    Raises:
      InputError: there is no such source, or it has no scores for these rows.
    """
    given = session.settings.decode.collaborative
    if not given:
        return None
    if given == "popularity":
        return popularity(session.index.counts, n_rows)
    if split is None:
        raise InputError(
            f"config.decode.collaborative is {given!r}, which has scores for the rows of a split only; for a new "
            "history give 'popularity' or ''"
        )
    return load_collaborative(
        Path(given),
        fingerprint=session.prepared.meta["fingerprint"],
        split=split,
        n_rows=n_rows,
        n_items=len(session.index.titles),
        n_train=int(session.index.counts.sum()),
    )


def export_vectors(session: Session, method: CollaborativeMethod, model: nnx.Module, workdir: Workdir) -> None:
    """Write the model's vectors of all items and of the users of the exported splits."""
    graph, state = nnx.split(model)
    held = put(state, replicated(session.mesh))
    size = divisible(session.settings.decode.batch_size, session.mesh)

    @jax.jit
    def vectors(state: Any, batch: ItemBatch) -> tuple[Array, Array]:
        return method.vectors(nnx.merge(graph, state), batch)

    users, items = {}, None
    for split in EXPORTED:
        examples = session.examples(session.rows(split))

        def answer(group: Int[np.ndarray, " b"], examples=examples) -> Array:
            nonlocal items
            found, items = vectors(held, put_batch(make_item_batch(examples, group, size=size), session.mesh))
            return found

        n_rows = len(examples)
        groups, progress = in_groups(np.arange(n_rows), size), Progress(f"vectors of {split}", n_rows, "users")
        users[split] = map_rows(answer, groups, n_rows=n_rows, progress=progress)
    mark, n_train = session.prepared.meta["fingerprint"], int(session.index.counts.sum())
    save_collaborative(workdir.path, fetch(items), users, fingerprint=mark, n_train=n_train)
    say(f"vectors of items and users are in {workdir.path}: --config.decode.collaborative={workdir.path}")
