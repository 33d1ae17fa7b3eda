"""One objective, however its rows are dealt over micro-batches and devices; the weights here are all unequal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_run import HF_CONFIG

from igd_jax.core.compilation import training_compiler_options
from igd_jax.core.ragged import Ragged
from igd_jax.core.sharding import replicated
from igd_jax.core.types import LossSum, TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import make_examples
from igd_jax.methods.base import token_loss
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_config import from_hf
from igd_jax.training.loss import weighted_cross_entropy
from igd_jax.training.mesh import make_mesh
from igd_jax.training.step import grouped, init_state, make_step, means

N_ROWS, N_FEATURES = 32, 6


def _batches(size: int, *, seed: int = 0, width: int = 3, weight: float = 1.0) -> list[TextBatch]:
    """Rows of a weighted softmax regression, in micro-batches; row r weighs about r."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N_ROWS, width, N_FEATURES)).astype(np.float32)
    y = rng.integers(0, 4, (N_ROWS, width)).astype(np.int32)
    w = (weight * np.arange(N_ROWS)[:, None] * rng.random((N_ROWS, width))).astype(np.float32)
    return [_batch(x[i : i + size], y[i : i + size], w[i : i + size]) for i in range(0, N_ROWS, size)]


def _batch(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> TextBatch:
    """What a regression needs of a batch; there is no prompt."""
    nothing, none = np.zeros((len(x), 0), np.int32), np.zeros(0, np.int32)
    return TextBatch(
        shared_prefix=none, prompt=nothing, prompt_mask=nothing.astype(bool), target=y,
        target_mask=np.ones_like(y, bool), place=y, before=y, first=none, annotations={"x": x, "weight": weight},
    )  # fmt: skip


def _loss(params, tables, batch: TextBatch, state) -> LossSum:
    logits = jnp.einsum("BTF,FV->BTV", batch.annotations["x"], params["w"])
    parts = {"odd": batch.target % 2 == 1}
    return weighted_cross_entropy(logits, batch.target, batch.annotations["weight"], parts=parts)


def _params() -> dict[str, jax.Array]:
    return {"w": jnp.asarray(np.random.default_rng(9).normal(size=(N_FEATURES, 4)), jnp.float32)}


def _update(loss, params, batches, *, devices: int = 1, normalizer: str = "global"):
    """Parameters and metrics after one step of plain gradient descent, in which the change is half the gradient."""
    mesh, optimizer = make_mesh(data=devices), optax.sgd(0.5)
    functions = make_step(loss, optimizer, normalizer=normalizer)
    state = jax.device_put(init_state(jax.tree.map(jnp.copy, params), optimizer), replicated(mesh))
    accumulator = functions.accumulate(state, grouped(batches, mesh, room=5))
    state, metrics = functions.update(state, accumulator)
    assert int(state.step) == 1
    return jax.device_get((state.params, metrics))


def _assert_close(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def test_the_step_divides_the_gradient_of_the_sum_by_all_weights():
    [rows] = jax.tree.map(jnp.asarray, _batches(N_ROWS))
    params, metrics = _update(_loss, _params(), _batches(8))

    def mean(params):
        total = _loss(params, None, rows, {})
        return total.loss / total.weight

    value, gradient = jax.jit(jax.value_and_grad(mean))(_params())
    _assert_close(params["w"], _params()["w"] - 0.5 * gradient["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], jnp.linalg.norm(gradient["w"]), rtol=1e-5)
    odd = rows.replace(annotations=rows.annotations | {"weight": (rows.target % 2 == 1).astype(jnp.float32)})
    np.testing.assert_allclose(metrics["odd"], means(_loss(_params(), None, odd, {}))["loss"], rtol=1e-5)


@pytest.mark.parametrize(("size", "devices"), [(8, 1), (4, 1), (32, 8), (8, 8), (16, 4)])
def test_micro_batches_and_devices_change_nothing(size, devices):
    whole = _update(_loss, _params(), _batches(N_ROWS))
    dealt = _update(_loss, _params(), _batches(size), devices=devices)
    _assert_close(dealt, whole, rtol=1e-5, atol=1e-6)


def test_a_model_under_the_weighted_loss_takes_the_same_step_on_one_and_on_eight_devices():
    rng, shared = np.random.default_rng(1), [7, 8]
    model = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    graph, params = nnx.split(model)
    prompts = Ragged.from_lists([shared + rng.integers(0, 300, rng.integers(1, 7)).tolist() for _ in range(N_ROWS)])
    items = Ragged.from_lists([rng.integers(0, 300, rng.integers(1, 5)).tolist() for _ in range(N_ROWS)])
    examples = make_examples(prompts, room=np.full(N_ROWS, 100), target=np.arange(N_ROWS, dtype=np.int32))
    forced = rng.random(len(items.ids)) < 0.5
    annotations = {"forced": forced, "weight": np.where(forced, np.float32(0.1), np.float32(1))}

    def batches(size: int) -> list[TextBatch]:
        groups = np.split(np.arange(N_ROWS), N_ROWS // size)
        return [make_text_batch(examples, rows, items, annotations, size=size) for rows in groups]

    def loss(params, tables, batch, state) -> LossSum:
        return token_loss(nnx.merge(graph, params), batch, tables, state)

    assert [batch.shared_prefix.tolist() for batch in batches(16)] == [shared, shared]
    whole = _update(loss, params, batches(32))
    assert whole[1]["grad_norm"] > 0.1
    _assert_close(_update(loss, params, batches(16), devices=8), whole, rtol=1e-4, atol=1e-6)


def test_the_published_normalizer_averages_the_means_of_the_micro_batches():
    batches = _batches(8)
    params, metrics = _update(_loss, _params(), batches, normalizer="micro_batch")

    def mean_of_means(params):
        totals = [_loss(params, None, jax.tree.map(jnp.asarray, batch), {}) for batch in batches]
        return sum(total.loss / total.weight for total in totals) / 4

    value, gradient = jax.jit(jax.value_and_grad(mean_of_means))(_params())
    _assert_close(params["w"], _params()["w"] - 0.5 * gradient["w"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    overall, _ = _update(_loss, _params(), batches)
    assert np.abs(overall["w"] - params["w"]).max() > 1e-3


def test_a_micro_batch_without_weight_does_not_count_in_the_published_average():
    batches = _batches(8)
    empty = jax.tree.map(np.zeros_like, batches[0])
    with_it = _update(_loss, _params(), [*batches, empty], normalizer="micro_batch")
    _assert_close(with_it[0], _update(_loss, _params(), batches, normalizer="micro_batch")[0], rtol=1e-6)


@pytest.mark.parametrize("normalizer", ["global", "micro_batch"])
def test_a_batch_without_any_weight_leaves_the_parameters(normalizer):
    params, metrics = _update(_loss, _params(), _batches(8, weight=0.0), normalizer=normalizer)
    np.testing.assert_array_equal(params["w"], _params()["w"])
    assert metrics["loss"] == metrics["grad_norm"] == 0


@pytest.mark.parametrize("sum_dtype", [jnp.float32, None])
def test_gradients_of_bfloat16_weights_are_added_up_in_float32_unless_asked(sum_dtype):
    gradients = np.random.default_rng(3).normal(1.0, 0.1, (600, 4)).astype(jnp.bfloat16)

    def loss(params, tables, batch, state) -> LossSum:
        product = params["w"] * batch.annotations["x"][0, 0]
        return LossSum(product.sum(dtype=jnp.float32), jnp.float32(1), {})

    optimizer = optax.sgd(1.0)
    functions = make_step(loss, optimizer, sum_dtype=sum_dtype)
    state = init_state({"w": jnp.zeros(4, jnp.bfloat16)}, optimizer)
    y, weight = np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)
    groups = grouped([_batch(row[None, None], y, weight) for row in gradients], make_mesh(data=1))
    found = functions.accumulate(state, groups).grads["w"]
    exact = gradients.astype(np.float64).sum(axis=0)
    if sum_dtype is None:
        assert found.dtype == jnp.bfloat16
        assert (np.asarray(found, np.float64) == 512).all()  # where 1 is half the spacing of bfloat16 numbers
    else:
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_gradients_of_bfloat16_are_divided_in_float32_and_rounded_once():
    gradients = np.random.default_rng(3).normal(size=500).astype(jnp.bfloat16)

    def loss(params, tables, batch, state) -> LossSum:
        product = params["w"] * batch.annotations["x"][0, 0]
        return LossSum(product.sum(dtype=jnp.float32), jnp.float32(3), {})

    functions = make_step(loss, optax.sgd(1.0), sum_dtype=None)
    state = init_state({"w": jnp.zeros(500, jnp.bfloat16)}, optax.sgd(1.0))
    groups = grouped(
        [_batch(gradients[None, None], np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32))], make_mesh(data=1)
    )
    state, _ = functions.update(state, functions.accumulate(state, groups))
    np.testing.assert_array_equal(
        state.params["w"], -(gradients.astype(np.float32) / np.float32(3)).astype(jnp.bfloat16)
    )


def test_each_shape_is_traced_once():
    shapes = []

    def loss(params, tables, batch, state) -> LossSum:
        shapes.append(batch.annotations["x"].shape)
        return _loss(params, tables, batch, state)

    optimizer = optax.sgd(0.1)
    functions = make_step(loss, optimizer)
    mesh = make_mesh(data=1)
    state = jax.device_put(init_state(_params(), optimizer), replicated(mesh))
    for step, width in enumerate((3, 3, 5, 3, 5)):
        batches = _batches(8, seed=step, width=width)
        state, _ = functions.update(state, functions.accumulate(state, grouped(batches, mesh, room=4)))
        functions.evaluate(state, batches[0])
    # Once when adding up and once when evaluating; and one look, ever, at the shapes of the sums.
    assert sorted(shapes) == sorted(2 * [(8, 3, N_FEATURES), (8, 5, N_FEATURES)] + [(8, 3, N_FEATURES)])


def test_micro_batches_are_grouped_by_shape_in_the_order_in_which_each_is_met():
    narrow, wide = _batches(8), _batches(8, seed=1, width=5)
    mesh = make_mesh(data=2)
    groups = grouped([narrow[0], wide[0], narrow[1], narrow[2], wide[1]], mesh, room=3)
    assert [int(group.number) for group in groups] == [3, 2]
    for group, members in zip(groups, ([narrow[0], narrow[1], narrow[2]], [wide[0], wide[1]]), strict=True):
        for number, member in enumerate(members):
            jax.tree.map(lambda x, y, n=number: np.testing.assert_array_equal(x[n], y), group.batches, member)
        assert group.batches.target.shape[0] == 3
        assert {shard.data.shape[:2] for shard in group.batches.target.addressable_shards} == {(3, 4)}


def test_a_step_runs_one_program_per_shape_and_two_more_however_many_micro_batches_there_are(monkeypatch):
    calls, jit = [], jax.jit

    def told(function, **options):
        run = jit(function, **options)
        return lambda *given: calls.append(function.__name__) or run(*given)

    monkeypatch.setattr(jax, "jit", told)
    functions, mesh = make_step(_loss, optax.sgd(0.1)), make_mesh(data=1)
    state = init_state(_params(), optax.sgd(0.1))
    for size in (8, 4):
        batches = [*_batches(size), *_batches(size, width=5)]
        state, _ = functions.update(state, functions.accumulate(state, grouped(batches, mesh)))
        assert calls == ["zeros", "add", "add", "update"]
        calls.clear()


def test_evaluation_gives_the_sums_without_changing_anything():
    functions = make_step(_loss, optax.sgd(1.0), normalizer="micro_batch")
    totals = [functions.evaluate(init_state(_params(), optax.sgd(1.0)), batch) for batch in _batches(8)]
    whole = _loss(_params(), None, jax.tree.map(jnp.asarray, _batches(N_ROWS)[0]), {})
    both = means(totals[0] + totals[1] + totals[2] + totals[3])
    _assert_close(both, means(whole), rtol=1e-5)


def test_the_loss_reads_one_state_throughout_a_step_which_is_then_renewed_from_all_its_sums():
    def loss(params, tables, batch, state) -> LossSum:
        total = _loss(params, tables, batch, state)
        return total.replace(loss=state["tau"] * total.loss)

    def renewed(state, total: LossSum):
        return {"tau": state["tau"] + total.loss / total.weight}

    optimizer = optax.sgd(0.0)  # so that only the state changes
    functions = make_step(loss, optimizer, update_state=renewed)
    state = init_state(_params(), optimizer, {"tau": jnp.float32(1.0)})
    plain = float(means(_loss(_params(), None, jax.tree.map(jnp.asarray, _batches(N_ROWS)[0]), {}))["loss"])
    tau = 1.0
    for _ in range(3):
        state, metrics = functions.update(state, functions.accumulate(state, grouped(_batches(8), make_mesh(data=1))))
        assert float(metrics["loss"]) == pytest.approx(tau * plain, rel=1e-5)
        tau += tau * plain
        assert float(state.loss_state["tau"]) == pytest.approx(tau, rel=1e-5)
    total = functions.evaluate(state, _batches(N_ROWS)[0])
    assert float(means(total)["loss"]) == pytest.approx(tau * plain, rel=1e-5)


def test_compiled_as_users_do_it_is_the_same_step_and_its_loss_can_be_traced(request):
    expected, _ = _update(_loss, _params(), _batches(8))
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    request.addfinalizer(lambda: jax.config.update("jax_disable_most_optimizations", before))
    assert training_compiler_options() is not None
    found, _ = _update(_loss, _params(), _batches(8))
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-6)
    functions = make_step(_loss, optax.sgd(0.5))
    state = init_state(_params(), optax.sgd(0.5))
    assert jax.eval_shape(functions.evaluate, state, _batches(8)[0]).loss.shape == ()
