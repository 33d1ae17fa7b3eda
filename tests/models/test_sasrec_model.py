"""SASRec's states: causal, blind to padding and to the rows beside them, and random only where seeds are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from igd_jax.models.sasrec import Block, SASRec, SASRecConfig, scores_of

CONFIG = SASRecConfig(n_items=9, max_history=6, width=8, num_blocks=2, num_heads=2, dropout=0.5)
HISTORY = np.array([[0, 0, 3, 1, 4], [5, 8, 2, 6, 5], [0, 0, 0, 0, 7]], np.int32)
LENGTHS = np.array([3, 5, 1])
VALID = np.arange(5) >= 5 - LENGTHS[:, None]
SEED = np.array([5, 6, 5], np.int32)


read = nnx.jit(lambda module, *given: module(*given))
read_block = nnx.jit(lambda block, *given, n_last: block(*given, n_last=n_last), static_argnames="n_last")


def randomized(make: type[nnx.Module]) -> nnx.Module:
    """A module with random values in every weight, norms and biases too."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(CONFIG, rngs=nnx.Rngs(0))))
    random = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(0.3 * random.normal(size=x.shape), x.dtype), state))


@pytest.fixture(scope="module")
def model() -> SASRec:
    return randomized(SASRec)


@pytest.fixture(scope="module")
def users(model):
    return np.asarray(read(model, jnp.asarray(HISTORY), jnp.asarray(VALID)))


def test_later_items_change_no_earlier_state():
    block = randomized(Block)
    hidden = np.random.default_rng(1).normal(size=(3, 5, 8)).astype(np.float32)
    changed = hidden.copy()
    changed[:, 3] = hidden[:, 3, ::-1]
    before, after = (
        np.asarray(read_block(block, jnp.asarray(x), jnp.asarray(VALID), n_last=5)) for x in (hidden, changed)
    )
    earlier = VALID & (np.arange(5) < 3)
    np.testing.assert_allclose(before[earlier], after[earlier], atol=1e-6)
    assert (np.abs(before - after)[:2, 3:].max(axis=-1) > 1e-3).all()


def test_the_last_columns_alone_are_those_of_the_whole():
    block = randomized(Block)
    hidden = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5, 8)), jnp.float32)
    whole = read_block(block, hidden, jnp.asarray(VALID), n_last=5)
    for n in (1, 2):
        np.testing.assert_allclose(read_block(block, hidden, jnp.asarray(VALID), n_last=n), whole[:, -n:], atol=1e-6)


def test_what_stands_in_the_padding_changes_nothing(model, users):
    other = np.where(VALID, HISTORY, 8).astype(np.int32)
    np.testing.assert_array_equal(read(model, jnp.asarray(other), jnp.asarray(VALID)), users)


def test_left_padding_is_no_padding_at_all(model, users):
    for row, n in enumerate(LENGTHS):
        alone = read(model, jnp.asarray(HISTORY[row : row + 1, 5 - n :]), jnp.ones((1, n), bool))
        np.testing.assert_allclose(alone[0], users[row], atol=1e-6)


def test_item_zero_is_an_item(model):
    zero = jnp.zeros((1, 2), jnp.int32)
    one, two = (read(model, zero, jnp.asarray(mask)) for mask in ([[False, True]], [[True, True]]))
    assert np.abs(one - two).max() > 1e-3


def test_only_the_newest_items_are_read(model):
    history = np.arange(9, dtype=np.int32)[None] % 9
    every = jnp.ones((1, 9), bool)
    users = read(model, jnp.asarray(history), every)
    older, newer = history.copy(), history.copy()
    older[:, :3], newer[:, 3] = 8, 8
    np.testing.assert_array_equal(read(model, jnp.asarray(older), every), users)
    assert np.abs(read(model, jnp.asarray(newer), every) - users).max() > 1e-4


def test_the_order_of_items_matters(model, users):
    swapped = HISTORY.copy()
    swapped[:, [3, 2]] = swapped[:, [2, 3]]
    assert np.abs(read(model, jnp.asarray(swapped), jnp.asarray(VALID))[:2] - users[:2]).max(axis=1).min() > 1e-4


def test_a_row_of_padding_alone_is_a_history_of_no_item(model):
    first, other = (read(model, jnp.full((1, 5), item, jnp.int32), jnp.zeros((1, 5), bool)) for item in (0, 3))
    np.testing.assert_array_equal(first, other)
    assert np.isfinite(first).all()


def test_dropout_follows_from_a_rows_seed_alone(model, users):
    together = np.asarray(read(model, jnp.asarray(HISTORY), jnp.asarray(VALID), jnp.asarray(SEED)))
    assert (np.abs(together - users).max(axis=1) > 1e-3).all()
    for row in range(3):
        pick = np.array([row])
        alone = read(model, jnp.asarray(HISTORY[pick]), jnp.asarray(VALID[pick]), jnp.asarray(SEED[pick]))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)
    wide = read(model, *(jnp.pad(jnp.asarray(x), ((0, 0), (1, 0))) for x in (HISTORY, VALID)), jnp.asarray(SEED))
    np.testing.assert_allclose(wide, together, atol=1e-6)
    other = read(model, jnp.asarray(HISTORY), jnp.asarray(VALID), jnp.asarray(SEED + 1))
    assert (np.abs(other - together).max(axis=1) > 1e-3).all()


def test_scores_are_inner_products(model, users):
    items = np.asarray(model.items())
    found = scores_of(jnp.asarray(users), jnp.asarray(items))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, users @ items.T, atol=1e-5)
