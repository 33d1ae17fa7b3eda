"""Schedules at every update against the formulas of the published trainer; AdamW and clipping against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igd_jax.training.optimizer import BFLOAT16, make_optimizer, make_schedule, round_at_random

PEAK, WARMUP, STEPS = 1e-3, 5, 30


def _values(name, *, warmup=WARMUP, steps=STEPS):
    schedule = make_schedule(name, learning_rate=PEAK, warmup_steps=warmup, num_steps=steps)
    return [float(schedule(step)) for step in range(steps + 1)]


@pytest.mark.parametrize(("warmup", "steps"), [(WARMUP, STEPS), (0, STEPS), (1, 2)])
def test_linear_rises_from_zero_to_the_peak_and_falls_to_zero(warmup, steps):
    expected = [
        PEAK * (step / max(1, warmup) if step < warmup else (steps - step) / (steps - warmup))
        for step in range(steps + 1)
    ]
    values = _values("linear", warmup=warmup, steps=steps)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-12)
    assert values[0] == (0.0 if warmup else np.float32(PEAK))
    assert values[warmup] == np.float32(PEAK)
    assert values[-1] == 0.0


def test_linear_equals_that_of_the_transformers_library():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    theirs = []
    for _ in range(STEPS + 1):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(_values("linear"), theirs, rtol=1e-5, atol=1e-12)


def test_cosine_falls_to_zero_and_constant_stays():
    cosine, constant = _values("cosine"), _values("constant")
    assert cosine[:WARMUP] == constant[:WARMUP] == _values("linear")[:WARMUP]
    half = WARMUP + (STEPS - WARMUP) // 2
    expected = PEAK * (1 + np.cos(np.pi * (half - WARMUP) / (STEPS - WARMUP))) / 2
    np.testing.assert_allclose(cosine[half], expected, rtol=1e-5)
    assert cosine[-1] == pytest.approx(0.0, abs=1e-9)
    assert set(constant[WARMUP:]) == {float(np.float32(PEAK))}


def _adamw(gradients, *, params, clip, decay):
    """Two moments, bias correction, decoupled decay, in float64."""
    m = v = np.zeros_like(params)
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient / max(1.0, np.linalg.norm(gradient) / clip)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        update = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8) + decay * params
        params = params - 0.1 * update
    return params


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_updates_are_adamw_after_clipping_by_the_global_norm(decay):
    params = np.array([1.0, -2.0, 3.0])
    gradients = [np.array([30.0, -40.0, 0.1]), np.array([0.3, 0.1, -0.2]), np.array([0.0, 5.0, 0.0])]
    optimizer = make_optimizer(optax.constant_schedule(0.1), clip_norm=1.0, weight_decay=decay)
    ours = jnp.asarray(params, jnp.float32)
    state = optimizer.init(ours)
    for gradient in gradients:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, ours)
        ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, _adamw(gradients, params=params, clip=1.0, decay=decay), rtol=1e-4)
    unclipped = _adamw(gradients, params=params, clip=1e9, decay=decay)
    assert np.abs(np.asarray(ours) - unclipped).max() > 1e-3


# ------------------------------------------------------------------------------------------------------------ bfloat16
def _trained(optimizer, params, gradients):
    """Parameters and the optimizer's state after updates by the gradients, which are float32 sums."""

    def one(carry, gradient):
        params, state = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update({"w": gradient}, state, params)
            return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.jit(lambda *carry: jax.lax.scan(one, carry, gradients))(params, optimizer.init(params))
    return params, state


def _adam(state) -> optax.ScaleByAdamState:
    [found] = [
        part
        for part in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState))
        if isinstance(part, optax.ScaleByAdamState)
    ]
    return found


def _make(bfloat16, *, rate=1e-4, seed=0):
    return make_optimizer(optax.constant_schedule(rate), clip_norm=1e9, weight_decay=0.0, bfloat16=bfloat16, seed=seed)


@pytest.mark.parametrize(("bfloat16", "expected"), [("master", 1.35e-4), ("stochastic", 1.35e-4), ("pure", 9.99e-4)])
def test_the_second_moment_of_bfloat16_weights_decays_unless_all_is_bfloat16_as_published(bfloat16, expected):
    gradients = jnp.zeros((2001, 1), jnp.float32).at[0].set(1.0)
    if bfloat16 == "pure":
        gradients = gradients.astype(jnp.bfloat16)
    _, state = _trained(_make(bfloat16), {"w": jnp.ones(1, jnp.bfloat16)}, gradients)
    assert float(_adam(state).nu["w"][0]) == pytest.approx(expected, rel=2e-3)
    assert {leaf.dtype for leaf in jax.tree.leaves((_adam(state).mu, _adam(state).nu))} == {gradients.dtype}


@pytest.mark.parametrize(("bfloat16", "expected"), [("master", 0.98), ("stochastic", 0.98), ("pure", 1.0)])
def test_bfloat16_weights_follow_updates_below_their_spacing(bfloat16, expected):
    dtype = jnp.bfloat16 if bfloat16 == "pure" else jnp.float32
    params, _ = _trained(_make(bfloat16), {"w": jnp.ones(4000, jnp.bfloat16)}, jnp.ones((200, 4000), dtype))
    assert params["w"].dtype == jnp.bfloat16
    assert params["w"].astype(jnp.float32).mean() == pytest.approx(expected, abs=5e-4)
    assert (len(np.unique(np.asarray(params["w"]))) > 1) == (bfloat16 == "stochastic")


def test_weights_are_their_master_rounded_whose_steps_are_those_of_float32():
    rng = np.random.default_rng(1)
    start = jnp.asarray(rng.normal(size=1000) * 10.0 ** rng.integers(-9, 3, 1000), jnp.bfloat16)
    gradients = jnp.asarray(rng.normal(size=(20, 1000)), jnp.float32)
    optimizer = _make("master", rate=0.03)
    params, state = _trained(optimizer, {"w": start}, gradients)
    wide, _ = _trained(optimizer, {"w": start.astype(jnp.float32)}, gradients)
    master = state.masters["w"]
    np.testing.assert_array_equal(master, wide["w"])
    np.testing.assert_array_equal(params["w"], master.astype(jnp.bfloat16))


def test_rounding_at_random_follows_from_the_seed_and_the_step():
    start, gradients = {"w": jnp.ones(500, jnp.bfloat16)}, jnp.ones((6, 500), jnp.float32)
    first, state = _trained(_make("stochastic"), start, gradients[:3])
    again, _ = _trained(_make("stochastic"), start, gradients[:3])
    other, _ = _trained(_make("stochastic", seed=1), start, gradients[:3])
    np.testing.assert_array_equal(first["w"], again["w"])
    assert (first["w"] != other["w"]).any()
    assert int(state.n_updates) == 3


def test_rounding_at_random_gives_a_neighbour_whose_mean_is_the_number():
    x = jnp.asarray([1.0, 1.001, -1.0065, 3e-5, 0.0, jnp.inf, -jnp.inf, jnp.nan], jnp.float32)
    drawn = jax.vmap(lambda key: round_at_random(x, key))(jax.random.split(jax.random.key(0), 20_000))
    drawn = np.asarray(drawn, np.float64)
    np.testing.assert_array_equal(drawn[:, [0, 4, 5, 6, 7]], np.tile(np.asarray(x)[[0, 4, 5, 6, 7]], (20_000, 1)))
    for column in (1, 2, 3):
        assert len(np.unique(drawn[:, column])) == 2
        assert np.abs(drawn[:, column] / float(x[column]) - 1.0).max() < 2**-7
    np.testing.assert_allclose(drawn[:, 1:4].mean(axis=0), x[1:4], rtol=1e-4)


def test_float32_weights_have_the_same_state_and_steps_in_every_mode():
    params, gradients = {"w": jnp.arange(5.0)}, jnp.ones((3, 5))
    found = [_trained(_make(bfloat16), params, gradients) for bfloat16 in BFLOAT16]
    for other in found[1:]:
        assert jax.tree.structure(other) == jax.tree.structure(found[0])
        jax.tree.map(np.testing.assert_array_equal, other, found[0])


@pytest.mark.parametrize("bfloat16", ["master", "stochastic"])
def test_float32_weights_beside_bfloat16_ones_have_no_copy_and_are_not_rounded(bfloat16):
    params = {"narrow": jnp.ones(3, jnp.bfloat16), "wide": jnp.ones(3, jnp.float32)}
    optimizer = _make(bfloat16)
    state = optimizer.init(params)
    assert getattr(state, "masters", {"wide": None})["wide"] is None
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    alone, _ = _trained(optimizer, {"w": params["wide"]}, jnp.ones((1, 3)))
    np.testing.assert_array_equal(optax.apply_updates({"w": params["wide"]}, {"w": updates["wide"]})["w"], alone["w"])
