"""One decoder-only transformer for Qwen2, Qwen2.5, Qwen3 and Llama 3; its layers are stacked and scanned."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from igd_jax.core.sharding import TENSOR, keep_rows
from igd_jax.core.types import PackTrees, TextBatch
from igd_jax.models.attention import XLA, KeyBlock
from igd_jax.models.backbone import KVCache, Past, Prefix
from igd_jax.models.config import ModelConfig
from igd_jax.models.dropout import at_site, path_keys, token_keys
from igd_jax.models.layers import (
    MLP,
    Attention,
    Linear,
    RMSNorm,
    Rotation,
    look_up,
    normal_init,
    pick,
    recomputing,
    rotation_of,
)
from igd_jax.models.products import frozen_product, product
from igd_jax.models.visibility import Causal, Tree, Visibility, is_in_order, mask_of, positions_of


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
        in_order: bool,
        keys: Key[Array, "B T"] | None = None,
        attention: str = XLA,
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B G T H"], Float[Array, "B G T H"]]]:
        """Returns the new residual stream, and the new tokens' keys and values."""
        x = self.attention_norm(hidden)
        mixed, new = self.attention(
            x, rotation=rotation, mask=mask, past=past, in_order=in_order, keys=keys, implementation=attention
        )
        hidden = hidden + mixed
        return hidden + self.mlp(self.mlp_norm(hidden), keys), new


class Seen(NamedTuple):
    """What the tokens of a batch see.

    Attributes:
      positions: positions, shared prefix included.
      visible: visibility among the tokens.
      follows: whether each sees the shared prefix.
    """

    positions: Int[Array, "B T"]
    visible: Visibility
    follows: Bool[Array, "B T"]

    @classmethod
    def of_rows(cls, batch: TextBatch, valid: Bool[Array, "B T"]) -> "Seen":
        """Of rows that are one text each, all of them after the shared prefix."""
        return cls(positions_of(valid) + len(batch.shared_prefix), Causal(valid), jnp.ones_like(valid))

    @classmethod
    def of_packs(cls, trees: PackTrees) -> "Seen":
        """Of packs of trees, whose tokens stand in depth-first order."""
        return cls(trees.position, Tree(None, trees.leave), trees.follows_shared)


class Decoder(nnx.Module):
    """Embedding, layers, final norm and vocabulary head.

    Args:
      config: sizes and switches.
      rngs: source of the initial weights: normal(0.02), norms one, biases zero.
      dtype: dtype of the computation, except for norm, rotation, softmax and logits, which are always float32.
      param_dtype: dtype of the stored weights.
      remat: what the backward pass keeps of each layer, a name in `layers.REMAT`.

    Attributes:
      dropout: rate of the adapters' dropout in training; see `models.lora`.
      attention: implementation of attention, of `attention.ATTENTION`.
    """

    dropout: float = 0.0
    attention: str = XLA

    def __init__(
        self,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: str = "none",
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
        visible: Visibility,
        past: Sequence[Past] = (),
        keys: Key[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Run T new tokens, which attend to each other according to `visible`, and to earlier ones by masks of `past`.

        The past is only read. The caller stores the returned keys and values, so that the same function serves
        training, prefill, beams in an append-only store, and trees.

        Args:
          inputs: token ids, or embeddings instead.
          positions: positions of the new tokens, from 0.
          visible: visibility among the new tokens.
          past: any number of parts in the model's dtype; values must be finite even if they are masked.
          keys: keys of dropout, from `dropout_keys`; None = no dropout.

        Returns:
          Hidden states after the final norm, in the model's dtype, and the new tokens' keys and values [L B G T H].
          Values of a token that sees nothing, not even itself, are finite but arbitrary.
        """
        hidden = look_up(self.embed[...], inputs) if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs
        seen, (graph, weights) = self._seen(positions, visible), nnx.split(self.layers)

        def run_layer(hidden, layer):
            layer_weights, cached, number = layer
            blocks = [KeyBlock(key, value, is_seen) for (key, value), (_, is_seen) in zip(cached, past, strict=True)]
            own = None if number is None else at_site(keys, number)
            hidden, new = nnx.merge(graph, layer_weights)(hidden, past=blocks, keys=own, **seen)
            return keep_rows(hidden), new

        numbers = None if keys is None else jnp.arange(self.config.num_layers)
        layers = weights, [(kv.key, kv.value) for kv, _ in past], numbers
        hidden = keep_rows(hidden.astype(self.dtype))
        hidden, (key, value) = jax.lax.scan(recomputing(run_layer, self.remat), hidden, layers)
        return self.norm(hidden), KVCache(key, value)

    def round_weights(self) -> None:
        """Keep in the dtype of the computation what calls round to it: linear maps, embedding and head.

        Results are the same bits. A compiled search would otherwise hold both, and round anew whenever it is called.
        """
        maps = [module.kernel for _, module in nnx.iter_modules(self) if isinstance(module, Linear)]
        tables = [self.embed] if self.head is None else [self.embed, self.head]
        for variable in [*tables, *maps]:
            value = variable.get_value()
            if isinstance(value, jax.Array) and value.dtype.itemsize > self.dtype.itemsize:
                variable.set_value(value.astype(self.dtype))

    def read_shared(self, ids: Int[Array, " P"]) -> KVCache:
        """Keys and values [L 1 G P H] of ids that prompts begin with."""
        whole = jnp.ones((1, len(ids)), bool)
        return self(ids[None], positions=positions_of(whole), visible=Causal(whole))[1]

    def prefill(self, batch: TextBatch, shared: KVCache | None = None) -> Prefix:
        """Read the prompts; their padding is on the left, so the last column predicts the first token."""
        ids, tokens, seen = batch.shared_prefix, batch.prompt, Seen.of_rows(batch, batch.prompt_mask)
        past: list[Past] = []
        if len(ids):
            shared = self.read_shared(ids) if shared is None else shared
            of_all = jax.tree.map(lambda x: jnp.broadcast_to(x, (x.shape[0], len(tokens), *x.shape[2:])), shared)
            past = [(of_all, jnp.ones((*tokens.shape, len(ids)), bool))]
        hidden, kv = self(tokens, positions=seen.positions, visible=seen.visible, past=past)
        if past:
            kv = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=3), past[0][0], kv)
        mask = jnp.pad(batch.prompt_mask, ((0, 0), (len(ids), 0)), constant_values=True)
        return Prefix(kv, mask, length=mask.sum(axis=1, dtype=jnp.int32), hidden=hidden[:, -1])

    def extend(
        self,
        prefix: Prefix,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"],
        visible: Visibility,
        past: Sequence[Past] = (),
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Run tokens after the prefix; see `Backbone.extend`."""
        seen = jnp.broadcast_to(prefix.mask[:, None], (*tokens.shape, prefix.mask.shape[1]))
        return self(tokens, positions=positions, visible=visible, past=[(prefix.kv, seen), *past])

    def target_hidden(self, batch: TextBatch) -> Float[Array, "B T D"]:
        """State of the token before each target token, which is a token of the prompt or of the target.

        With seeds, each row draws its dropout by itself; but what rows of a tree share draws once, by the seed of the
        first of them. Packs that drop out must have no shared prefix (`data.packing.PackShape.shares_prefix`), which
        is read without dropout.
        """
        if batch.pack_trees is not None:
            seen = Seen.of_packs(batch.pack_trees)
            keys = path_keys(batch.seed, seen.positions) if self.dropout else None
            assert keys is None or not len(batch.shared_prefix), "a shared prefix is read without dropout"
            hidden = self._states_after_shared(batch.shared_prefix, batch.prompt, seen, keys=keys)
            return pick(hidden.reshape(len(batch.before), -1, hidden.shape[-1]), batch.before)
        tokens = jnp.concatenate([batch.prompt, batch.target], axis=1)
        valid = jnp.concatenate([batch.prompt_mask, batch.target_mask], axis=1)
        shared = batch.shared_prefix
        if batch.seed is None or not self.dropout:
            hidden = self._states_after_shared(shared, tokens, Seen.of_rows(batch, valid))
            return pick(hidden, batch.before)
        # Each row draws for itself, also for the tokens of the prefix, which are therefore not shared.
        tokens = jnp.concatenate([jnp.broadcast_to(shared[None], (len(tokens), len(shared))), tokens], axis=1)
        valid = jnp.pad(valid, ((0, 0), (len(shared), 0)), constant_values=True)
        keys = self.dropout_keys(batch.seed, valid)
        hidden, _ = self(tokens, positions=positions_of(valid), visible=Causal(valid), keys=keys)
        return pick(hidden[:, len(shared) :], batch.before)

    def dropout_keys(self, seed: Int[Array, " B"] | None, valid: Bool[Array, "B T"]) -> Key[Array, "B T"] | None:
        """Keys of dropout for the tokens of rows; None without seeds, and for a model without dropout."""
        return token_keys(seed, valid) if self.dropout else None

    def _seen(self, positions: Int[Array, "B T"], visible: Visibility) -> dict[str, Any]:
        """What layers are told of the positions of tokens, and of what these see of each other."""
        rotation, mask, in_order = rotation_of(positions, self.config), mask_of(visible), is_in_order(visible)
        return {"rotation": rotation, "mask": mask, "in_order": in_order, "attention": self.attention}

    def _states_after_shared(
        self, ids: Int[Array, " P"], tokens: Int[Array, "B T"], seen: Seen, *, keys: Key[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Hidden states of `tokens` after ids that all rows share, which are read once.

        Each layer reads both, so that training has one gradient of the layers to hold; a pass of its own would have
        another.
        """
        if len(ids) == 0:
            return self(tokens, positions=seen.positions, visible=seen.visible, keys=keys)[0]
        whole = jnp.ones((1, len(ids)), bool)
        seen_by_shared, seen_by_rows = self._seen(positions_of(whole), Causal(whole)), self._seen(*seen[:2])
        follows = jnp.broadcast_to(seen.follows[..., None], (*tokens.shape, len(ids)))
        graph, weights = nnx.split(self.layers)

        def run_layer(hidden, layer_weights):
            layer = nnx.merge(graph, layer_weights)
            # If XLA of jax 0.10 may merge the two calls, it is wrong on CPUs at some shapes: test_shared_prefix.py.
            of_shared, kv = jax.lax.optimization_barrier(layer(hidden[0], past=[], **seen_by_shared))
            key, value = (jnp.broadcast_to(x, (len(tokens), *x.shape[1:])) for x in kv)
            of_rows, _ = layer(hidden[1], past=[KeyBlock(key, value, follows)], **seen_by_rows)
            return (of_shared, keep_rows(of_rows)), None

        both = [look_up(self.embed[...], each).astype(self.dtype) for each in (ids[None], tokens)]
        (_, hidden), _ = jax.lax.scan(recomputing(run_layer, self.remat), (both[0], keep_rows(both[1])), weights)
        return self.norm(hidden)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits over the vocabulary from hidden states after the final norm."""
        head = self.embed if self.head is None else self.head
        multiply = product if isinstance(head, nnx.Param) else frozen_product
        logits = multiply(hidden.reshape(-1, hidden.shape[-1]), head[...].T, jnp.float32)
        return keep_rows(logits.reshape(*hidden.shape[:-1], -1), last=TENSOR)
