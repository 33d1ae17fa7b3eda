"""Losses follow `place`, `before` and `first`: they do not know in which columns a target stands."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from batches import annotated, text_batch, with_targets
from flax import nnx
from plain_trie import random_rows
from searches import index_of
from tiny_models import VOCAB, random_model
from tiny_run import context_of

from igd_jax.core.ragged import Ragged
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import Examples
from igd_jax.methods import load_method
from igd_jax.methods.base import Context, Objective, target_logits
from igd_jax.methods.cft import Counterfactual

N_ITEMS = 30
PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11, 4]]
ITEMS = [4, 17, 29]
METHODS = {
    "igd": {"beta": 0.2},
    "cft": {"alpha": 0.5},
    "msl": {"tau": 1.5, "adaptive": True, "denominator": "deciding"},
}
LAYOUTS = {
    "not from the first column on": [3, 4, 5, 6, 7, 8],
    "with padding between tokens": [0, 2, 3, 6, 7, 9],
    "both": [2, 3, 5, 6, 8, 9],
}


@pytest.fixture(scope="module")
def context() -> Context:
    rng = np.random.default_rng(0)
    return context_of(index_of(random_rows(rng, N_ITEMS, vocab=VOCAB, longest=6), counts=rng.integers(0, 4, N_ITEMS)))


def tables_of(objective: Objective) -> Any:
    """Those of the objective, with a counterfactual prompt that this vocabulary has."""
    if isinstance(objective.tables, Counterfactual):
        return objective.tables.replace(prompt=jnp.array([21, 22, 23], jnp.int32))
    return objective.tables


def batch_of(context: Context, objective: Objective, columns: list[int]) -> TextBatch:
    """One row per item, and one that fills up."""
    rows = context.index.item_tokens
    annotations = {
        name: [flat[slice(*rows.start[item:][:2])] for item in ITEMS] for name, flat in objective.annotations.items()
    }
    batch = text_batch([*PROMPTS, []], shared=[30, 31])
    targets = [*(rows[item].tolist() for item in ITEMS), []]
    return annotated(with_targets(batch, targets, width=10, columns=columns), annotations)


def assert_same_loss(found: LossSum, expected: LossSum) -> None:
    assert found.metrics.keys() == expected.metrics.keys()
    for name in ("loss", "weight"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)
    for name, pair in expected.metrics.items():
        np.testing.assert_allclose(found.metrics[name], pair, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["decoder", "T5 1.0"])
@pytest.mark.parametrize("name", METHODS)
def test_a_loss_is_the_same_wherever_its_targets_stand(name, kind, context):
    model = random_model(kind)
    objective = load_method(name, METHODS[name]).objective(context)
    state = {key: jnp.float32(value) for key, value in objective.state.items()}
    tables = tables_of(objective)
    loss = nnx.jit(lambda model, batch: objective.loss(model, batch, tables, state))
    plain = batch_of(context, objective, list(range(6)))
    expected = loss(model, plain)
    assert float(expected.weight) > 0
    for columns in LAYOUTS.values():
        assert_same_loss(loss(model, batch_of(context, objective, columns)), expected)

    moved = plain.replace(before=jnp.where(plain.place == 0, plain.before, plain.before - 1))
    assert not np.allclose(loss(model, moved).loss, expected.loss, rtol=2e-5)


@pytest.mark.parametrize("kind", ["decoder", "T5 1.0"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_target_logits_are_the_same_wherever_the_targets_stand(layout, kind, context):
    model, objective = random_model(kind), load_method("sft", {}).objective(context)
    logits = nnx.jit(target_logits)
    plain, moved = (batch_of(context, objective, columns) for columns in (list(range(6)), LAYOUTS[layout]))
    ours, theirs = (np.asarray(logits(model, batch))[np.asarray(batch.target_mask)] for batch in (plain, moved))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_batches_made_by_hand_stand_as_those_that_are_made_of_examples(context):
    objective = load_method("msl", {}).objective(context)
    target = np.array(ITEMS, np.int32)
    examples = Examples(
        Ragged.from_lists([[30, 31, *prompt] for prompt in PROMPTS]),
        target,
        np.zeros(3, bool),
        np.array([30, 31], np.int32),
        np.ones(3, bool),
    )
    made = make_text_batch(examples, np.arange(3), context.index.item_tokens, objective.annotations, size=4)
    by_hand = batch_of(context, objective, list(range(6)))
    rows, columns = np.nonzero(made.target_mask)
    assert (np.asarray(by_hand.target_mask)[:, :6] == made.target_mask[:, :6]).all()
    n_prompt = {id(batch): batch.prompt.shape[1] for batch in (made, by_hand)}
    for name in ("target", "place"):
        np.testing.assert_array_equal(getattr(by_hand, name)[rows, columns], getattr(made, name)[rows, columns])
    ours, theirs = (np.asarray(each.before)[rows, columns] - n_prompt[id(each)] for each in (by_hand, made))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(by_hand.first // 10, made.first // made.target.shape[1])
