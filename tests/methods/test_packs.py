"""A loss and its gradients are those of padded rows, in packs or as trees, and of some targets at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from plain_trie import random_rows
from searches import index_of
from tiny_models import VOCAB, random_model
from tiny_run import context_of

from igd_jax.core.ragged import Ragged
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import Examples
from igd_jax.data.packing import PackShape, place_rows
from igd_jax.data.packs import make_packs
from igd_jax.methods import load_method
from igd_jax.methods.base import Context, Objective
from igd_jax.methods.cft import Counterfactual
from igd_jax.models import cost

N_ITEMS, N_ROWS = 30, 14
METHODS = {
    "sft": {},
    "igd": {"beta": 0.2},
    "cft": {"alpha": 0.5},
    "msl": {"tau": 1.5, "adaptive": True, "denominator": "deciding"},
    "bigrec": {"prompt_loss": True},
}
HEADER = [30, 31]


@pytest.fixture(scope="module")
def context() -> Context:
    rng = np.random.default_rng(0)
    return context_of(index_of(random_rows(rng, N_ITEMS, vocab=VOCAB, longest=6), counts=rng.integers(0, 4, N_ITEMS)))


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Growing histories of some users, one row twice, a row that begins another, and one without the header."""
    rng = np.random.default_rng(1)
    prompts = []
    for length in (21, 18):
        history = rng.integers(3, 29, length).tolist()
        prompts += [[*HEADER, *history[:end], 32, 33] for end in range(length - 9, length, 2)]
    prompts += [[*HEADER, 5, 6, 7], [*HEADER, 5, 6, 7], [*HEADER, 5], [7, 8, 9, 10]]
    assert len(prompts) == N_ROWS
    has_header = np.array([prompt[:2] == HEADER for prompt in prompts])
    target = rng.integers(0, N_ITEMS, N_ROWS).astype(np.int32)
    target[-3] = target[-4]
    return Examples(
        Ragged.from_lists(prompts), target, np.zeros(len(prompts), bool), np.array(HEADER, np.int32), has_header
    )


def tables_of(objective: Objective) -> Any:
    """Those of the objective, with a counterfactual prompt that this vocabulary has."""
    if isinstance(objective.tables, Counterfactual):
        return objective.tables.replace(prompt=jnp.array([21, 22, 23], jnp.int32))
    return objective.tables


def packed(
    examples: Examples, context: Context, objective: Objective, *, trees: bool, width: int = 40, packs: int = 4
) -> list[TextBatch]:
    """All rows in packs, in a mixed order; the targets of pairs of packs stand together."""
    covers = objective.covers_prompt
    shape = PackShape(
        width, 128 if covers else 40, 8, packs, 2, trees=trees, shares_prefix=not covers, covers_prompt=covers
    )
    rows, tokens = np.random.default_rng(2).permutation(N_ROWS), context.index.item_tokens
    placed = place_rows(examples, rows, tokens, shape)
    return list(make_packs(placed, examples, tokens, objective.annotations, shape))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "cft")) for name in METHODS])
def test_packs_and_trees_have_the_loss_and_gradients_of_padded_rows(name, context, examples):
    objective = load_method(name, METHODS[name]).objective(context)
    state = {key: jnp.float32(value) for key, value in objective.state.items()}
    graph, params = nnx.split(random_model("decoder"))

    def loss(params: Any, batch: TextBatch) -> tuple[jax.Array, LossSum]:
        total = objective.loss(nnx.merge(graph, params), batch, tables_of(objective), state)
        return total.loss, total

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    rows = make_text_batch(
        examples, np.arange(N_ROWS), context.index.item_tokens, objective.annotations, size=N_ROWS + 1
    )
    expected = gradient(params, rows)
    n_tokens: list[int] = []
    for trees in (False, True):
        batches = packed(examples, context, objective, trees=trees)
        found = [gradient(params, batch) for batch in batches]
        n_tokens.append(sum(int(batch.prompt_mask.sum()) for batch in batches))
        assert_close(jax.tree.map(lambda *parts: sum(parts), *found), expected)
    assert n_tokens[1] < 0.7 * n_tokens[0]
    free = PackShape(1000, 1000, N_ROWS, 1, trees=True, shares_prefix=not objective.covers_prompt)
    whole = place_rows(examples, np.arange(N_ROWS), context.index.item_tokens, free)
    assert whole.own.sum() < n_tokens[1]  # some tree was split


@pytest.mark.parametrize("name", ["igd", "cft", "msl"])
def test_some_targets_at_a_time_have_the_loss_and_gradients_of_all(name, context, examples, monkeypatch):
    objective = load_method(name, METHODS[name]).objective(context)
    state = {key: jnp.float32(value) for key, value in objective.state.items()}
    graph, params = nnx.split(random_model("decoder"))
    tokens = context.index.item_tokens
    rows = make_text_batch(examples, np.arange(N_ROWS), tokens, objective.annotations, size=N_ROWS)
    rows = jax.tree.map(jnp.asarray, rows)

    def gradients(params: Any) -> tuple[Any, LossSum]:
        def loss(params: Any) -> tuple[jax.Array, LossSum]:
            total = objective.loss(nnx.merge(graph, params), rows, tables_of(objective), state)
            return 2.0 * total.loss, total  # so that what comes back is not 1

        return jax.grad(loss, has_aux=True)(params)

    expected = jax.jit(gradients)(params)
    for name in ("_MOST_LOGITS", "_PART_OF_LOGITS"):
        monkeypatch.setattr(cost, name, 3 * 4 * N_ROWS * VOCAB)  # three columns, which leave a rest
    found = jax.jit(lambda params: gradients(params))(params)
    assert_close(found, expected, tolerance=1e-6)


def assert_close(found: Any, expected: Any, *, tolerance: float = 1e-5) -> None:
    """Each array is the same to `tolerance` of its largest number."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(
            ours,
            theirs,
            rtol=tolerance,
            atol=tolerance * float(np.abs(theirs).max()),
            err_msg=jax.tree_util.keystr(path),
        )
