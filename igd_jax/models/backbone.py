"""What a model that reads and writes tokens can do, and what it keeps of the tokens that it has read.

Keys and values are never moved once they are written. A cache is a store of slots in any order: positions are in the
keys (or beside them, where biases need them), and masks say who may look where. So beams, trees and rows that are
served together are all the same to a model.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, no_type_check, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from igd_jax.core.types import TextBatch
from igd_jax.models.visibility import Visibility


@no_type_check  # as pytrees these also hold shapes, shardings or axes
@struct.dataclass
class KVCache:
    """Keys and values of S tokens in all layers.

    Attributes:
      key: as attention wants them, that is, rotated where the model rotates keys.
      value: beside the keys.
      position: of each slot; only of models that have biases by position (T5), else None.
    """

    key: Float[Array, "L B G S H"]
    value: Float[Array, "L B G S H"]
    position: Int[Array, "B S"] | None = None

    @property
    def n_slots(self) -> int:
        """S."""
        return self.key.shape[3]

    def empty(self, n_slots: int) -> "KVCache":
        """A store for as many rows of the same model, with room for `n_slots` tokens and nothing in it."""
        position = None if self.position is None else self.position[:, :0]
        return KVCache(self.key[..., :0, :], self.value[..., :0, :], position).pad_to(n_slots)

    def write(self, new: "KVCache", at: Int[Array, ""] | int) -> "KVCache":
        """The cache with `new` in the slots from `at` on, the same in all rows; `at` may be traced."""
        key, value = (
            jax.lax.dynamic_update_slice_in_dim(old, part, at, axis=3)
            for old, part in ((self.key, new.key), (self.value, new.value))
        )
        position = self.position
        if position is not None and new.position is not None:
            position = jax.lax.dynamic_update_slice_in_dim(position, new.position, at, axis=1)
        return KVCache(key, value, position)

    def take(self, rows: Int[Array, " n"]) -> "KVCache":
        """The given rows of the batch; they may repeat."""
        position = None if self.position is None else self.position[rows]
        return KVCache(self.key[:, rows], self.value[:, rows], position)

    def put(self, new: "KVCache", rows: Int[Array, " n"]) -> "KVCache":
        """The cache with some rows replaced; a row beyond the last is left out."""
        position = self.position
        if position is not None:
            position = position.at[rows].set(new.position, mode="drop")
        key, value = (
            old.at[:, rows].set(part, mode="drop") for old, part in ((self.key, new.key), (self.value, new.value))
        )
        return KVCache(key, value, position)

    def pad_to(self, n_slots: int) -> "KVCache":
        """As many slots; the new ones stand behind the others, and masks must hide them."""
        more = n_slots - self.n_slots
        key, value = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, more), (0, 0))) for x in (self.key, self.value))
        position = None if self.position is None else jnp.pad(self.position, ((0, 0), (0, more)))
        return KVCache(key, value, position)


Past: TypeAlias = tuple[KVCache, Bool[Array, "B T _S"]]
"""Keys and values of S earlier tokens, and which of them each of T new ones may look at. S is each part's own."""


@no_type_check
@struct.dataclass
class Memory:
    """What an encoder has read, as the layers of its decoder look at it.

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
        """As many tokens; the mask hides the new ones."""
        return Memory(self.kv.pad_to(width), _pad_mask(self.mask, width))


@no_type_check
@struct.dataclass
class Prefix:
    """What was read before the first token that is written.

    Attributes:
      kv: keys and values of S tokens that every written token may look at.
      mask: True on real ones among them.
      length: position of the token that is written next.
      hidden: state that predicts it.
      memory: of the encoder; None in models that have none.
    """

    kv: KVCache
    mask: Bool[Array, "B S"]
    length: Int[Array, " B"]
    hidden: Float[Array, "B D"]
    memory: Memory | None = None

    @property
    def width(self) -> int:
        """Columns that the prompts take, padding included: slots of `memory` where there is one, else of `kv`."""
        return (self.kv if self.memory is None else self.memory.kv).n_slots

    def take(self, rows: Int[Array, " n"]) -> "Prefix":
        """The given rows of the batch. They may repeat, so that one prefix serves many."""
        memory = None if self.memory is None else self.memory.take(rows)
        return Prefix(self.kv.take(rows), self.mask[rows], self.length[rows], self.hidden[rows], memory)

    def put(self, new: "Prefix", rows: Int[Array, " n"]) -> "Prefix":
        """The prefixes with some rows replaced by new ones, which are as wide at most; as `KVCache.put`."""
        new = new.pad_to(self.width)
        mask, length, hidden = (
            old.at[rows].set(part, mode="drop")
            for old, part in ((self.mask, new.mask), (self.length, new.length), (self.hidden, new.hidden))
        )
        memory = None if self.memory is None or new.memory is None else self.memory.put(new.memory, rows)
        return Prefix(self.kv.put(new.kv, rows), mask, length, hidden, memory)

    def pad_to(self, width: int) -> "Prefix":
        """As many columns; masks hide the new ones, and what is written after the prefix stays the same."""
        if self.memory is not None:
            return Prefix(self.kv, self.mask, self.length, self.hidden, self.memory.pad_to(width))
        return Prefix(self.kv.pad_to(width), _pad_mask(self.mask, width), self.length, self.hidden)


def _pad_mask(mask: Bool[Array, "B S"], width: int) -> Bool[Array, "B {width}"]:
    return jnp.pad(mask, ((0, 0), (0, width - mask.shape[1])))


@runtime_checkable
class Backbone(Protocol):
    """A model that reads a prompt and writes tokens after it: `Decoder` and `T5` alike.

    Attributes:
      config: sizes; has ``vocab_size``, ``hidden_size`` and ``max_positions`` whatever the model.
      dtype: of the computation.
    """

    @property
    def config(self) -> Any: ...

    @property
    def dtype(self) -> DTypeLike: ...

    def prefill(self, batch: TextBatch) -> Prefix:
        """Read ``shared_prefix`` and ``prompt`` of each row."""
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
        """Run T tokens that are written after the prefix. Nothing that was read before is changed.

        Args:
          positions: of the tokens; ``prefix.length`` is that of the first one of a text.
          visible: which of the T tokens see each other.
          past: tokens written before, in any number of parts, each with its own mask; so that a part which never
            changes can stay apart from one which is written at every step.

        Returns:
          Hidden states from which `logits` predicts the token after each, and the tokens' keys and values.
        """
        ...

    def target_hidden(self, batch: TextBatch) -> Float[Array, "B T D"]:
        """The state that predicts each target token, in one pass over prompt and target; for training."""
        ...

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits over the whole vocabulary."""
        ...
