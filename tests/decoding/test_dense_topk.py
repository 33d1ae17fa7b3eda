"""Best rows chunk after chunk are those of the whole catalogue at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igd_jax.decoding.dense_topk import best_rows

N_QUERIES, N_ROWS = 5, 7
ROW = np.array([[0, 0, 1, 2], [3, 4, 4, 4], [5, 6, 6, 6]])
IS_ITEM = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
best = jax.jit(best_rows, static_argnames="k")


@pytest.fixture(scope="module")
def given() -> tuple[jax.Array, dict[str, jax.Array], np.ndarray]:
    """Queries, tables, and the score of each row's best item."""
    rng = np.random.default_rng(0)
    tokens, query = rng.normal(size=(3, 4, 6)), rng.normal(size=(N_QUERIES, 6))
    of_rows = np.full((N_QUERIES, N_ROWS), -np.inf)
    for chunk, place in zip(*np.nonzero(IS_ITEM), strict=True):
        score = query @ tokens[chunk, place]
        of_rows[:, ROW[chunk, place]] = np.maximum(of_rows[:, ROW[chunk, place]], score)
    tables = {"tokens": jnp.asarray(tokens, jnp.float32), "row": jnp.asarray(ROW), "is_item": jnp.asarray(IS_ITEM)}
    return jnp.asarray(query, jnp.float32), tables, of_rows


def test_the_best_rows_are_those_of_their_best_items_over_all_chunks(given):
    query, tables, of_rows = given
    scores, rows = best(query, tables, k=6)
    order = np.argsort(-of_rows, axis=1)[:, :6]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(scores, np.take_along_axis(of_rows, order, 1), rtol=1e-5)


def test_only_allowed_rows_are_found(given):
    query, tables, of_rows = given
    allowed = np.random.default_rng(1).random((N_QUERIES, N_ROWS)) < 0.5
    allowed[0], allowed[1] = True, False
    allowed[2] = np.arange(N_ROWS) == N_ROWS - 1  # the last row, beside items that only fill up its chunk
    scores, rows = best(query, tables, k=6, allowed=jnp.asarray(allowed))
    for one in range(N_QUERIES):
        kept = np.flatnonzero(allowed[one])
        order = kept[np.argsort(-of_rows[one, kept])][:6]
        assert np.asarray(rows)[one, : len(order)].tolist() == order.tolist()
        np.testing.assert_allclose(scores[one, : len(order)], of_rows[one, order], rtol=1e-5)
        assert np.isneginf(scores[one, len(order) :]).all()
    np.testing.assert_array_equal(
        best(query, tables, k=6, allowed=jnp.ones((N_QUERIES, N_ROWS), bool))[1], best(query, tables, k=6)[1]
    )
