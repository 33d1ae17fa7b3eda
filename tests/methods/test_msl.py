"""MSL: equal to a sum written out over the legal tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from msl_calls import CANDIDATES, TITLES, batch_of, loss_of, make_context, make_model, nll_of, parts_of
from plain_trie import EOS, plain_trie
from searches import index_of
from tiny_models import DECODER
from tiny_run import context_of

from configs import msl as msl_config
from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.methods import load_method
from igd_jax.methods.base import Context, target_logits
from igd_jax.methods.msl import MSL, has_choice, legal_nll
from igd_jax.models.decoder import Decoder
from igd_jax.training.loss import weighted_cross_entropy


@pytest.fixture(scope="module")
def context() -> Context:
    return make_context()


@pytest.fixture(scope="module")
def model() -> Decoder:
    return make_model()


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
    shown, tokens = MSL(denominator=denominator).objective(context).annotations["weight"], context.index.item_tokens
    of_targets = [shown[tokens.start[item] : tokens.start[item + 1]].sum() for item in range(9)]
    assert sum(of_targets) == float(total.weight)


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


# ------------------------------------------------------------------------------------------------------------ arguments
@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"tau": 0.0}, "tau is 0.0; expected a temperature above 0"),
        ({"tau": float("nan")}, "tau is nan; expected a temperature above 0"),
        ({"denominator": "some"}, "denominator is 'some'; expected all or deciding"),
        ({"adaptive": True}, "denominator is 'all', but adaptive is True; expected deciding"),
        ({"tau_min": 0.0}, "tau_min is 0.0; expected a temperature above 0"),
        ({"tau_max": 1.0}, "tau_max is 1.0; expected tau_min, 1.5, or more"),
        ({"eta": 0.0}, "eta is 0.0; expected a factor above 0"),
        ({"alpha": 0.0}, "alpha is 0.0; expected a share above 0 and at most 1"),
        ({"alpha": 1.5}, "alpha is 1.5; expected a share above 0 and at most 1"),
        ({"warm_up": -1}, "warm_up is -1; expected a number of steps, 0 or more"),
    ],
)
def test_a_bad_argument_is_bad_input(args, told):
    with pytest.raises(InputError) as caught:
        MSL(**args)
    assert str(caught.value) == f"config.method.args.{told}"


@pytest.mark.parametrize(("eta", "n_first", "is_enough"), [(0.25, 4, False), (0.25, 5, True), (0.5, 4, True)])
def test_an_adaptive_temperature_needs_more_first_tokens_than_one_by_eta(eta, n_first, is_enough):
    context = context_of(index_of([[first, EOS] for first in range(1, n_first + 1)]))
    method = MSL(tau=1.5, adaptive=True, denominator="deciding", eta=eta)
    assert MSL().objective(context).tables.root_width == n_first
    if is_enough:
        assert method.objective(context).tables.root_width == n_first
    else:
        with pytest.raises(
            InputError, match=r"begin with 4 different token\(s\); with eta 0.25 it needs more than 4: give"
        ):
            method.objective(context)


def test_the_config_sets_temperature_and_mean_together():
    adaptive = {"eta": 0.25, "alpha": 0.05, "tau_min": 1.5, "tau_max": 5.0, "warm_up": 0}
    for name, tau, denominator, more in (("fixed", 4.5, "all", {}), ("adaptive", 1.5, "deciding", adaptive)):
        args = msl_config.get_config(name).method.args.to_dict()
        assert args == {"tau": tau, "adaptive": name == "adaptive", "denominator": denominator} | more
        load_method("msl", args)
    assert msl_config.get_config() == msl_config.get_config("fixed")
    with pytest.raises(ValueError, match="expected fixed or adaptive"):
        msl_config.get_config("warm")
