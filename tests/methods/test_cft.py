"""Pos and CFT: weights that fall along a title, and a second loss that costs one short pass, not a whole one."""

import dataclasses
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch, with_targets
from flax import nnx
from plain_trie import EOS
from tiny_models import VOCAB, random_model
from tiny_run import context_of

from configs import cft as cft_config
from configs import pos as pos_config
from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import Examples, shared_prefix
from igd_jax.data.prompts import Prompts
from igd_jax.data.templates import filled
from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.identifiers.base import Source
from igd_jax.identifiers.titles import Titles
from igd_jax.items.index import build_index
from igd_jax.methods import load_method
from igd_jax.methods.base import Context, target_logits
from igd_jax.methods.cft import CFT, Counterfactual
from igd_jax.models.backbone import Backbone
from igd_jax.models.without_history import logits_without_history
from igd_jax.training.loss import weighted_cross_entropy

# 9 is the newline. Item 4 is not a candidate, and item 5 has one token.
TOKENS = Ragged.from_lists([[1, 9, EOS], [2, 9, EOS], [3, 9, EOS], [3, 4, 6, 7, 9, EOS], [1, 5, 9, EOS], [EOS]])
COUNTS = np.array([3, 1, 2, 0, 0, 1])
MASK = np.arange(6) < TOKENS.lengths[:, None]
DECIDING = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], bool)
DECIDING = np.pad(DECIDING, ((0, 0), (0, 3)))
PROMPT = np.array([21, 22, 23, 24, 25], np.int32)
CONSTANTS = Counterfactual(jnp.asarray(PROMPT), longest=6)


@pytest.fixture(scope="module")
def context() -> Context:
    return context_of(build_index(["A", "B", "C", "C D", "A B", ""], TOKENS, COUNTS, candidates=np.arange(6) != 4))


@pytest.fixture(scope="module")
def model() -> Backbone:
    return random_model("decoder")


def rows_of(prompts: list[list[int]]) -> Examples:
    """One row per prompt, whose target is the item of its number."""
    ragged, every = Ragged.from_lists(prompts), np.ones(len(prompts), bool)
    return Examples(ragged, np.arange(len(prompts), dtype=np.int32), ~every, shared_prefix(ragged, every), every)


def batch_of(method: CFT, context: Context) -> TextBatch:
    """Six rows with a shared prefix of two tokens, and one that fills up."""
    prompts = [[30, 31, 11, 12], [30, 31, 13], [30, 31, 14, 15, 16], [30, 31, 17], [30, 31, 18, 19], [30, 31, 20]]
    annotations = method.objective(context).annotations
    batch = make_text_batch(rows_of(prompts), np.arange(6), TOKENS, annotations, size=7)
    assert len(batch.shared_prefix) == 2
    return jax.tree.map(jnp.asarray, batch)


def loss_of(method: CFT, context: Context, model: Backbone, batch: TextBatch) -> LossSum:
    """With the prompt of `CONSTANTS`."""
    return method.objective(context).loss(model, batch, CONSTANTS, {})


def naive_loss(model: Backbone, batch: TextBatch, *, alpha: float, stop_gradient: bool) -> LossSum:
    """Two whole forward passes, both over prompts of their own for each row."""
    prompts = text_batch([PROMPT.tolist()] * len(batch.target))
    moved = jnp.where(batch.target_mask, batch.before - batch.prompt.shape[1] + len(PROMPT), 0)
    other = batch.replace(
        shared_prefix=prompts.shared_prefix, prompt=prompts.prompt, prompt_mask=prompts.prompt_mask, before=moved
    )
    logits, without = target_logits(model, batch), target_logits(model, other)
    without = jax.lax.stop_gradient(without) if stop_gradient else without
    weight = batch.annotations["weight"]
    normal, causal = (weighted_cross_entropy(z, batch.target, weight, parts={}) for z in (logits, logits - without))
    return LossSum(normal.loss + alpha * causal.loss, normal.weight, {})


# ------------------------------------------------------------------------------------------------------------ weights
@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("gain_beta", [0.1, 1.0])
def test_weights_fall_in_equal_steps_from_one_to_beta_and_gain_beta_scales_forced_tokens(context, beta, gain_beta):
    found = CFT(beta=beta, gain_beta=gain_beta).objective(context).annotations
    weight = np.split(found["weight"], TOKENS.start[1:-1])
    for item, n in enumerate(TOKENS.lengths):
        omega = np.linspace(1.0, beta, n)
        expected = np.where(DECIDING[item, :n], omega, gain_beta * omega)
        np.testing.assert_allclose(weight[item], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["forced"], (~DECIDING)[MASK])
    assert found["weight"].dtype == np.float32


@pytest.mark.parametrize("beta", [0.0, 0.25])
def test_the_first_token_weighs_one_and_the_last_beta_exactly(context, beta):
    weight = CFT(beta=beta).objective(context).annotations["weight"]
    assert (weight[TOKENS.start[:-1]] == 1).all()
    assert (weight[TOKENS.start[1:-1] - 1] == np.float32(beta)).all()  # the last item has one token


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"alpha": -0.1}, "alpha is -0.1; expected a weight of at least 0"),
        ({"alpha": float("inf")}, "alpha is inf; expected a weight of at least 0"),
        ({"beta": 1.1}, "beta is 1.1; expected a weight from 0 to 1"),
        ({"gain_beta": float("nan")}, "gain_beta is nan; expected a weight from 0 to 1"),
    ],
)
def test_an_argument_out_of_range_is_bad_input(args, told):
    with pytest.raises(InputError) as caught:
        CFT(**args)
    assert str(caught.value) == f"config.method.args.{told}"


# --------------------------------------------------------------------------------------------------------- equivalences
def test_pos_at_beta_one_is_plain_fine_tuning_to_the_bit(context, model):
    method = CFT(alpha=0.0, beta=1.0)

    @nnx.jit
    def both(model, batch):
        weight = batch.target_mask.astype(jnp.float32)
        plain = weighted_cross_entropy(target_logits(model, batch), batch.target, weight, parts={})
        return loss_of(method, context, model, batch), plain

    ours, plain = both(model, batch_of(method, context))
    assert float(ours.weight) == float(plain.weight) == TOKENS.lengths.sum()
    np.testing.assert_array_equal(ours.loss, plain.loss)


def test_cft_at_alpha_zero_is_pos_and_runs_no_second_pass(context, model):
    pos, cft = CFT(alpha=0.0), CFT(alpha=0.3)
    batch = batch_of(pos, context)
    alone, found = nnx.jit(lambda model, batch: tuple(loss_of(method, context, model, batch) for method in (pos, cft)))(
        model, batch
    )
    np.testing.assert_allclose(found.metrics["loss_normal"], (alone.loss, alone.weight), rtol=1e-6)
    joined = found.metrics["loss_normal"][0] + 0.3 * found.metrics["loss_causal"][0]
    np.testing.assert_allclose(found.loss, joined, rtol=1e-6)
    assert float(found.loss) > float(alone.loss)
    assert "loss_causal" not in alone.metrics


def test_tables_are_the_prompt_without_history_and_the_longest_title_or_nothing_for_pos(context):
    tokenizer = train_tokenizer(["Past books, oldest first: unknown"], vocab_size=300)
    identifiers = Titles(Source([], [], {}, tokenizer, context.cache))
    prompts = Prompts(filled("plain", category="books"), tokenizer, identifiers, context.cache)
    context = context_of(context.index, tokenizer=tokenizer, prompts=prompts)
    found = CFT().objective(context).tables
    assert tokenizer.decode(found.prompt.tolist()) == "Past books, oldest first:\nunknown\n\nNext:\n"
    assert found.longest == 6
    assert CFT(alpha=0.0).objective(context).tables == ()


@pytest.fixture(scope="module")
def value_and_grad(context):
    """Of one of both losses, with respect to the weights; each is compiled once."""

    @cache
    def compiled(which: str, *, stop_gradient: bool) -> Callable[..., tuple[jax.Array, nnx.State]]:
        method = CFT(alpha=0.7, stop_gradient=stop_gradient)

        def loss(params: nnx.State, batch: TextBatch) -> jax.Array:
            model = nnx.merge(nnx.split(random_model("decoder"))[0], params)
            if which == "naive":
                return naive_loss(model, batch, alpha=0.7, stop_gradient=stop_gradient).loss
            return loss_of(method, context, model, batch).loss

        return jax.jit(jax.value_and_grad(loss))

    return compiled


@pytest.mark.slow
@pytest.mark.parametrize("stop_gradient", [False, True])
def test_loss_and_gradient_are_those_of_two_whole_passes(context, model, value_and_grad, stop_gradient):
    _, params = nnx.split(model)
    batch = batch_of(CFT(beta=0.25), context)
    ours = value_and_grad("ours", stop_gradient=stop_gradient)(params, batch)
    naive, other = (
        jax.device_get(value_and_grad("naive", stop_gradient=stop)(params, batch))
        for stop in (stop_gradient, not stop_gradient)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4), ours, naive)
    gap = max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (naive[1], other[1])), strict=True))
    assert gap > 0.1


def test_a_title_of_one_token_has_a_finite_loss_and_gradient(context, model, value_and_grad):
    annotations = CFT().objective(context).annotations
    batch = make_text_batch(rows_of([[30, 31, 11]] * 6), np.array([5]), TOKENS, annotations, size=7)
    batch = jax.tree.map(jnp.asarray, batch)
    value, grads = value_and_grad("ours", stop_gradient=False)(nnx.split(model)[1], batch)
    assert batch.annotations["weight"].sum() == 1
    assert all(np.isfinite(leaf).all() for leaf in [value, *jax.tree.leaves(grads)])


without_history = nnx.jit(logits_without_history)


@pytest.mark.parametrize("kind", ["decoder", "T5 1.0"])
def test_logits_without_history_align_for_the_longest_and_the_shortest_title(context, kind):
    model = random_model(kind)
    found = without_history(model, batch_of(CFT(), context), jnp.asarray(PROMPT))
    alone = with_targets(text_batch([PROMPT.tolist()] * 6), [TOKENS[item].tolist() for item in range(6)], width=6)
    expected = nnx.jit(target_logits)(model, alone)
    for item, n in enumerate(TOKENS.lengths):
        np.testing.assert_allclose(found[item, :n], expected[item, :n], atol=1e-5)


def test_identifiers_in_one_row_do_not_see_each_other(model):
    """Two targets, the second one after a gap, are predicted as each of them alone."""
    one = with_targets(text_batch([[11, 12]]), [[3, 4, 6, 9, EOS]], width=9)
    two = with_targets(text_batch([[11, 12]]), [[1, 9, EOS]], width=9, columns=[6, 7, 8])
    joined = {
        name: jnp.where(two.target_mask, getattr(two, name), getattr(one, name))
        for name in ("target", "target_mask", "place", "before")
    }
    found = without_history(model, one.replace(**joined), jnp.asarray(PROMPT))
    apart = [without_history(model, batch, jnp.asarray(PROMPT)) for batch in (one, two)]
    np.testing.assert_allclose(found[0, :5], apart[0][0, :5], atol=1e-5)
    np.testing.assert_allclose(found[0, 6:], apart[1][0, 6:], atol=1e-5)


# ----------------------------------------------------------------------------------------------------------------- cost
@pytest.mark.slow
def test_the_second_loss_costs_less_than_half_a_pass_at_published_prompt_lengths(context):
    rng = np.random.default_rng(0)
    ids = {width: rng.integers(1, VOCAB, (8, width)).tolist() for width in (80, 96, 16)}
    batch = with_targets(text_batch(ids[96], shared=ids[80][0]), ids[16], width=16)
    batch = batch.replace(annotations={"weight": jnp.ones((8, 16)), "forced": jnp.zeros((8, 16), bool)})
    counterfactual = Counterfactual(jnp.asarray(ids[96][0], jnp.int32), longest=16)
    model = random_model("decoder")
    model.config = dataclasses.replace(model.config, max_positions=512)
    graph, params = nnx.split(model)

    def flops(method: CFT) -> float:
        objective = method.objective(context)
        loss = jax.grad(lambda params, batch: objective.loss(nnx.merge(graph, params), batch, counterfactual, {}).loss)
        return jax.jit(loss).lower(params, batch).cost_analysis()["flops"]

    ratio = flops(CFT(alpha=0.1)) / flops(CFT(alpha=0.0))
    assert 1.0 < ratio < 1.5


def test_a_prompt_without_history_that_leaves_no_room_is_bad_input(context, model):
    objective, batch = CFT().objective(context), batch_of(CFT(), context)
    n_positions = model.config.max_positions

    def run(n_prompt: int) -> None:
        tables = Counterfactual(jnp.zeros(n_prompt, jnp.int32), longest=6)
        nnx.eval_shape(lambda model, batch: objective.loss(model, batch, tables, {}), model, batch)

    told = rf"has {n_positions - 5} tokens and the longest title 6, but the model has {n_positions} positions; "
    with pytest.raises(InputError, match=told):
        run(n_positions - 5)
    run(n_positions - 6)


# --------------------------------------------------------------------------------------------------------------- config
def test_pos_is_cft_without_its_second_loss_in_the_configs_too():
    cft, pos = cft_config.get_config(), pos_config.get_config()
    load_method("cft", cft.method.args.to_dict())
    assert cft.method.args.alpha > 0
    cft.method.args.alpha = 0.0
    assert cft.to_dict() == pos.to_dict()
