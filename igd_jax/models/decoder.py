"""One decoder-only transformer for Qwen2, Qwen2.5, Qwen3 and Llama 3; its layers are stacked and scanned."""

from collections.abc import Sequence
from typing import TypeAlias, no_type_check

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from igd_jax.models.config import ModelConfig
from igd_jax.models.layers import (
    MLP,
    Attention,
    KeyBlock,
    RMSNorm,
    Rotation,
    causal_mask,
    normal_init,
    positions_of,
    rotation_of,
)


@no_type_check  # as a pytree it also holds shapes, shardings or axes
@struct.dataclass
class KVCache:
    """Keys (rotated) and values of S tokens in all layers.

    The order of the slots has no meaning: positions are in the keys, and masks say who may look where.
    """

    key: Float[Array, "L B G S H"]
    value: Float[Array, "L B G S H"]


Past: TypeAlias = tuple[KVCache, Bool[Array, "B T _S"]]
"""Keys and values of S earlier tokens, and which of them each of T new ones may look at. S is each part's own."""


class Layer(nnx.Module):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs, param_dtype: DTypeLike):
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, param_dtype=param_dtype)
        self.attention = Attention(config, rngs=rngs, param_dtype=param_dtype)
        self.mlp_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, param_dtype=param_dtype)
        self.mlp = MLP(config, rngs=rngs, param_dtype=param_dtype)

    def __call__(
        self,
        hidden: Float[Array, "B T D"],
        *,
        rotation: Rotation,
        mask: Bool[Array, "B T T"],
        past: Sequence[KeyBlock],
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B G T H"], Float[Array, "B G T H"]]]:
        """Returns the new residual stream, and the new tokens' keys and values."""
        mixed, new = self.attention(self.attention_norm(hidden), rotation=rotation, mask=mask, past=past)
        hidden = hidden + mixed
        return hidden + self.mlp(self.mlp_norm(hidden)), new


class Decoder(nnx.Module):
    """Embedding, layers, final norm and vocabulary head.

    Args:
      config: sizes and switches.
      rngs: source of the initial weights: normal(0.02), norms one, biases zero.
      dtype: of the computation; norm, rotation, softmax and logits are float32 whatever it is.
      param_dtype: of the stored weights.
      remat: recompute each layer in the backward pass instead of keeping what is inside it.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
    ):
        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap
        def stack_layers(rngs: nnx.Rngs) -> Layer:
            return Layer(config, rngs=rngs, param_dtype=param_dtype)

        shape = (config.vocab_size, config.hidden_size)
        self.config, self.dtype, self.remat = config, jnp.dtype(dtype), remat
        self.embed = nnx.Param(normal_init(rngs.params(), shape, param_dtype))
        self.layers = stack_layers(rngs)
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, param_dtype=param_dtype)
        self.head = None if config.tie_embeddings else nnx.Param(normal_init(rngs.params(), shape, param_dtype))

    def __call__(
        self,
        inputs: Int[Array, "B T"] | Float[Array, "B T D"],
        *,
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T T"],
        past: Sequence[Past] = (),
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Run T new tokens, which look at each other by `mask` and at earlier ones by the masks of `past`.

        The past is only read. The caller writes the returned keys and values where it wants, so that one call serves
        training, prefill, beams in an append-only store, and trees. It comes in parts so that one which never changes
        can stay apart from one which is written at every step.

        Args:
          inputs: token ids, or embeddings in their place.
          positions: of the new tokens, from 0.
          mask: [b, query, key] among the new tokens.
          past: any number of parts, in the model's dtype; finite where they are masked, too.

        Returns:
          Hidden states after the final norm, in the model's dtype, and the new tokens' keys and values [L B G T H].
          A token that may look nowhere, itself included, gets finite values without meaning.
        """
        hidden = self.embed[...][inputs] if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs
        rotation = rotation_of(positions, self.config)
        graph, weights = nnx.split(self.layers)

        def run_layer(hidden, layer):
            layer_weights, cached = layer
            blocks = [(kv.key, kv.value, looks) for kv, (_, looks) in zip(cached, past, strict=True)]
            return nnx.merge(graph, layer_weights)(hidden, rotation=rotation, mask=mask, past=blocks)

        if self.remat:
            run_layer = jax.checkpoint(run_layer, prevent_cse=False)
        cached = [kv for kv, _ in past]
        # Four layers a turn: each turn costs a CPU some idle time and a copy of the weights' gradients.
        hidden, (key, value) = jax.lax.scan(run_layer, hidden.astype(self.dtype), (weights, cached), unroll=4)
        return self.norm(hidden), KVCache(key=key, value=value)

    def after_prefix(
        self, prefix: Int[Array, "B P"] | None, tokens: Int[Array, "B T"], valid: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Run tokens causally after a prefix that is the same in all rows, and so is computed once.

        Args:
          prefix: token ids; only the first row is read. None where rows share nothing.
          valid: real tokens; padding may lie on either side.

        Returns:
          Hidden states of `tokens`, and keys and values of prefix and tokens together [L B G P+T H].
        """
        if prefix is None:
            return self(tokens, positions=positions_of(valid), mask=causal_mask(valid))
        n_rows, n_prefix = prefix.shape
        whole = jnp.ones((1, n_prefix), bool)
        _, kv = self(prefix[:1], positions=positions_of(whole), mask=causal_mask(whole))
        past = jax.tree.map(lambda x: jnp.broadcast_to(x, (x.shape[0], n_rows, *x.shape[2:])), kv)
        hidden, new = self(
            tokens,
            positions=positions_of(valid) + n_prefix,
            mask=causal_mask(valid),
            past=[(past, jnp.ones((*tokens.shape, n_prefix), bool))],
        )
        return hidden, jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=3), past, new)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits over the vocabulary from hidden states after the final norm."""
        head = self.embed if self.head is None else self.head
        weight = head[...].astype(hidden.dtype)
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = jnp.einsum("ND,VD->NV", flat, weight, preferred_element_type=jnp.float32)
        return logits.reshape(*hidden.shape[:-1], -1)
