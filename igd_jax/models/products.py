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
    """As `frozen_product`, with trained W, whose gradient is summed in its own dtype, over tokens and over devices."""
    return frozen_product(x, weight, dtype)


def _product_forward(x: Array, weight: Array, dtype: DTypeLike | None) -> tuple[Array, tuple[Array, Array]]:
    return frozen_product(x, weight, dtype), (x, weight)


def _product_backward(dtype: DTypeLike | None, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = kept
    outputs, tokens = (((1,), (1,)), ((), ())), (((0,), (0,)), ((), ()))
    of_x = jax.lax.dot_general(gradient, weight.astype(x.dtype), outputs, preferred_element_type=x.dtype)
    of_weight = jax.lax.dot_general(x, gradient, tokens, preferred_element_type=weight.dtype)
    return of_x, of_weight


product.defvjp(_product_forward, _product_backward)
