"""MSL: equal to a sum written out over the legal tokens; its temperature moves by the formula, once a step."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from plain_trie import EOS, plain_trie
from searches import index_of
from tiny_models import DECODER
from tiny_run import HF_CONFIG, context_of

from configs import msl as msl_config
from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import Examples, shared_prefix
from igd_jax.methods.base import Context, load_method, target_logits
from igd_jax.methods.msl import MSL, follow_first_tokens, has_choice, legal_nll
from igd_jax.models.config import from_hf
from igd_jax.models.decoder import Decoder
from igd_jax.training.loss import weighted_cross_entropy
from igd_jax.training.step import init_state, make_step, means

# Six first tokens; after "3" there are three choices. Item 4 is no candidate and leaves the trie at its second token.
TITLES = [[1, 9, EOS], [2, 9, EOS], [3, 9, EOS], [3, 4, 9, EOS], [1, 5, 9, EOS], [3, 5, 7, 9, EOS], [4, EOS], [5, EOS]]
TITLES += [[6, EOS]]
CANDIDATES = np.arange(len(TITLES)) != 4
N_FIRST = 6
ADAPTIVE = MSL(tau=1.5, adaptive=True, denominator="deciding")
MICRO_BATCHES = ([[7, 8, 7, 8, 7, 8, 4, 3]], [[3, 4, 8, 7], [7, 8, 7, 8]], [[7, 8, 7], [8, 7, 8], [4, 3]])
"""Targets that the weights prefer, so that the temperature is not at its bounds."""


@pytest.fixture(scope="module")
def context() -> Context:
    return context_of(index_of(TITLES, candidates=CANDIDATES))


@pytest.fixture(scope="module")
def model() -> Decoder:
    """Random weights, large enough for logits that differ by several."""
    made = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    made.embed[...] = made.embed[...] * 20.0
    return made


def batch_of(context: Context, items: list[int], *, size: int) -> TextBatch:
    """One row per item, each after a prompt of its own; rows beyond them fill up."""
    prompts = Ragged.from_lists([[20 + item, 30] for item in items])
    every = np.ones(len(items), bool)
    examples = Examples(prompts, np.array(items, np.int32), 0, shared_prefix(prompts, every), every)
    annotations = MSL().objective(context).annotations
    batch = make_text_batch(examples, np.arange(len(items)), context.index.item_tokens, annotations, size=size)
    return jax.tree.map(jnp.asarray, batch)


def loss_of(method: MSL, context: Context, model: Decoder, batch: TextBatch, state: dict[str, Any] | None = None):
    objective = method.objective(context)
    loss = nnx.jit(lambda model, batch, tables, state: objective.loss(model, batch, tables, state))
    return loss(model, batch, objective.tables, state or {})


def parts_of(model: Decoder, batch: TextBatch) -> list[tuple[float, list[float]]]:
    """By brute force: the target's logit and those of all legal tokens, for each token of the candidates' titles."""
    kept = [row for row, is_candidate in zip(TITLES, CANDIDATES, strict=True) if is_candidate]
    logits = np.asarray(nnx.jit(target_logits)(model, batch), np.float64)
    found = []
    for row, target, mask in zip(logits, np.asarray(batch.target), np.asarray(batch.target_mask), strict=True):
        title = target[mask].tolist()
        if title not in kept:
            continue
        node = plain_trie(kept)[0]
        for place, token in enumerate(title):
            found.append((row[place, token], [row[place, child] for child in node.children]))
            node = node.children[token]
    return found


def nll_of(target: float, legal: list[float], tau: float) -> float:
    return math.log(sum(math.exp(z / tau) for z in legal)) - target / tau


# ----------------------------------------------------------------------------------------------------------------- loss
def test_the_parent_of_each_token_is_the_node_before_it_and_minus_one_off_the_trie(context):
    flat = MSL().objective(context).annotations["parent"]
    parent = Ragged(flat, context.index.item_tokens.start)
    nodes = plain_trie([row for row, is_candidate in zip(TITLES, CANDIDATES, strict=True) if is_candidate])
    for item, row in enumerate(TITLES):
        expected, node = [], nodes[0]
        for token in row if CANDIDATES[item] else []:
            expected.append(node.number)
            node = node.children[token]
        assert parent[item].tolist() == (expected or [-1] * len(row))
    assert flat.dtype == np.int32


@pytest.mark.parametrize(("tau", "denominator"), [(1.0, "all"), (1.0, "deciding"), (4.5, "all"), (4.5, "deciding")])
def test_the_loss_is_that_written_out_over_the_legal_tokens(context, model, tau, denominator):
    batch = batch_of(context, list(range(9)), size=11)
    total = loss_of(MSL(tau=tau, denominator=denominator), context, model, batch)
    parts = parts_of(model, batch)
    expected = sum(nll_of(target, legal, tau) for target, legal in parts)
    n_deciding = sum(len(legal) > 1 for _, legal in parts)
    assert n_deciding == 8 + 3
    np.testing.assert_allclose(total.loss, expected, rtol=1e-5)
    assert float(total.weight) == (len(parts) if denominator == "all" else n_deciding)


def test_a_target_that_is_no_candidate_weighs_nothing_and_is_counted(context, model):
    with_it, without = (
        loss_of(MSL(), context, model, batch_of(context, items, size=4)) for items in ([0, 3, 4], [0, 3])
    )
    np.testing.assert_allclose(with_it.loss, without.loss, rtol=1e-5)
    assert float(with_it.weight) == float(without.weight) == 7
    assert [float(x) for x in with_it.metrics["off_trie"]] == [1, 3]
    assert [float(x) for x in without.metrics["off_trie"]] == [0, 2]


def test_where_all_tokens_are_legal_and_tau_is_one_it_is_plain_fine_tuning():
    small = nnx.jit(lambda: Decoder(dataclasses.replace(DECODER, vocab_size=4), rngs=nnx.Rngs(0)))()
    # All four tokens may follow, but after two of them only the end can: those ends are left out of the plain loss.
    rows = [[a, b, EOS] for a in (1, 2, 3) for b in (1, 2, 3)] + [[a, EOS] for a in (1, 2, 3)] + [[EOS]]
    context = context_of(index_of(rows))
    batch = batch_of(context, list(range(13)), size=13)
    batch = batch.replace(prompt=batch.prompt % 4)
    ours = loss_of(MSL(tau=1.0, denominator="deciding"), context, small, batch)
    weight = (batch.target_mask & (batch.place < 2)).astype(jnp.float32)
    plain = weighted_cross_entropy(nnx.jit(target_logits)(small, batch), batch.target, weight, parts={})
    np.testing.assert_allclose(ours.loss, plain.loss, rtol=1e-6)
    assert float(ours.weight) == float(plain.weight) == 9 * 2 + 3 * 2 + 1


@pytest.mark.parametrize("scale", [1.0, 3e4])
def test_forced_tokens_cost_exactly_nothing_and_huge_logits_stay_finite(scale):
    logits = scale * jnp.array([[[1.1, 0.3, 2.0], [0.7, 5.0, 5.0], [1.0, 2.0, 3.0]]], jnp.float32)
    legal = jnp.array([[[True, True, False], [True, False, False], [False, False, False]]])
    target = logits[:, :, 0] + jnp.array([[0.0, 0.1, 0.0]])  # of a forced token even a rounded logit counts nothing

    @jax.jit
    def nll_and_grads(logits, target):
        nll, pull = jax.vjp(lambda *given: legal_nll(given[0], legal, given[1], jnp.float32(4.5)), logits, target)
        return nll, pull(jnp.ones_like(nll))

    nll, (by_logits, by_target) = nll_and_grads(logits, target)
    assert nll[0, 1:].tolist() == [0.0, 0.0]
    expected = np.logaddexp(scale * 1.1 / 4.5, scale * 0.3 / 4.5) - scale * 1.1 / 4.5
    np.testing.assert_allclose(nll[0, 0], expected, rtol=1e-4, atol=1e-6 * scale)
    assert bool(jnp.isfinite(by_logits).all() and jnp.isfinite(by_target).all())
    assert not by_logits[0, 1:].any()
    assert not by_target[0, 1:].any()
    assert has_choice(legal).tolist() == [[True, False, False]]


def test_illegal_tokens_have_no_gradient(context):
    model = nnx.jit(lambda: Decoder(dataclasses.replace(DECODER, tie_embeddings=False), rngs=nnx.Rngs(0)))()
    objective, batch = MSL().objective(context), batch_of(context, [3], size=1)

    @nnx.jit
    def grad_of_head(model, batch):
        graph, params = nnx.split(model)
        loss = lambda params: objective.loss(nnx.merge(graph, params), batch, objective.tables, {}).loss  # noqa: E731
        return jax.grad(loss)(params)["head"][...]

    moved = np.flatnonzero(np.abs(grad_of_head(model, batch)).sum(axis=1))
    assert moved.tolist() == [1, 2, 3, 4, 5, 6, 9]  # first tokens, and 4, 5 and the newline after 3


# ---------------------------------------------------------------------------------------------------------- temperature
def test_tau_moves_as_the_formula_says():
    # Two rows, six first tokens each: targets' logits 6 and 8, all logits 2 but for the targets themselves.
    legal = [2.0] * 5 + [6.0] + [2.0] * 5 + [8.0]
    mean, square = sum(legal) / 12, sum(z * z for z in legal) / 12
    lead, variance, c = 7.0 - mean, square - mean**2, math.log(0.25 * 6)
    wanted = (lead + math.sqrt(lead**2 - 2 * c * variance)) / (2 * c)
    assert wanted > 5.0  # so it is kept at 5
    assert _moved(1.5, legal, [6.0, 8.0]) == pytest.approx(0.95 * 1.5 + 0.05 * 5.0)
    # Smaller leads: within the bounds, below them, and with a negative root, which counts as 0.
    legal = [0.0] * 5 + [2.0]
    lead, variance = 2.0 - 2.0 / 6, 4.0 / 6 - (2.0 / 6) ** 2
    wanted = (lead + math.sqrt(lead**2 - 2 * c * variance)) / (2 * c)
    assert 1.5 < wanted < 5.0
    assert _moved(4.5, legal, [2.0]) == pytest.approx(0.95 * 4.5 + 0.05 * wanted)
    assert _moved(4.5, [1.0] * 6, [1.0]) == pytest.approx(0.95 * 4.5 + 0.05 * 1.5)
    legal = [0.0, 0.0, 0.0, 6.0, 6.0, 5.0]
    lead, variance = 5.0 - 17 / 6, 97 / 6 - (17 / 6) ** 2
    assert lead**2 < 2 * c * variance
    assert 1.5 < lead / (2 * c) < 5.0
    assert _moved(4.5, legal, [5.0]) == pytest.approx(0.95 * 4.5 + 0.05 * lead / (2 * c))


def _moved(tau: float, legal: list[float], targets: list[float]) -> float:
    """The temperature after a step with these logits of first tokens."""
    pairs = {
        "first_target": (sum(targets), len(targets)),
        "first_legal": (sum(legal), len(legal)),
        "first_legal_square": (sum(z * z for z in legal), len(legal)),
    }
    metrics = {name: (jnp.float32(a), jnp.float32(b)) for name, (a, b) in pairs.items()}
    total = LossSum(jnp.float32(0), jnp.float32(1), metrics)
    return float(follow_first_tokens({"tau": jnp.float32(tau)}, total)["tau"])


def test_the_statistics_are_those_of_all_legal_first_tokens_of_candidates_and_tau_scales_the_loss(context, model):
    batch = batch_of(context, list(range(9)), size=11)
    total = loss_of(ADAPTIVE, context, model, batch, {"tau": jnp.float32(2.5)})
    parts = parts_of(model, batch)
    first = [(target, legal) for target, legal in parts if len(legal) == N_FIRST]
    legal = [z for _, row in first for z in row]
    expected = {
        "off_trie": (1, 9),
        "tau": (2.5 * 8, 8),
        "first_target": (sum(target for target, _ in first), 8),
        "first_legal": (sum(legal), 8 * N_FIRST),
        "first_legal_square": (sum(z * z for z in legal), 8 * N_FIRST),
    }
    assert total.metrics.keys() == expected.keys()
    for name, pair in expected.items():
        np.testing.assert_allclose(total.metrics[name], pair, rtol=1e-5)
    deciding = [nll_of(target, legal, 2.5) for target, legal in parts if len(legal) > 1]
    np.testing.assert_allclose(means(total)["loss"], 2.5 * np.mean(deciding), rtol=1e-5)


def test_a_step_without_candidates_keeps_tau():
    assert _moved(3.0, [], []) == 3.0


@pytest.mark.slow
def test_micro_batches_give_the_loss_the_weights_and_the_tau_of_the_whole(context, model):
    objective = ADAPTIVE.objective(context)
    assert objective.state == {"tau": 1.5}
    graph, params = nnx.split(model)
    step = make_step(
        lambda params, tables, batch, state: objective.loss(nnx.merge(graph, params), batch, tables, state),
        optax.sgd(1e-3),
        tables=objective.tables,
        update_state=objective.update_state,
    )
    ends = []
    for groups in MICRO_BATCHES:
        loss_state = {name: jnp.float32(value) for name, value in objective.state.items()}
        state = init_state(jax.tree.map(jnp.copy, params), optax.sgd(1e-3), loss_state)
        for _ in range(2):
            batches = [batch_of(context, items, size=max(map(len, groups))) for items in groups]
            state, values = step.update(state, step.accumulate(state, batches))
        ends.append((state.params, state.loss_state, values))
    before, after = float(ends[0][2]["tau"]), float(ends[0][1]["tau"])
    assert 1.5 < (before - 0.95 * 1.5) / 0.05 < 5.0
    assert 1.5 < before < after  # the second step's own loss used the tau after the first
    for other in ends[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), other, ends[0])


def test_a_fixed_temperature_has_no_state(context):
    objective = MSL().objective(context)
    assert objective.state == {}
    assert objective.update_state({}, LossSum(jnp.float32(0), jnp.float32(0), {})) == {}


# ------------------------------------------------------------------------------------------------------------ arguments
@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"tau": 0.0}, "tau is 0.0; expected a temperature above 0"),
        ({"tau": float("nan")}, "tau is nan; expected a temperature above 0"),
        ({"denominator": "some"}, "denominator is 'some'; expected all or deciding"),
        ({"adaptive": True}, "denominator is 'all'; expected deciding, since adaptive is True"),
    ],
)
def test_a_bad_argument_is_bad_input(args, told):
    with pytest.raises(InputError) as caught:
        MSL(**args)
    assert str(caught.value) == f"config.method.args.{told}"


@pytest.mark.parametrize(("n_first", "is_enough"), [(4, False), (5, True)])
def test_an_adaptive_temperature_needs_more_than_four_first_tokens(n_first, is_enough):
    context = context_of(index_of([[first, EOS] for first in range(1, n_first + 1)]))
    assert MSL().objective(context).tables.root_width == n_first
    if is_enough:
        assert ADAPTIVE.objective(context).tables.root_width == n_first
    else:
        with pytest.raises(InputError, match=r"titles begin with 4 different token\(s\); it needs more than 4: give a"):
            ADAPTIVE.objective(context)


def test_the_config_sets_temperature_and_mean_together():
    for name, tau, denominator in (("fixed", 4.5, "all"), ("adaptive", 1.5, "deciding")):
        args = msl_config.get_config(name).method.args.to_dict()
        assert args == {"tau": tau, "adaptive": name == "adaptive", "denominator": denominator}
        load_method("msl", args)
    assert msl_config.get_config() == msl_config.get_config("fixed")
    with pytest.raises(ValueError, match="expected fixed or adaptive"):
        msl_config.get_config("warm")
