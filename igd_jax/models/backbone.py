"""Interface of models that read and write tokens, and their caches.

Keys and values are never moved once they are written. The slots of a cache have no order: positions are part of the
keys (or stored separately, for position biases), and masks say which slots a query may attend to. So a model treats
beams, trees and rows that are served together alike.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, no_type_check, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.sharding import platform_here
from igd_jax.core.types import TextBatch
from igd_jax.models.visibility import Visibility


@no_type_check  # as pytrees these also hold shapes, shardings or axes
@struct.dataclass
class KVCache:
    """Keys and values of S tokens in all layers.

    Attributes:
      key: keys, with positions applied if the model rotates them.
      value: values of the same tokens.
      position: position of each slot, for models with position biases (T5); else None.
    """

    key: Float[Array, "L B G S H"]
    value: Float[Array, "L B G S H"]
    position: Int[Array, "B S"] | None = None

    @property
    def n_slots(self) -> int:
        """Number of slots, S."""
        return self.key.shape[3]

    def empty(self, n_slots: int) -> "KVCache":
        """An empty cache of the same model and number of rows, with `n_slots` slots."""
        position = None if self.position is None else self.position[:, :0]
        return KVCache(self.key[..., :0, :], self.value[..., :0, :], position).pad_to(n_slots)

    def write(self, new: "KVCache", at: Int[Array, ""] | int) -> "KVCache":
        """The cache with `new` written to the slots from `at` on, in all rows; `at` may be traced."""
        key, value = (
            jax.lax.dynamic_update_slice_in_dim(old, part, at, axis=3)
            for old, part in ((self.key, new.key), (self.value, new.value))
        )
        position = self.position
        if position is not None and new.position is not None:
            position = jax.lax.dynamic_update_slice_in_dim(position, new.position, at, axis=1)
        return KVCache(key, value, position)

    def write_slots(self, new: "KVCache", slot: Int[Array, "B T"]) -> "KVCache":
        """The cache with each of T new tokens in a slot of its own; slots beyond the last one are ignored."""

        def scatter(old: Array, part: Array, slot: Array) -> Array:
            return old.at[slot].set(part, mode="drop", unique_indices=True)

        def select(old: Array, part: Array, slot: Array) -> Array:
            written = slot[:, None] == jnp.arange(len(old))[None]
            is_new = written.any(axis=0).reshape(-1, *(1,) * (old.ndim - 1))
            return jnp.where(is_new, part[written.argmax(axis=0)], old)

        # A GPU scatters number by number, a tenth of the time of a search of 16 users on an H200. A TPU would read and
        # write more than twice as much to select, as it is compiled for a v5e.
        write = select if platform_here() == "gpu" else scatter
        # With every axis before that of the slots mapped, nothing is transposed to write: ten times faster on a CPU.
        in_row = jax.vmap(write, in_axes=(0, 0, None))
        in_all = jax.vmap(jax.vmap(in_row), in_axes=(0, 0, None))
        key, value = (in_all(old, part, slot) for old, part in ((self.key, new.key), (self.value, new.value)))
        position = self.position
        if position is not None and new.position is not None:
            position = jax.vmap(write)(position, new.position, slot)
        return KVCache(key, value, position)

    def take(self, rows: Int[Array, " n"]) -> "KVCache":
        """The given rows of the batch; they may repeat."""
        position = None if self.position is None else self.position[rows]
        return KVCache(self.key[:, rows], self.value[:, rows], position)

    def put(self, new: "KVCache", rows: Int[Array, " n"]) -> "KVCache":
        """The cache with some rows replaced; indices beyond the last row are ignored."""
        position = self.position
        if position is not None:
            position = position.at[rows].set(new.position, mode="drop")
        key, value = (
            old.at[:, rows].set(part, mode="drop") for old, part in ((self.key, new.key), (self.value, new.value))
        )
        return KVCache(key, value, position)

    def pad_to(self, n_slots: int) -> "KVCache":
        """The cache padded to `n_slots` slots; masks must hide the new ones, which come last."""
        more = n_slots - self.n_slots
        key, value = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more), (0, 0))) for x in (self.key, self.value))
        position = None if self.position is None else jnp.pad(self.position, ((0, 0), (0, more)))
        return KVCache(key, value, position)


Past: TypeAlias = tuple[KVCache, Bool[Array, "B T _S"]]
"""Keys and values of S earlier tokens, and the mask of those that each of T new ones may attend to."""


@no_type_check
@struct.dataclass
class Memory:
    """Output of an encoder, as its decoder's layers attend to it.

    Attributes:
      kv: keys and values of the encoder's S tokens in all layers of the decoder.
      mask: True on real tokens.
    """

    kv: KVCache
    mask: Bool[Array, "B S"]

    def take(self, rows: Int[Array, " n"]) -> "Memory":
        """As `KVCache.take`."""
        return Memory(self.kv.take(rows), self.mask[rows])

    def put(self, new: "Memory", rows: Int[Array, " n"]) -> "Memory":
        """As `KVCache.put`."""
        return Memory(self.kv.put(new.kv, rows), self.mask.at[rows].set(new.mask, mode="drop"))

    def pad_to(self, width: int) -> "Memory":
        """The memory padded to `width` tokens; the mask hides the new ones."""
        return Memory(self.kv.pad_to(width), _pad_mask(self.mask, width))


@no_type_check
@struct.dataclass
class Prefix:
    """State after reading a prompt, before the first token is written.

    Attributes:
      kv: keys and values of S tokens that every written token may attend to.
      mask: True on the real ones among them.
      length: position of the next token.
      hidden: state that predicts the next token.
      memory: output of the encoder; None for models without one.
    """

    kv: KVCache
    mask: Bool[Array, "B S"]
    length: Int[Array, " B"]
    hidden: Float[Array, "B D"]
    memory: Memory | None = None

    @property
    def width(self) -> int:
        """Number of prompt columns, padding included: slots of `memory` if there is one, else of `kv`."""
        return (self.kv if self.memory is None else self.memory.kv).n_slots

    def take(self, rows: Int[Array, " n"]) -> "Prefix":
        """The given rows of the batch. They may repeat, so that one prefix serves many."""
        memory = None if self.memory is None else self.memory.take(rows)
        return Prefix(self.kv.take(rows), self.mask[rows], self.length[rows], self.hidden[rows], memory)

    def put(self, new: "Prefix", rows: Int[Array, " n"]) -> "Prefix":
        """The prefix with some rows replaced by new ones, which must not be wider; as `KVCache.put`."""
        new = new.pad_to(self.width)
        mask, length, hidden = (
            old.at[rows].set(part, mode="drop")
            for old, part in ((self.mask, new.mask), (self.length, new.length), (self.hidden, new.hidden))
        )
        memory = None if self.memory is None or new.memory is None else self.memory.put(new.memory, rows)
        return Prefix(self.kv.put(new.kv, rows), mask, length, hidden, memory)

    def pad_to(self, width: int) -> "Prefix":
        """The prefix padded to `width` columns, which masks hide; results after it do not change."""
        if self.memory is not None:
            return Prefix(self.kv, self.mask, self.length, self.hidden, self.memory.pad_to(width))
        return Prefix(self.kv.pad_to(width), _pad_mask(self.mask, width), self.length, self.hidden)


def _pad_mask(mask: Bool[Array, "B S"], width: int) -> Bool[Array, "B {width}"]:
    return jnp.pad(mask, ((0, 0), (0, width - mask.shape[1])))


@runtime_checkable
class Backbone(Protocol):
    """A model that reads a prompt and writes tokens after it: `Decoder` and `T5` alike.

    Attributes:
      config: sizes; has ``vocab_size``, ``hidden_size`` and ``max_positions`` for every model.
      dtype: dtype of the computation.
    """

    @property
    def config(self) -> Any: ...

    @property
    def dtype(self) -> DTypeLike: ...

    def read_shared(self, ids: Int[Array, " P"]) -> KVCache | None:
        """Keys and values of ids that prompts begin with, one row; None if what follows would change them."""
        ...

    def prefill(self, batch: TextBatch, shared: KVCache | None = None) -> Prefix:
        """Read ``shared_prefix`` and ``prompt`` of each row; `shared` is what `read_shared` made of the former."""
        ...

    def extend(
        self,
        prefix: Prefix,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"],
        visible: Visibility,
        past: Sequence[Past] = (),
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Run T tokens that are written after the prefix, which is not changed.

        Args:
          prefix: state after reading the prompts.
          tokens: ids of the tokens.
          positions: positions of the tokens; the first token of a text has ``prefix.length``.
          visible: visibility among the T tokens.
          past: tokens written before, in any number of parts, each with its own mask, so that a constant part can be
            kept separate from one that is written at every step.

        Returns:
          Hidden states from which `logits` predicts the token after each, and the tokens' keys and values.
        """
        ...

    def target_hidden(self, batch: TextBatch) -> Float[Array, "B T D"]:
        """State that predicts each target token, in one pass over prompt and target; for training."""
        ...

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits over the whole vocabulary."""
        ...
