"""Sums of gradients over tokens and devices."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from igd_jax.core.sharding import by_row, replicated
from igd_jax.models.layers import REMAT, Frozen, Linear
from igd_jax.models.lora import LoRA, LowRank
from igd_jax.models.products import in_float32, product, rounded_sum
from igd_jax.session.program_cost import products
from igd_jax.training.mesh import make_mesh

MESH = make_mesh(data=2, fsdp=4)
TOKENS = 8 * 37 + 1
"""An odd number above 256, which is not a number of bfloat16."""


def test_gradients_of_float32_weights_are_float32_sums_over_tokens_and_devices_though_states_are_bfloat16():
    linear = Linear(2, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float32, bias=True)
    linear.adapter = LowRank(1, 2, 2, lora=LoRA(2, 2.0, "q"), site=0, rngs=nnx.Rngs(0))
    linear.adapter.a, linear.adapter.b = (nnx.Param(jnp.ones((2, 2))) for _ in range(2))
    graph, params = nnx.split(linear)
    x = np.ones((8, 38, 2), np.float32)
    x[1:, -1] = 0

    def loss(params, x):
        y = nnx.merge(graph, params)(x)
        return jnp.where(x == 0, jnp.zeros_like(y), y).astype(jnp.float32).sum()

    with jax.set_mesh(MESH):
        placed = jax.device_put((params, jnp.asarray(x, jnp.bfloat16)), (replicated(MESH), by_row(MESH)))
        grads = jax.jit(jax.grad(loss))(*placed)
    for leaf in jax.tree.leaves(grads):
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf % TOKENS, 0)


def test_sums_are_rounded_to_the_nearest_number_and_gradients_keep_the_dtype_of_their_weights():
    total = jnp.asarray([257.0, 259.0, -1.00390625, 0.0, jnp.inf, jnp.nan], jnp.float32)
    rounded = jax.jit(lambda x: rounded_sum(x, jnp.bfloat16))(total)
    np.testing.assert_array_equal(rounded.astype(jnp.float32), [256.0, 260.0, -1.0, 0.0, jnp.inf, jnp.nan])
    assert rounded_sum(total, jnp.float32) is total
    for dtype in (jnp.bfloat16, jnp.float32):
        weight, x = jnp.ones((1, 1), dtype), jnp.ones((300, 1), jnp.bfloat16)
        for function in (product, lambda x, w: jnp.broadcast_to(in_float32(w), x.shape)):
            grad = jax.grad(lambda w, x=x, function=function: function(x, w).sum().astype(jnp.float32))(weight)
            assert grad.dtype == dtype
            assert grad.item() == 300


def test_what_is_kept_for_the_backward_pass_covers_these_products_and_frozen_weights_have_no_gradient():
    def operations(remat: str, kind: type[nnx.Variable]) -> float:
        linear = Linear(4, 4, rngs=nnx.Rngs(0), param_dtype=jnp.float32)
        linear.kernel = kind(linear.kernel[...])
        graph, params = nnx.split(linear)
        run = jax.checkpoint(lambda x, params: jnp.sin(nnx.merge(graph, params)(x)), policy=REMAT[remat])
        x = jnp.ones((1, 3, 4))
        arguments = (0, 1) if kind is nnx.Param else 0
        return products(jax.make_jaxpr(jax.grad(lambda *given: run(*given).sum(), arguments))(x, params))

    one = 2 * 3 * 4 * 4
    assert operations("dots", nnx.Param) == 3 * one
    assert operations("full", nnx.Param) == 4 * one
    assert operations("dots", Frozen) == 2 * one
