"""Keys and values of the tokens written by the beams of each row, in an append-only store.

The prompt is read once per row and shared by its beams. At each step the last token of every beam is written to a slot
of its own, and a beam is the set of slots on its path. Nothing in the store is ever moved: when beams are reordered,
only their path masks are. The store is a ring buffer: a row lives for at most as many steps as there is room for, so an
overwritten slot is no longer in use, and rows may enter at any step.
"""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from igd_jax.decoding.recurrence import Hypotheses
from igd_jax.models.backbone import Backbone, KVCache, Prefix
from igd_jax.models.visibility import Dense


@struct.dataclass
class SlotStore:
    """Everything that the beams of each row can attend to.

    Attributes:
      prefix: keys and values of the prompts.
      slots: keys and values [L B G slots H]; K slots per step.
      path: mask of the slots on the path of each beam.
      turn: number of steps so far, int32.
    """

    prefix: Prefix
    slots: KVCache
    path: Bool[Array, "B K slots"]
    turn: Int[Array, ""]

    @property
    def room(self) -> int:
        """Number of steps for which there are slots."""
        return self.path.shape[2] // self.path.shape[1]

    @property
    def first_slot(self) -> Int[Array, ""]:
        """Slot of beam 0 at the next step; those of the other beams follow."""
        return (self.turn % self.room) * self.path.shape[1]


def empty_store(prefix: Prefix, *, num_beams: int, room: int) -> SlotStore:
    """An empty store after these prompts, with slots for `room` steps."""
    n_slots = num_beams * room
    path = jnp.zeros((len(prefix.length), num_beams, n_slots), bool)
    return SlotStore(prefix, prefix.kv.empty(n_slots), path, jnp.int32(0))


def grow(store: SlotStore, room: int) -> SlotStore:
    """Add slots for more steps; only before the ring buffer wraps around, since slots keep their indices."""
    n_slots = room * store.path.shape[1]
    path = jnp.pad(store.path, ((0, 0), (0, 0), (0, n_slots - store.path.shape[2])))
    return replace(store, slots=store.slots.pad_to(n_slots), path=path)


def read_beams(model: Backbone, store: SlotStore, hypotheses: Hypotheses) -> tuple[SlotStore, Float[Array, "B K D"]]:
    """Run the last token of each beam and store it in its slot; returns the store and the hidden states."""
    n_rows, num_beams = hypotheses.token.shape
    path = jnp.take_along_axis(store.path, hypotheses.parent[:, :, None], axis=1)
    positions = store.prefix.length + hypotheses.clock - 1
    hidden, new = model.extend(
        store.prefix,
        hypotheses.token,
        positions=jnp.broadcast_to(positions[:, None], hypotheses.token.shape),
        visible=Dense(jnp.broadcast_to(jnp.eye(num_beams, dtype=bool), (n_rows, num_beams, num_beams))),
        past=[(store.slots, path)],
    )
    slot = store.first_slot
    own = jnp.arange(path.shape[2])[None, None] == (slot + jnp.arange(num_beams))[None, :, None]
    return SlotStore(store.prefix, store.slots.write(new, slot), path | own, store.turn + 1), hidden


def put_rows(store: SlotStore, prefix: Prefix, rows: Int[Array, " n"]) -> SlotStore:
    """Replace the prompts of some rows, whose beams start empty; indices beyond the last row are ignored."""
    path = store.path.at[rows].set(False, mode="drop")
    return replace(store, prefix=store.prefix.put(prefix, rows), path=path)
