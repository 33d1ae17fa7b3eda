"""Methods that tune a backbone, on a T5: their losses, gradients and lists."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from plain_trie import random_rows
from searches import index_of, lists
from tiny_models import T5_1_0, VOCAB
from tiny_run import context_of, decode_options

from igd_jax.core.ragged import Ragged
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import Examples, shared_prefix
from igd_jax.methods import load_method
from igd_jax.methods.base import Context, token_loss
from igd_jax.methods.cft import Counterfactual
from igd_jax.models.t5 import T5

METHODS = {
    "sft": {},
    "igd": {"beta": 0.2},
    "d3": {"lam": 0.5},
    "cft": {"alpha": 0.5},
    "msl": {"tau": 2.0},
}
N_ITEMS = 40
PROMPTS = [[20 + item, 30, 31] for item in range(6)]


@pytest.fixture(scope="module")
def context() -> Context:
    """One layer on either side, since what compiles is unrolled."""
    config = dataclasses.replace(T5_1_0, num_layers=1, num_decoder_layers=1)
    rng = np.random.default_rng(0)
    rows = random_rows(rng, N_ITEMS, vocab=VOCAB, longest=6)
    index = index_of(rows, counts=rng.integers(0, 4, N_ITEMS), candidates=np.arange(N_ITEMS) % 4 != 0)
    return context_of(index, backbone=lambda: nnx.jit(lambda: T5(config, rngs=nnx.Rngs(0)))())


def test_plain_losses_differ_by_their_weights_alone(context):
    losses = {load_method(name, METHODS[name]).objective(context).loss for name in ("sft", "igd", "d3")}
    assert losses == {token_loss}


@pytest.mark.parametrize("name", ["igd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cft", "msl"))])
def test_a_loss_falls_along_its_gradient(name, context):
    method = load_method(name, METHODS[name])
    objective = method.objective(context)
    tables = objective.tables
    if isinstance(tables, Counterfactual):  # a prompt that this vocabulary has
        tables = tables.replace(prompt=jnp.array([21, 22, 23], jnp.int32))
    prompts, every = Ragged.from_lists(PROMPTS), np.ones(len(PROMPTS), bool)
    examples = Examples(prompts, np.arange(1, 7, dtype=np.int32), ~every, shared_prefix(prompts, every), every)
    batch = make_text_batch(examples, np.arange(6), context.index.item_tokens, objective.annotations, size=7)
    graph, params, rest = nnx.split(method.make_model(context), nnx.Param, ...)

    @jax.jit
    def loss_and_grad(params, batch):
        def loss(params):
            total = objective.loss(nnx.merge(graph, params, rest), batch, tables, {})
            return total.loss / total.weight

        return jax.value_and_grad(loss)(params)

    before, grads = jax.device_get(loss_and_grad(params, batch))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    square = sum(float(np.square(leaf).sum()) for leaf in jax.tree.leaves(grads))
    rate = 1e-3 / square**0.5
    after, _ = loss_and_grad(jax.tree.map(lambda p, g: p - rate * g, jax.device_get(params), grads), batch)
    np.testing.assert_allclose(before - after, rate * square, rtol=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_lists_are_of_different_candidates(name, context):
    rng, index = np.random.default_rng(1), context.index
    engine = load_method(name, METHODS[name]).engine(
        context, context.backbone(), decode_options(index, alpha=0.2, length_penalty=1.0, top_k=3)
    )
    batch = text_batch([*PROMPTS, []], shared=[40, 41])
    batch = batch.replace(collaborative=jnp.asarray(rng.normal(size=(7, N_ITEMS)), jnp.float32))
    found = lists(engine, batch)
    assert found.rows.shape == (7, 3)
    assert index.is_candidate[found.rows[:6]].all()
    assert all(len(set(row)) == 3 for row in found.rows[:6].tolist())
    assert (np.diff(found.scores[:6], axis=1) <= 0).all()
    assert (found.rows[6] == -1).all()
    assert len({tuple(row) for row in found.rows[:6].tolist()}) > 1
