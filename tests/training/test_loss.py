"""The weighted cross-entropy against plain NumPy, its gradient, and what masks and zero weights do to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from head_loss import loss_of_head
from jax.sharding import NamedSharding, PartitionSpec

from igd_jax.core.sharding import FSDP, TENSOR, by_row
from igd_jax.core.types import LossSum
from igd_jax.session.program_cost import collectives
from igd_jax.training import loss as training_loss
from igd_jax.training.loss import over_targets, weighted_cross_entropy
from igd_jax.training.mesh import make_mesh
from igd_jax.training.step import means

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (2, 4, 5)).astype(np.float32)
TARGET = np.array([[1, 4, 0, 0], [3, 3, 2, 0]], np.int32)
WEIGHT = np.array([[1.0, 0.1, 1.0, 0.0], [0.1, 1.0, 0.25, 0.0]], np.float32)
FORCED = np.array([[False, True, False, False], [True, False, False, False]])


def _nll(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    log_sum = np.log(np.exp(logits).sum(axis=-1))
    return log_sum - np.take_along_axis(logits, TARGET[..., None], axis=-1)[..., 0]


def _loss(logits, weight=WEIGHT):
    return weighted_cross_entropy(
        jnp.asarray(logits), jnp.asarray(TARGET), jnp.asarray(weight), parts={"forced": jnp.asarray(FORCED)}
    )


def test_sums_equal_those_of_plain_numpy():
    total, nll = _loss(LOGITS), _nll(LOGITS)
    np.testing.assert_allclose(total.loss, (WEIGHT * nll).sum(), rtol=1e-6)
    np.testing.assert_allclose(total.weight, WEIGHT.sum(), rtol=1e-6)


def test_parts_report_unweighted_means_of_their_tokens():
    total, nll = _loss(LOGITS), _nll(LOGITS)
    value, count = total.metrics["forced"]
    assert count == 2
    np.testing.assert_allclose(value, nll[FORCED].sum(), rtol=1e-6)
    np.testing.assert_allclose(means(total)["forced"], nll[FORCED].mean(), rtol=1e-6)


def test_the_gradient_is_weight_times_softmax_minus_target():
    gradient = jax.grad(lambda logits: _loss(logits).loss)(LOGITS)
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(gradient, WEIGHT[..., None] * (softmax - np.eye(5)[TARGET]), atol=1e-6)
    assert not gradient[WEIGHT == 0].any()


def test_without_any_weight_loss_and_gradient_are_zero_not_nan():
    def mean(logits):
        return means(_loss(logits, np.zeros_like(WEIGHT)))["loss"]

    value, gradient = jax.value_and_grad(mean)(LOGITS)
    assert value == 0
    assert np.isfinite(gradient).all()
    assert not gradient.any()


def test_huge_logits_of_padding_do_not_spoil_the_sums():
    logits = np.where(WEIGHT[..., None] == 0, np.float32(1e30), LOGITS)
    total, gradient = _loss(logits), jax.grad(lambda logits: _loss(logits).loss)(logits)
    np.testing.assert_allclose(total.loss, _loss(LOGITS).loss, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_the_softmax_of_bfloat16_logits_is_float32():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    total = _loss(logits)
    assert total.loss.dtype == jnp.float32
    np.testing.assert_allclose(total.loss, (WEIGHT * _nll(np.asarray(logits, np.float32))).sum(), rtol=1e-6)


def test_sums_add_up_over_parts_of_a_batch():
    whole = _loss(LOGITS)
    halves = [
        weighted_cross_entropy(
            jnp.asarray(LOGITS[rows]),
            jnp.asarray(TARGET[rows]),
            jnp.asarray(WEIGHT[rows]),
            parts={"forced": jnp.asarray(FORCED[rows])},
        )
        for rows in (slice(0, 1), slice(1, 2))
    ]
    both = halves[0] + halves[1]
    for ours, theirs in zip(jax.tree.leaves(both), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_loss_without_weight_is_zero_and_other_means_are_none():
    zero = jax.tree.map(jnp.zeros_like, _loss(LOGITS))
    assert means(zero) == {"loss": 0.0, "forced": pytest.approx(np.nan, nan_ok=True)}


def test_targets_at_a_time_scale_gradients_of_bfloat16_states_as_all_at_once_do(monkeypatch):
    hidden = jnp.asarray(RNG.normal(size=(2, 4, 8)), jnp.bfloat16)
    head, target, weight = jnp.asarray(RNG.normal(size=(8, 5)), jnp.float32), jnp.asarray(TARGET), jnp.asarray(WEIGHT)

    def gradient(columns: int, scale: float) -> np.ndarray:
        def loss(hidden: jax.Array) -> jax.Array:
            def of_logits(logits: jax.Array, arrays: tuple[jax.Array, jax.Array]) -> LossSum:
                return weighted_cross_entropy(logits, *arrays, parts={})

            total = over_targets(lambda x: x.astype(jnp.float32) @ head, [hidden], (target, weight), of_logits)
            return scale * total.loss

        monkeypatch.setattr(training_loss, "targets_at_once", lambda *sizes: columns)
        return np.asarray(jax.grad(loss)(hidden), np.float32)

    # 4.3 is between two numbers of bfloat16, of which the nearer is 0.16 % off.
    expected = jnp.asarray(np.float32(4.3) * gradient(4, 1.0), jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(gradient(2, 4.3), expected)


def _head_and_targets(dtype, vocab_size: int) -> tuple[np.ndarray, ...]:
    shapes = [(vocab_size, 16), (8, 6, 16), (8, 6)]
    head, hidden, weight = (RNG.normal(size=shape).astype(np.float32) for shape in shapes)
    target = RNG.integers(0, vocab_size, shapes[-1], dtype=np.int32)
    return head.astype(dtype), hidden.astype(jnp.bfloat16), target, weight


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_head_that_is_split_by_its_width_is_gathered_once_and_its_gradient_is_that_of_one_device(dtype, monkeypatch):
    monkeypatch.setattr(training_loss, "targets_at_once", lambda *sizes: 2)
    given, gradient = _head_and_targets(dtype, 64), jax.grad(loss_of_head, argnums=(0, 1))
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    places = (NamedSharding(mesh, PartitionSpec(TENSOR, FSDP)), *(by_row(mesh),) * 3)
    with jax.set_mesh(mesh):
        program = jax.jit(gradient, out_shardings=places[:2]).lower(*jax.device_put(given, places)).compile()
        found = program(*jax.device_put(given, places))
    for ours, theirs in zip(found, jax.jit(gradient)(*given), strict=True):
        np.testing.assert_allclose(ours.astype(np.float32), theirs.astype(np.float32), rtol=0.02, atol=0.02)
    assert sum(each.kind == "all-gather" for each in collectives(program.as_text())) == 1


@pytest.mark.parametrize(("vocab_size", "of_each"), [(64, 32), (65, 65)])
def test_parts_are_those_of_the_vocabulary_that_one_device_holds(vocab_size, of_each, monkeypatch):
    seen = []
    monkeypatch.setattr(training_loss, "targets_at_once", lambda *sizes: seen.append(sizes) or 6)
    with jax.set_mesh(make_mesh(data=1, fsdp=4, tensor=2)):
        jax.eval_shape(loss_of_head, *_head_and_targets(jnp.float32, vocab_size))
    assert seen == [(2, 6, of_each)]


@pytest.mark.parametrize(("width", "n_targets", "most"), [(1536, 16, 170e6), (64, 320, 300e6)])
def test_a_head_of_qwens_vocabulary_never_has_two_arrays_of_logits(width, n_targets, most):
    """Beside weights and gradients; logits of 16 rows of 16 targets are 156 MB, of 320 targets 3.1 GB."""
    shapes = [(151_936, width), (16, n_targets, width), (16, n_targets)]
    head, hidden, weight = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    target = jax.ShapeDtypeStruct(shapes[-1], jnp.int32)

    def loss(head, hidden, target, weight):
        def logits(x: jax.Array) -> jax.Array:
            return (x.reshape(-1, width) @ head.T).reshape(*x.shape[:-1], -1)

        def of_logits(logits: jax.Array, arrays: tuple[jax.Array, jax.Array]) -> LossSum:
            return weighted_cross_entropy(logits, *arrays, parts={})

        return over_targets(logits, [hidden], (target, weight), of_logits).loss

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(head, hidden, target, weight).compile()
    assert program.memory_analysis().temp_size_in_bytes < most
