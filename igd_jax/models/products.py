"""Products with weights, whose gradients are sums that need more bits than bfloat16 has.

A gradient of a weight is a sum over the tokens of all devices. Derived from a product of bfloat16 numbers, it would be
rounded to bfloat16 on each device, and added up in bfloat16 between devices, also if the weight is float32.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def frozen_product(
    x: Float[Array, "N I"], weight: Float[Array, "I O"], dtype: DTypeLike | None = None
) -> Float[Array, "N O"]:
    """``x W`` with W rounded to the dtype of x.

    Args:
      x: states of tokens.
      weight: W, of any dtype.
      dtype: dtype of the result; None = that of x.
    """
    return jnp.matmul(x, weight.astype(x.dtype), preferred_element_type=dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Float[Array, "N I"], weight: Float[Array, "I O"], dtype: DTypeLike | None = None) -> Float[Array, "N O"]:
    """As `frozen_product`, with trained W, whose gradient is summed in float32, over tokens and over devices."""
    return frozen_product(x, weight, dtype)


def _product_forward(x: Array, weight: Array, dtype: DTypeLike | None) -> tuple[Array, tuple[Array, Array]]:
    return frozen_product(x, weight, dtype), (x, weight)


def _product_backward(dtype: DTypeLike | None, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = kept
    outputs, tokens = (((1,), (1,)), ((), ())), (((0,), (0,)), ((), ()))
    of_x = jax.lax.dot_general(gradient, weight.astype(x.dtype), outputs, preferred_element_type=x.dtype)
    of_weight = jax.lax.dot_general(x, gradient, tokens, preferred_element_type=jnp.float32)
    return of_x, rounded_sum(of_weight, weight.dtype)


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def in_float32(weight: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """A weight in float32, whose gradient is summed in float32 like that of `product`."""
    return weight.astype(jnp.float32)


def _in_float32_forward(weight: Array) -> tuple[Array, Array]:
    return weight.astype(jnp.float32), weight


def _in_float32_backward(weight: Array, gradient: Array) -> tuple[Array]:
    return (rounded_sum(gradient, weight.dtype),)


in_float32.defvjp(_in_float32_forward, _in_float32_backward)


def rounded_sum(total: Float[Array, "*n"], dtype: DTypeLike) -> Float[Array, "*n"]:
    """A float32 sum over tokens in the dtype of its weight, rounded after devices have added it up."""
    if total.dtype == dtype:
        return total
    # XLA for TPUs lets devices add up rounded numbers if nothing but a rounding follows: here it is bits that follow.
    bits = jax.lax.optimization_barrier(jax.lax.bitcast_convert_type(total, jnp.uint32))
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(dtype)
