"""Keys and values of all that the beams of a row have written, in an append-only store.

The prompt is read once per row and shared by its beams. At each turn every beam's last token goes into a slot of its
own; a beam is the set of slots on its path. So nothing in the store is ever moved: when beams are reordered, only their
path masks are. Slots are taken in a circle: a row lives for at most as many turns as there are places, so what is
overwritten is nobody's any more, and rows may enter at any turn.
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
    """What the beams of each row may look at.

    Attributes:
      prefix: the prompts, as read.
      slots: [L B G slots H]; K of them per turn.
      path: slots on each beam's path.
      turn: turns taken so far, int32.
    """

    prefix: Prefix
    slots: KVCache
    path: Bool[Array, "B K slots"]
    turn: Int[Array, ""]

    @property
    def room(self) -> int:
        """Turns that there are places for."""
        return self.path.shape[2] // self.path.shape[1]

    @property
    def first_slot(self) -> Int[Array, ""]:
        """The slot of beam 0 at the turn to come; those of the other beams follow."""
        return (self.turn % self.room) * self.path.shape[1]


def empty_store(prefix: Prefix, *, num_beams: int, room: int) -> SlotStore:
    """A store for beams after these prompts, with places for `room` turns."""
    n_slots = num_beams * room
    path = jnp.zeros((len(prefix.length), num_beams, n_slots), bool)
    return SlotStore(prefix, prefix.kv.empty(n_slots), path, jnp.int32(0))


def grow(store: SlotStore, room: int) -> SlotStore:
    """Places for more turns; only before the first circle is full, since slots keep their numbers."""
    n_slots = room * store.path.shape[1]
    path = jnp.pad(store.path, ((0, 0), (0, 0), (0, n_slots - store.path.shape[2])))
    return replace(store, slots=store.slots.pad_to(n_slots), path=path)


def read_beams(model: Backbone, store: SlotStore, hypotheses: Hypotheses) -> tuple[SlotStore, Float[Array, "B K D"]]:
    """Feed each beam's last token into its slot; returns the store and the tokens' hidden states."""
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
    """The store with new prompts in some rows, whose beams have written nothing; rows beyond the last are left out."""
    path = store.path.at[rows].set(False, mode="drop")
    return replace(store, prefix=store.prefix.put(prefix, rows), path=path)
