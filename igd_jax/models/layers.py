"""Parts of a decoder block: linear map, RMS norm, rotary positions, projections of attention, gated MLP.

Weights are kept in their own dtype and cast to that of the input; norm, rotation and softmax run in float32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from igd_jax.core.sharding import DATA, FSDP, keep_rows
from igd_jax.models.attention import WHOLE_TEXT, XLA, KeyBlock, attend, attend_fused, attend_in_order
from igd_jax.models.config import ModelConfig
from igd_jax.models.products import in_float32, product, rounded_sum

normal_init = jax.nn.initializers.normal(0.02)

Rotation: TypeAlias = tuple[Float[Array, "B T half"], Float[Array, "B T half"]]
"""Cosine and sine of each token's angles, float32; half = H / 2."""


_policies, _MIXED = jax.checkpoint_policies, "mixed"
REMAT = {
    "none": _policies.everything_saveable,
    "dots": _policies.save_from_both_policies(
        _policies.dots_with_no_batch_dims_saveable, _policies.save_only_these_names(_MIXED)
    ),
    "full": _policies.nothing_saveable,
}
"""What the backward pass keeps of each layer: all states; products with weights, and what attention gives, so that its
weights, norms and activations are computed again; or the layer's input alone."""


class Frozen(nnx.Variable[Array]):
    """An array of a model that is neither trained nor saved in checkpoints.

    The metadata ``made_from`` may hold a fingerprint of its origin; see `training.frozen_fingerprint`.
    """


class Linear(nnx.Module):
    """``y = x W + b`` with W stored as [in, out], biases optional.

    Args:
      n_in: width of x.
      n_out: width of y.
      rngs: source of random numbers.
      param_dtype: dtype of W and b.
      bias: whether there is a b.
      init: initializer of W; b is zero at first.

    Attributes:
      kernel: W, an array or `quantized.Quantized`.
      adapter: function of x, and of a key per row of x or None, whose value is added to y; see `models.lora`.
    """

    adapter: Callable[[Float[Array, "N I"], Key[Array, " N"] | None], Float[Array, "N O"]] | None = None

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        rngs: nnx.Rngs,
        param_dtype: DTypeLike,
        bias: bool = False,
        init: Initializer = normal_init,
    ):
        self.kernel: nnx.Variable[Any] = nnx.Param(init(rngs.params(), (n_in, n_out), param_dtype))
        self.bias = nnx.Param(jnp.zeros((n_out,), param_dtype)) if bias else None

    def __call__(self, x: Float[Array, "B T I"], keys: Key[Array, "B T"] | None = None) -> Float[Array, "B T O"]:
        """The map of each token; `keys` are those of the adapter's dropout."""
        # One token axis: gradients over two axes take twice as long on a CPU.
        flat, kernel = x.reshape(-1, x.shape[-1]), self.kernel.get_value()
        y = product(flat, kernel) if isinstance(self.kernel, nnx.Param) else flat @ kernel.astype(x.dtype)
        if self.adapter is not None:
            y = y + self.adapter(flat, None if keys is None else keys.reshape(-1))
        y = y.reshape(*x.shape[:-1], -1)
        if self.bias is None:
            return y
        bias = jnp.broadcast_to(in_float32(self.bias[...]), y.shape)
        return (y.astype(jnp.float32) + bias).astype(y.dtype)


class RMSNorm(nnx.Module):
    """``x / sqrt(mean(x^2) + eps) * scale`` over the last axis (Zhang & Sennrich, arXiv 1910.07467), in float32."""

    def __init__(self, width: int, *, eps: float, param_dtype: DTypeLike):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((width,), param_dtype))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y * jnp.broadcast_to(in_float32(self.scale[...]), y.shape)).astype(x.dtype)


class MLP(nnx.Module):
    """``(silu(x W_gate) * x W_up) W_down`` (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: DTypeLike):
        self.gate = Linear(config.hidden_size, config.mlp_size, rngs=rngs, param_dtype=param_dtype)
        self.up = Linear(config.hidden_size, config.mlp_size, rngs=rngs, param_dtype=param_dtype)
        self.down = Linear(config.mlp_size, config.hidden_size, rngs=rngs, param_dtype=param_dtype)

    def __call__(self, x: Float[Array, "B T D"], keys: Key[Array, "B T"] | None = None) -> Float[Array, "B T D"]:
        return self.down(jax.nn.silu(self.gate(x, keys)) * self.up(x, keys), keys)


class Attention(nnx.Module):
    """Grouped-query attention (Ainslie et al., arXiv 2305.13245) over earlier keys and the new tokens' own."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: DTypeLike):
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.q = Linear(config.hidden_size, width, rngs=rngs, param_dtype=param_dtype, bias=config.qkv_bias)
        self.k = Linear(config.hidden_size, kv_width, rngs=rngs, param_dtype=param_dtype, bias=config.qkv_bias)
        self.v = Linear(config.hidden_size, kv_width, rngs=rngs, param_dtype=param_dtype, bias=config.qkv_bias)
        self.o = Linear(width, config.hidden_size, rngs=rngs, param_dtype=param_dtype)
        head_norm = partial(RMSNorm, config.head_dim, eps=config.rms_norm_eps, param_dtype=param_dtype)
        self.q_norm = head_norm() if config.qk_norm else None
        self.k_norm = head_norm() if config.qk_norm else None

    def __call__(
        self,
        x: Float[Array, "B T D"],
        *,
        rotation: Rotation,
        mask: Bool[Array, "B T T"],
        past: Sequence[KeyBlock],
        in_order: bool = False,
        keys: Key[Array, "B T"] | None = None,
        implementation: str = XLA,
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B G T H"], Float[Array, "B G T H"]]]:
        """Returns the mixed values, and the new tokens' keys (rotated) and values.

        `in_order` promises that no query sees a token after its own column.
        """
        n_batch, n_tokens, _ = x.shape
        split = (n_batch, n_tokens, -1, self.head_dim)
        query, key, value = (project(x, keys).reshape(split) for project in (self.q, self.k, self.v))
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, rotation), rotate(key, rotation)
        # Heads before tokens, the layout of attention's products, so that caches are never transposed.
        key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
        blocks = [*past, KeyBlock(key, value, mask)]
        is_fused = implementation != XLA and n_tokens >= WHOLE_TEXT
        if is_fused:
            mixed = attend_fused(query, blocks, implementation=implementation)
        else:
            mixed = (attend_in_order if in_order else attend)(query, blocks)
        mixed = checkpoint_name(mixed, _MIXED)
        return self.o(mixed.reshape(n_batch, n_tokens, -1), keys), (key, value)


@jax.custom_vjp
def look_up(table: Float[Array, "V D"], ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Rows of a table, with gradients summed in float32: in bfloat16, a sum of ones ends at 256."""
    return _look_up_forward(table, ids)[0]


def _look_up_forward(table: Array, ids: Array) -> tuple[Array, tuple[Array, Array]]:
    # Of a table that is split by its width, devices of a copy look up their part for all rows of that copy. If rows
    # stayed where they are, the states of all rows of all copies would be gathered.
    ids = keep_rows(ids, over=(DATA,))
    return keep_rows(table[ids], last=FSDP, over=(DATA,)), (table, ids)


def _look_up_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    table, ids = kept
    gradient = keep_rows(gradient, last=FSDP, over=(DATA,))
    total = jnp.zeros(table.shape, jnp.float32).at[ids].add(gradient.astype(jnp.float32))
    return rounded_sum(total, table.dtype), None


look_up.defvjp(_look_up_forward, _look_up_backward)


def pick(hidden: Float[Array, "B S D"], column: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """States of the given columns of each row; columns out of range are clipped."""
    column = jnp.clip(column, 0, hidden.shape[1] - 1)
    return jnp.take_along_axis(hidden, column[:, :, None], axis=1, mode="promise_in_bounds")


def recomputing(run_layer: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """The body of a scan over layers, which the backward pass runs again apart from what `REMAT` says it keeps."""
    return jax.checkpoint(run_layer, prevent_cse=False, policy=REMAT[remat])


def rotation_of(positions: Int[Array, "B T"], config: ModelConfig) -> Rotation:
    """Cosine and sine of ``position * frequency`` (RoPE, Su et al., arXiv 2104.09864), float32.

    Frequency i is ``theta^(-2i/H)``. With Llama 3 scaling, frequencies of fewer than `low_freq_factor` turns in the
    original context are divided by `factor`, those of more than `high_freq_factor` are kept, and those in between are
    interpolated linearly.
    """
    frequency = config.rope_theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    if (scaling := config.rope_scaling) is not None:
        turns = scaling.original_max_position * frequency / (2 * np.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequency = kept * frequency + (1.0 - kept) * frequency / scaling.factor
    angle = positions[..., None].astype(jnp.float32) * jnp.asarray(frequency, jnp.float32)[None, None]
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: Float[Array, "B T heads H"], rotation: Rotation) -> Float[Array, "B T heads H"]:
    """Rotate the pair (x[i], x[i + H/2]) of each head by the token's i-th angle, in float32."""
    cos, sin = (part[:, :, None] for part in rotation)
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x.dtype)
