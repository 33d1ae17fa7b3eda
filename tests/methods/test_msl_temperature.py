"""MSL's adaptive temperature moves by the formula, once a step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from msl_calls import ADAPTIVE, MICRO_BATCHES, N_FIRST, batch_of, loss_of, make_context, make_model, nll_of, parts_of
from plain_trie import EOS
from searches import index_of
from tiny_run import context_of

from igd_jax.core.types import LossSum
from igd_jax.methods.base import Context
from igd_jax.methods.msl import MSL
from igd_jax.models.decoder import Decoder
from igd_jax.training.step import grouped, init_state, make_step, means


@pytest.fixture(scope="module")
def context() -> Context:
    return make_context()


@pytest.fixture(scope="module")
def model() -> Decoder:
    return make_model()


def moved(
    tau: float, legal: list[float], targets: list[float], *, method: MSL = ADAPTIVE, step: int = 0
) -> dict[str, float]:
    """The state after a step with these logits of first tokens."""
    pairs = {
        "first_target": (sum(targets), len(targets)),
        "first_legal": (sum(legal), len(legal)),
        "first_legal_square": (sum(z * z for z in legal), len(legal)),
    }
    metrics = {name: (jnp.float32(a), jnp.float32(b)) for name, (a, b) in pairs.items()}
    context = context_of(index_of([[first, EOS] for first in range(1, 7)]))
    update = method.objective(context).update_state
    found = update(
        {"tau": jnp.float32(tau), "step": jnp.float32(step)}, LossSum(jnp.float32(0), jnp.float32(1), metrics)
    )
    return {name: float(value) for name, value in found.items()}


def test_tau_moves_as_the_formula_says():
    # Two rows, six first tokens each: targets' logits 6 and 8, all logits 2 but for the targets themselves.
    legal = [2.0] * 5 + [6.0] + [2.0] * 5 + [8.0]
    lead, variance, c = 7.0 - np.mean(legal), np.var(legal, ddof=1), math.log(0.25 * 6)
    wanted = (lead + math.sqrt(lead**2 - 2 * c * variance)) / (2 * c)
    assert wanted > 5.0  # so it is kept at 5
    assert moved(1.5, legal, [6.0, 8.0])["tau"] == pytest.approx(0.95 * 1.5 + 0.05 * 5.0)
    # Smaller leads: within the bounds, below them, and with a negative root, which counts as 0.
    legal = [0.0] * 5 + [2.0]
    lead, variance = 2.0 - np.mean(legal), np.var(legal, ddof=1)
    wanted = (lead + math.sqrt(lead**2 - 2 * c * variance)) / (2 * c)
    assert 1.5 < wanted < 5.0
    assert moved(4.5, legal, [2.0])["tau"] == pytest.approx(0.95 * 4.5 + 0.05 * wanted)
    assert moved(4.5, [1.0] * 6, [1.0])["tau"] == pytest.approx(0.95 * 4.5 + 0.05 * 1.5)
    legal = [0.0, 0.0, 0.0, 6.0, 6.0, 5.0]
    lead, variance = 5.0 - np.mean(legal), np.var(legal, ddof=1)
    assert lead**2 < 2 * c * variance
    assert 1.5 < lead / (2 * c) < 5.0
    assert moved(4.5, legal, [5.0])["tau"] == pytest.approx(0.95 * 4.5 + 0.05 * lead / (2 * c))


def test_eta_alpha_and_the_bounds_are_arguments():
    legal, lead, variance = [0.0] * 5 + [2.0], 2.0 - 2.0 / 6, 2.0 / 3

    def method(**args: float) -> MSL:
        return MSL(tau=2.0, adaptive=True, denominator="deciding", **args)

    c = math.log(0.5 * 6)
    wanted = (lead + math.sqrt(lead**2 - 2 * c * variance)) / (2 * c)
    assert 1.0 < wanted < 1.5
    at_once = {"eta": 0.5, "alpha": 1.0}
    assert moved(2.0, legal, [2.0], method=method(**at_once, tau_min=1.0))["tau"] == pytest.approx(wanted)
    assert moved(2.0, legal, [2.0], method=method(**at_once))["tau"] == pytest.approx(1.5)
    assert moved(2.0, legal, [2.0], method=method(**at_once, tau_min=0.1, tau_max=1.0))["tau"] == pytest.approx(1.0)


def test_tau_keeps_its_start_while_it_warms_up():
    method = MSL(tau=2.0, adaptive=True, denominator="deciding", warm_up=2)
    legal, state = [0.0] * 5 + [9.0], {"tau": 2.0, "step": 0}
    taus = []
    for _ in range(4):
        state = moved(state["tau"], legal, [9.0], method=method, step=int(state["step"]))
        taus.append(state["tau"])
    assert taus == pytest.approx([2.0, 2.0, 0.95 * 2.0 + 0.05 * 5.0, 0.95 * (0.95 * 2.0 + 0.25) + 0.25])


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
    validation = loss_of(ADAPTIVE, context, model, batch.replace(seed=None), {"tau": jnp.float32(2.5)})
    at_first = [nll_of(target, legal, 1.5) for target, legal in parts if len(legal) > 1]
    np.testing.assert_allclose(means(validation)["loss"], 1.5 * np.mean(at_first), rtol=1e-5)


def test_a_step_without_candidates_keeps_tau():
    assert moved(3.0, [], []) == {"tau": 3.0, "step": 1.0}


@pytest.mark.slow
def test_micro_batches_give_the_loss_the_weights_and_the_tau_of_the_whole(context, model):
    objective = ADAPTIVE.objective(context)
    assert objective.state == {"tau": 1.5, "step": 0.0}
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
            state, values = step.update(state, step.accumulate(state, grouped(batches, context.mesh)))
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
