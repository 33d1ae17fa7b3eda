"""T5, an encoder-decoder (arXiv 1910.10683), in float32; rows with seeds, as in training, have dropout.

Version 1.0 has a ReLU feed-forward and uses the scaled embedding as its head; version 1.1 has a gated GELU and a
separate head. Positions and masks are arguments, so that a method can share positions and hide tokens from others.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from igd_jax.core.sharding import TENSOR, keep_rows
from igd_jax.core.types import TextBatch
from igd_jax.models.backbone import KVCache, Memory, Past, Prefix
from igd_jax.models.dropout import at_site, token_keys
from igd_jax.models.layers import pick
from igd_jax.models.t5_config import T5Config
from igd_jax.models.t5_layers import Stack
from igd_jax.models.visibility import Causal, Visibility, both_sides, positions_of

unit_normal = jax.nn.initializers.normal(1.0)


class T5(nnx.Module):
    """Embedding, encoder, decoder and vocabulary head.

    Args:
      config: sizes and switches.
      rngs: source of the initial weights, distributed as in transformers (``initializer_factor`` 1): embedding and
        head normal(1), linear maps by their input width (`t5_layers.linear`), position biases
        normal(1 / sqrt(hidden)), norms one.
      remat: as in `Decoder`.
    """

    dtype = jnp.dtype(jnp.float32)

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs, remat: str = "none"):
        shape = (config.vocab_size, config.hidden_size)
        self.config = config
        self.embed = nnx.Param(unit_normal(rngs.params(), shape, jnp.float32))
        self.encoder = Stack(config, is_decoder=False, remat=remat, rngs=rngs)
        self.decoder = Stack(config, is_decoder=True, remat=remat, rngs=rngs)
        self.head = None if config.tie_embeddings else nnx.Param(unit_normal(rngs.params(), shape, jnp.float32))

    def encode(
        self,
        inputs: Int[Array, "B S"] | Float[Array, "B S D"],
        *,
        positions: Int[Array, "B S"],
        visible: Visibility,
        keys: Key[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """Hidden states of the encoder after its final norm.

        Args:
          inputs: token ids, or embeddings instead.
          positions: positions whose differences select the biases.
          visible: which tokens see each other.
          keys: keys of dropout, from `dropout_keys`; None = no dropout.
        """
        return self.encoder(self._embedded(inputs), positions=positions, visible=visible, keys=keys)[0]

    def memory_of(self, encoded: Float[Array, "B S D"], mask: Bool[Array, "B S"]) -> Memory:
        """Keys and values for the decoder from hidden states of the encoder; `mask` is True on real tokens."""
        return self.decoder.memory_of(encoded, mask)

    def decode(
        self,
        inputs: Int[Array, "B T"] | Float[Array, "B T D"],
        memory: Memory,
        *,
        positions: Int[Array, "B T"],
        visible: Visibility,
        past: Sequence[Past] = (),
        more_bias: Float[Array, "B T T"] | None = None,
        keys: Key[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Hidden states of the decoder after its final norm, without the scaling of version 1.0 before the head.

        Args:
          inputs: token ids, or embeddings instead.
          memory: the encoder's output, from `memory_of`.
          positions, visible, keys: as in `encode`; with keys there is no `past`.
          past: earlier tokens of the decoder, with their positions.
          more_bias: further bias [b, query, key] on the attention among the inputs.

        Returns:
          Hidden states, and keys and values of the inputs with their positions.
        """
        return self.decoder(
            self._embedded(inputs),
            positions=positions,
            visible=visible,
            past=past,
            memory=memory,
            more_bias=more_bias,
            keys=keys,
        )

    def dropout_keys(
        self, seed: Int[Array, " B"] | None, valid: Bool[Array, "B S"], *, is_decoder: bool
    ) -> Key[Array, "B S"] | None:
        """Keys of dropout for the tokens of one side; None without seeds, and for a model without dropout."""
        return at_site(token_keys(seed, valid), int(is_decoder)) if self.config.dropout else None

    def _embedded(self, inputs: Int[Array, "B T"] | Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.embed[...][inputs] if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs

    def read_shared(self, ids: Int[Array, " P"]) -> None:
        """Nothing: all tokens of a prompt see all others."""

    def prefill(self, batch: TextBatch, shared: KVCache | None = None) -> Prefix:
        """Encode the prompts and run the start token, which has position 0 and predicts the first token."""
        memory, start = self._read_prompts(batch), self._start(len(batch.prompt))
        real = jnp.ones(start.shape, bool)
        hidden, kv = self.decode(start, memory, positions=jnp.zeros_like(start), visible=Causal(real))
        return Prefix(kv, real, jnp.ones(len(start), jnp.int32), hidden[:, -1], memory)

    def extend(
        self,
        prefix: Prefix,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"],
        visible: Visibility,
        past: Sequence[Past] = (),
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Run tokens of the decoder after the prefix; see `Backbone.extend`."""
        assert prefix.memory is not None
        seen = jnp.broadcast_to(prefix.mask[:, None], (*tokens.shape, prefix.mask.shape[1]))
        return self.decode(tokens, prefix.memory, positions=positions, visible=visible, past=[(prefix.kv, seen), *past])

    def target_hidden(self, batch: TextBatch) -> Float[Array, "B T D"]:
        """State of the decoder that predicts each target token.

        The decoder reads the start token and then the target. The first token of an identifier is preceded by the
        prompt, which the decoder does not read, so the start token predicts it.

        target   t1 t2 e  .
        input     s t1 t2 e
        """
        inputs = jnp.concatenate([self._start(len(batch.target)), batch.target[:, :-1]], axis=1)
        valid = jnp.pad(batch.target_mask[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        positions = jnp.pad(batch.place[:, :-1] + 1, ((0, 0), (1, 0)))
        memory = self._read_prompts(batch)
        keys = self.dropout_keys(batch.seed, valid, is_decoder=True)
        hidden, _ = self.decode(inputs, memory, positions=positions, visible=Causal(valid), keys=keys)
        return pick(hidden, jnp.where(batch.place == 0, 0, batch.before - batch.prompt.shape[1] + 1))

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits over the vocabulary from hidden states after the decoder's final norm."""
        head = self.embed if self.head is None else self.head
        flat = hidden.reshape(-1, hidden.shape[-1])
        if self.config.scale_logits:
            flat = flat * self.config.hidden_size**-0.5
        logits = jnp.einsum("ND,VD->NV", flat, head[...], preferred_element_type=jnp.float32)
        return keep_rows(logits.reshape(*hidden.shape[:-1], -1), last=TENSOR)

    def _start(self, n_rows: int) -> Int[Array, "B 1"]:
        return jnp.full((n_rows, 1), self.config.start_id, jnp.int32)

    def _read_prompts(self, batch: TextBatch) -> Memory:
        """Encode shared prefix and prompt of every row; the prefix is not shared, since it sees the prompt."""
        n_rows, n_shared = len(batch.prompt), len(batch.shared_prefix)
        shared = jnp.broadcast_to(batch.shared_prefix[None], (n_rows, n_shared))
        valid = jnp.pad(batch.prompt_mask, ((0, 0), (n_shared, 0)), constant_values=True)
        tokens = jnp.concatenate([shared, batch.prompt], axis=1)
        keys = self.dropout_keys(batch.seed, valid, is_decoder=False)
        encoded = self.encode(tokens, positions=positions_of(valid), visible=both_sides(valid), keys=keys)
        return self.memory_of(encoded, valid)
