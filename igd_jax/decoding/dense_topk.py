"""Highest scores; among them those of inner products with vectors of items, in chunks that fit into memory."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.ragged import Ragged, starts_of
from igd_jax.items.index import ItemIndex


def best_rows(
    query: Float[Array, "B ZD"],
    tables: dict[str, Array],
    *,
    k: int,
    allowed: Bool[Array, "B n"] | None = None,
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k catalogue rows with the highest scores, where a row has the score of its best item.

    Args:
      query: query vectors of each user.
      tables: chunks of items in row order that never split the items of a row: ``tokens`` [chunks, items, ZD], ``row``
        and ``is_item`` [chunks, items]; entries that pad a chunk repeat its last row.
      k: number of rows; if there are fewer, the others have score -inf.
      allowed: rows that may be among the results; None = all.

    Returns:
      Scores, best first, and rows.
    """

    def add_chunk(best: tuple[Array, Array], chunk: dict[str, Array]) -> tuple[tuple[Array, Array], None]:
        exact = jax.lax.Precision.HIGHEST  # these products decide the order
        scores = jnp.einsum("BD,ID->IB", query, chunk["tokens"], precision=exact, preferred_element_type=jnp.float32)
        scores = jnp.where(chunk["is_item"][:, None], scores, -jnp.inf)
        place = chunk["row"] - chunk["row"][0]  # the rows of a chunk are consecutive
        of_rows = jax.ops.segment_max(scores, place, num_segments=len(place), indices_are_sorted=True).T
        if allowed is not None:
            here = jnp.minimum(chunk["row"][0] + jnp.arange(len(place)), allowed.shape[1] - 1)
            of_rows = jnp.where(allowed[:, here], of_rows, -jnp.inf)
        found, at = jax.lax.top_k(of_rows, min(k, len(place)))
        scores, rows = (jnp.concatenate(pair, 1) for pair in zip(best, (found, chunk["row"][0] + at), strict=True))
        scores, at = jax.lax.top_k(scores, k)
        return (scores, jnp.take_along_axis(rows, at, axis=1)), None

    nothing = jnp.full((len(query), k), -jnp.inf), jnp.zeros((len(query), k), jnp.int32)
    chunks = {name: tables[name] for name in ("tokens", "row", "is_item")}
    return jax.lax.scan(add_chunk, nothing, chunks)[0]


def in_chunks(
    index: ItemIndex, size: int
) -> tuple[Int[np.ndarray, "chunks I"], Int[np.ndarray, "chunks I"], Int[np.ndarray, " n"]]:
    """Candidates by catalogue row, in chunks of equal size that never split the items of a row.

    Returns:
      Items, -1 on padding; the number of each item's row among the candidates' rows, on padding that of the chunk's
      last item; and the catalogue rows with those numbers.
    """
    row_of_item = index.catalog.row_of_item
    items = np.flatnonzero(index.candidates)
    items = items[np.argsort(row_of_item[items], kind="stable")].astype(np.int32)
    rows, number, count = np.unique(row_of_item[items], return_inverse=True, return_counts=True)
    start = starts_of(count)
    size = max(min(size, int(start[-1])), int(count.max()))
    bounds = [0]
    while bounds[-1] < start[-1]:
        bounds.append(int(start[np.searchsorted(start, bounds[-1] + size, side="right") - 1]))
    chunks = Ragged(items, np.array(bounds, np.int64))
    numbers = np.maximum.accumulate(Ragged(number.astype(np.int32), chunks.start).pad(size), axis=1)
    return chunks.pad(size, fill=-1), numbers, rows.astype(np.int32)


def top_k(values: Float[Array, "B n"], k: int) -> tuple[Float[Array, "B {k}"], Int[Array, "B {k}"]]:
    """``lax.top_k`` for possibly fewer than k values; missing ones are -inf, with index 0."""
    have = min(k, values.shape[1])
    top, index = jax.lax.top_k(values, have)
    pad = ((0, 0), (0, k - have))
    return jnp.pad(top, pad, constant_values=-jnp.inf), jnp.pad(index, pad)
