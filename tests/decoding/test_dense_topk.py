"""Best rows chunk after chunk are those of the whole catalogue at once."""

import jax
import jax.numpy as jnp
import numpy as np

from igd_jax.decoding.dense_topk import best_rows


def test_the_best_rows_are_those_of_their_best_items_over_all_chunks():
    rng = np.random.default_rng(0)
    row = np.array([[0, 0, 1, 2], [3, 4, 4, 4], [5, 6, 6, 6]])
    is_item = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    tokens, query = rng.normal(size=(3, 4, 6)), rng.normal(size=(5, 6))
    of_rows = np.full((5, 7), -np.inf)
    for chunk, place in zip(*np.nonzero(is_item), strict=True):
        score = query @ tokens[chunk, place]
        of_rows[:, row[chunk, place]] = np.maximum(of_rows[:, row[chunk, place]], score)
    tables = {"tokens": jnp.asarray(tokens, jnp.float32), "row": jnp.asarray(row), "is_item": jnp.asarray(is_item)}
    scores, rows = jax.jit(best_rows, static_argnames="k")(jnp.asarray(query, jnp.float32), tables, k=6)
    order = np.argsort(-of_rows, axis=1)[:, :6]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(scores, np.take_along_axis(of_rows, order, 1), rtol=1e-5)
