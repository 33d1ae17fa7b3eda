"""Frozen weights of 8 or 4 bits beneath adapters (QLoRA, arXiv 2305.14314), made and read by the library qwix.

    int8   round(W / s), with s for each output: 127.5 s is the largest absolute value
    nf4    nearest of 16 quantiles of a normal distribution to W / s, with s for each output and block of 64 inputs

Scales are float32. Linear maps of layers are quantised; embedding, head, norms and biases are not.
"""

from dataclasses import replace
from functools import partial
from math import gcd
from types import ModuleType
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.sharding import fetch
from igd_jax.models.layers import Frozen, Linear

KINDS = ("int8", "nf4")
BLOCK = 64
"""Largest number of inputs with a common scale under nf4, as published; a divisor of it where widths need that."""
SMALLEST_BLOCK = 16
"""Smallest such number: with fewer, scales take more than they save."""


@no_type_check  # as a pytree it also holds shapes and shardings
@struct.dataclass
class Quantized:
    """Quantised weights that stand in for an array on the right of a product, once per layer or stacked.

    Attributes:
      values: int8 numbers; under nf4, bytes with two numbers each, so that a column of bytes is two of the weights.
      scale: factor of each output (and block).
      kind: one of `KINDS`.
      dtype: dtype of the weights in a product.
    """

    values: Integer[Array, "*layers I _columns"]
    scale: Float[Array, "*layers _blocks O"]
    kind: str = struct.field(pytree_node=False)
    dtype: DTypeLike = struct.field(pytree_node=False, default=jnp.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        return (*self.values.shape[:-1], self.scale.shape[-1])

    def astype(self, dtype: DTypeLike) -> "Quantized":
        """The same weights, of another dtype in a product."""
        return replace(self, dtype=jnp.dtype(dtype))

    def dense(self) -> Float[Array, "*layers I O"]:
        """The weights as an array."""
        values = self.values
        if self.kind == "nf4":
            values = jax.lax.bitcast_convert_type(values, jnp.uint4).reshape(self.shape)
        return _qwix().dequantize(_qwix().QArray(values, self.scale, qtype=_qtype(self.kind))).astype(self.dtype)

    def __rmatmul__(self, x: Float[Array, "N I"]) -> Float[Array, "N O"]:
        """``x @ weights``; the backward pass makes the array again instead of keeping it."""
        return jax.checkpoint(lambda x, weights: x @ weights.dense())(x, self)


@partial(jax.jit, static_argnames="kind")
def quantized(weights: Float[Array, "L I O"], kind: str) -> Quantized:
    """Quantise the weights of each layer."""

    def one(weights: Float[Array, "I O"]) -> tuple[Array, Array]:
        blocks = {0: gcd(BLOCK, len(weights))} if kind == "nf4" else None
        found = _qwix().quantize(
            weights.astype(jnp.float32), _qtype(kind), channelwise_axes=(1,), tiled_axes=blocks, scale_dtype=jnp.float32
        )
        values = found.qvalue
        if kind == "nf4":
            values = jax.lax.bitcast_convert_type(values.reshape(len(weights), -1, 2), jnp.uint8)
        return values, found.scale

    values, scale = jax.lax.map(one, weights)
    return Quantized(values, scale, kind=kind)


def quantized_variable(weights: Float[Array, "L I O"], kind: str) -> Frozen:
    """Quantise weights; their fingerprint is that of the weights as given, as rounding may differ between devices.

    Raises:
      InputError: the library is not installed, or nf4 does not fit the sizes.
    """
    n_in, n_out = weights.shape[1:]
    if kind == "nf4" and (n_out % 2 or gcd(BLOCK, n_in) < SMALLEST_BLOCK):
        raise InputError(
            f"config.model.quantize is nf4, but a linear map of the model has {n_in} inputs and {n_out} outputs; "
            f"expected multiples of {SMALLEST_BLOCK} and of 2; set it to int8"
        )
    return Frozen(quantized(weights, kind), made_from=fingerprint(kind, fetch(weights)))


def quantize_layers(model: nnx.Module, kind: str) -> None:
    """Quantise and freeze the linear maps of a decoder's layers, which is changed in place; before `add_lora`.

    Raises:
      InputError: the library is not installed.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, Linear):
            module.kernel = quantized_variable(module.kernel[...], kind)


def _qtype(kind: str) -> DTypeLike:
    return jnp.int8 if kind == "int8" else kind


def _qwix() -> ModuleType:
    try:
        import qwix
    except ImportError:
        raise InputError(
            "config.model.quantize needs the package qwix, which is not installed; install it: pip install "
            "qwix; or set the field to ''"
        ) from None
    return qwix
