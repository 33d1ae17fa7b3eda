"""One objective, however its rows are dealt over micro-batches and devices; the weights here are all unequal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_run import HF_CONFIG

from igd_jax.core.types import LossSum
from igd_jax.methods.igd import IGD
from igd_jax.models.config import from_hf
from igd_jax.models.decoder import Decoder
from igd_jax.training.loss import weighted_cross_entropy
from igd_jax.training.mesh import by_row, make_mesh, replicated
from igd_jax.training.step import init_state, make_step, means

N_ROWS, N_FEATURES = 32, 6


def _rows(seed: int = 0, n: int = N_ROWS, width: int = 3) -> dict[str, np.ndarray]:
    """Rows of a weighted softmax regression; row r weighs about r."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(n, width, N_FEATURES)).astype(np.float32),
        "y": rng.integers(0, 4, (n, width)).astype(np.int32),
        "weight": (np.arange(n)[:, None] * rng.random((n, width))).astype(np.float32),
    }


def _loss(params, constants, batch) -> LossSum:
    parts = {"odd": batch["y"] % 2 == 1}
    logits = jnp.einsum("BTF,FV->BTV", batch["x"], params["w"])
    return weighted_cross_entropy(logits, batch["y"], batch["weight"], parts=parts)


def _params() -> dict[str, jax.Array]:
    return {"w": jnp.asarray(np.random.default_rng(9).normal(size=(N_FEATURES, 4)), jnp.float32)}


def _parts(rows: dict[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
    n = len(next(iter(rows.values())))
    return [{name: array[i : i + size] for name, array in rows.items()} for i in range(0, n, size)]


def _update(loss, params, batches, *, devices: int = 1, normalizer: str = "global"):
    """Parameters and metrics after one step of plain gradient descent, in which the change is half the gradient."""
    mesh, optimizer = make_mesh(data=devices), optax.sgd(0.5)
    functions = make_step(loss, optimizer, normalizer=normalizer)
    state = jax.device_put(init_state(jax.tree.map(jnp.copy, params), optimizer), replicated(mesh))
    first, *rest = [jax.device_put(batch, by_row(mesh)) for batch in batches]
    accumulator = functions.first(state, first)
    for batch in rest:
        accumulator = functions.add(state, accumulator, batch)
    state, metrics = functions.update(state, accumulator)
    assert int(state.step) == 1
    return jax.device_get((state.params, metrics))


def _assert_close(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def test_the_step_divides_the_gradient_of_the_sum_by_all_weights():
    rows = jax.tree.map(jnp.asarray, _rows())
    params, metrics = _update(_loss, _params(), _parts(_rows(), 8))

    def mean(params):
        total = _loss(params, None, rows)
        return total.loss / total.weight

    value, gradient = jax.jit(jax.value_and_grad(mean))(_params())
    _assert_close(params["w"], _params()["w"] - 0.5 * gradient["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], jnp.linalg.norm(gradient["w"]), rtol=1e-5)
    odd = rows | {"weight": (rows["y"] % 2 == 1).astype(jnp.float32)}
    np.testing.assert_allclose(metrics["odd"], means(jax.jit(_loss)(_params(), None, odd))["loss"], rtol=1e-5)


@pytest.mark.parametrize(("size", "devices"), [(8, 1), (4, 1), (32, 8), (8, 8), (16, 4)])
def test_micro_batches_and_devices_change_nothing(size, devices):
    whole = _update(_loss, _params(), _parts(_rows(), N_ROWS))
    dealt = _update(_loss, _params(), _parts(_rows(), size), devices=devices)
    _assert_close(dealt, whole, rtol=1e-5, atol=1e-6)


def test_a_model_under_the_weighted_loss_takes_the_same_step_on_one_and_on_eight_devices():
    rng = np.random.default_rng(1)
    model = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    graph, params = nnx.split(model)
    n_prompt, n_target = rng.integers(1, 7, N_ROWS), rng.integers(1, 5, N_ROWS)
    target_mask = np.arange(4) < n_target[:, None]
    forced = target_mask & (rng.random((N_ROWS, 4)) < 0.5)
    rows = {
        "prompt": rng.integers(0, 300, (N_ROWS, 6)).astype(np.int32),
        "prompt_mask": np.arange(6) >= 6 - n_prompt[:, None],
        "target": rng.integers(0, 300, (N_ROWS, 4)).astype(np.int32),
        "target_mask": target_mask,
        "forced": forced,
        "weight": np.where(forced, 0.1, 1.0).astype(np.float32) * target_mask,
    }

    def loss(params, constants, batch) -> LossSum:
        return IGD(beta=0.1).loss(nnx.merge(graph, params), batch, constants)

    whole = _update(loss, params, _parts(rows, 32))
    assert whole[1]["grad_norm"] > 0.1
    _assert_close(_update(loss, params, _parts(rows, 16), devices=8), whole, rtol=1e-4, atol=1e-6)


def test_the_published_normalizer_averages_the_means_of_the_micro_batches():
    batches = _parts(_rows(), 8)
    params, metrics = _update(_loss, _params(), batches, normalizer="micro_batch")

    def mean_of_means(params):
        totals = [_loss(params, None, jax.tree.map(jnp.asarray, batch)) for batch in batches]
        return sum(total.loss / total.weight for total in totals) / 4

    value, gradient = jax.jit(jax.value_and_grad(mean_of_means))(_params())
    _assert_close(params["w"], _params()["w"] - 0.5 * gradient["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    overall, _ = _update(_loss, _params(), batches)
    assert np.abs(overall["w"] - params["w"]).max() > 1e-3


def test_a_micro_batch_without_weight_does_not_count_in_the_published_average():
    batches = _parts(_rows(), 8)
    empty = {name: np.zeros_like(array) for name, array in batches[0].items()}
    with_it = _update(_loss, _params(), [*batches, empty], normalizer="micro_batch")
    _assert_close(with_it[0], _update(_loss, _params(), batches, normalizer="micro_batch")[0], rtol=1e-6)


@pytest.mark.parametrize("normalizer", ["global", "micro_batch"])
def test_a_batch_without_any_weight_leaves_the_parameters(normalizer):
    rows = _rows() | {"weight": np.zeros((N_ROWS, 3), np.float32)}
    params, metrics = _update(_loss, _params(), _parts(rows, 8), normalizer=normalizer)
    np.testing.assert_array_equal(params["w"], _params()["w"])
    assert metrics["loss"] == metrics["grad_norm"] == 0


def test_each_shape_is_traced_once():
    shapes = []

    def loss(params, constants, batch) -> LossSum:
        shapes.append(batch["x"].shape)
        return _loss(params, constants, batch)

    optimizer = optax.sgd(0.1)
    functions = make_step(loss, optimizer)
    state = init_state(_params(), optimizer)
    for step, width in enumerate((3, 3, 5, 3, 5)):
        first, *rest = _parts(_rows(step, width=width), 8)
        accumulator = functions.first(state, first)
        for batch in rest:
            accumulator = functions.add(state, accumulator, batch)
        state, _ = functions.update(state, accumulator)
        functions.evaluate(state, first)
    # Once in each of first, add and evaluate.
    assert sorted(shapes) == sorted(3 * [(8, 3, N_FEATURES), (8, 5, N_FEATURES)])


def test_evaluation_gives_the_sums_without_changing_anything():
    functions = make_step(_loss, optax.sgd(1.0), normalizer="micro_batch")
    totals = [functions.evaluate(init_state(_params(), optax.sgd(1.0)), batch) for batch in _parts(_rows(), 8)]
    whole = _loss(_params(), None, jax.tree.map(jnp.asarray, _rows()))
    both = means(totals[0] + totals[1] + totals[2] + totals[3])
    _assert_close(both, means(whole), rtol=1e-5)
