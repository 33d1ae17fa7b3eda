"""A batch in the form that the method of a run reads."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped

from igd_jax.core.types import ItemBatch, TextBatch
from igd_jax.data.batches import make_item_batch, make_text_batch
from igd_jax.data.examples import Examples
from igd_jax.session.session import Session


def make_batch(
    session: Session,
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    *,
    size: int,
    own: Int[np.ndarray, " own"] | None = None,
    seed: Int[np.ndarray, " b"] | None = None,
    annotations: Mapping[str, Shaped[np.ndarray, " total"]] | None = None,
    together: Int[np.ndarray, " n"] | None = None,
) -> TextBatch | ItemBatch:
    """Some rows as text or as items, filled up to `size` rows that count for nothing; all arrays are NumPy's.

    Args:
      session: the run.
      examples: the examples.
      rows: numbers of some examples.
      size, own, seed: as in `make_text_batch`.
      annotations: as in `make_text_batch`; None = none. Items have none.
      together: as in `make_item_batch`; text does not need it.
    """
    if session.method.inputs == "items":
        return make_item_batch(examples, rows, size=size, own=own, seed=seed, together=together)
    tokens = session.index.item_tokens
    return make_text_batch(examples, rows, tokens, annotations or {}, size=size, own=own, seed=seed)
