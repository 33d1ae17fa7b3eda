"""Schedules at every update against the formulas of the published trainer; AdamW and clipping against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igd_jax.training.optimizer import make_optimizer, make_schedule

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
