"""The axis letters of models, batches and searches, and the few structs that cross layers.

Einsums, annotations and names use these letters. All others, and those of `evaluation`, which has queries and targets
in place of tokens, have the meaning that their module gives them.

    B batch           S prompt length     T target length    K beams          V vocabulary
    P prompt header   J items of history (in batches of items)
    N catalogue rows  M trie nodes        E trie edges       C children width
    L layers          D model width       F mlp width        Q query heads    G kv heads    H head dim
"""

from typing import NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Scalar


@no_type_check  # as pytrees these also hold NumPy arrays, shapes and shardings
@struct.dataclass
class PackTrees:
    """Texts in packs, as trees: a token's descendants follow it, and it is seen by itself and by them.

    Attributes:
      position: number of each token within its text, shared prefix included, from 0.
      leave: column after the last descendant of each token; 0 on padding.
      follows_shared: whether its text begins with the shared prefix of the batch.
    """

    position: Int[Array, "B S"]
    leave: Int[Array, "B S"]
    follows_shared: Bool[Array, "B S"]


@no_type_check
@struct.dataclass
class TextBatch:
    """Rows for a model that reads and writes tokens; or, in training, packs, each of which holds several rows.

    A pack has the inputs of all its rows in `prompt`, those of targets too. The targets of several packs stand in one
    row, each on adjacent columns, so that arrays with T have fewer rows than those with S (`data.packing`).

    Attributes:
      shared_prefix: common first ids of all prompts, one row for all (replicated over devices); P may be 0.
      prompt: ids after the shared prefix, left-padded.
      prompt_mask: True on real ids; all False on padding rows.
      target: ids to be written, right-padded, EOS included; T is 0 if there are no targets.
      target_mask: True on real ids.
      place: number of each target token within its identifier, 0 at the first.
      before: column of the token before each target token, in `prompt` and `target` joined along their second axis. For
        packs, the column in the joined `prompt` rows of those packs whose targets stand in this row.
      first: index of the first token of each identifier in the flattened `target`; B * T if there is none.
      annotations: arrays [B T] by name, with a value per target token; specific to a method, such as ``weight``.
      collaborative: scores of all items for each row; None without a collaborative source.
      allowed: catalogue rows that may be recommended to each row, among the candidates; None = all of them.
      seed: seed of each row's random draws at this step, such as dropout, and of packs one per token; None outside
        training.
      pack_trees: what the tokens of packs see; None if each row is one text.
    """

    shared_prefix: Int[Array, " P"]
    prompt: Int[Array, "B S"]
    prompt_mask: Bool[Array, "B S"]
    target: Int[Array, "B T"]
    target_mask: Bool[Array, "B T"]
    place: Int[Array, "B T"]
    before: Int[Array, "B T"]
    first: Int[Array, " n"]
    annotations: dict[str, Array] = struct.field(default_factory=dict)
    collaborative: Float[Array, "B items"] | None = None
    allowed: Bool[Array, "B N"] | None = None
    seed: Int[Array, " B"] | Int[Array, "B S"] | None = None
    pack_trees: PackTrees | None = None

    @property
    def is_real(self) -> Bool[Array, " B"]:
        """Mask of the rows that are not padding."""
        return self.prompt_mask.any(axis=1)


def prompt_batch(ids: Int[Array, " S"]) -> TextBatch:
    """A batch of one prompt, without targets."""
    nothing, none = jnp.zeros((1, 0), jnp.int32), jnp.zeros(0, jnp.int32)
    return TextBatch(
        shared_prefix=none,
        prompt=ids[None],
        prompt_mask=jnp.ones((1, len(ids)), bool),
        target=nothing,
        target_mask=jnp.zeros((1, 0), bool),
        place=nothing,
        before=nothing,
        first=none,
    )


@no_type_check
@struct.dataclass
class ItemBatch:
    """Rows for a model that reads items.

    Attributes:
      history: left-padded items, oldest first.
      history_mask: True on real items.
      target: item that followed.
      is_real: False on padding rows.
      rows_per_read: number of rows per item of their histories, among all rows whose loss is divided once; equal for
        all real rows. None = those of this batch.
      seed: as in `TextBatch`.
      allowed: as in `TextBatch`.
    """

    history: Int[Array, "B J"]
    history_mask: Bool[Array, "B J"]
    target: Int[Array, " B"]
    is_real: Bool[Array, " B"]
    rows_per_read: Float[Array, " B"] | None = None
    seed: Int[Array, " B"] | None = None
    allowed: Bool[Array, "B N"] | None = None


@no_type_check  # as pytrees they also hold shapes and NumPy sums
@struct.dataclass
class LossSum:
    """A weighted loss before its single division, additive over micro-batches, devices and hosts.

    Attributes:
      loss: sum of weight times cross-entropy (nats), float32.
      weight: sum of the weights, float32.
      metrics: further (sum, weight) pairs by name, each divided once, for the log.
    """

    loss: Float[Scalar, ""]
    weight: Float[Scalar, ""]
    metrics: dict[str, tuple[Float[Scalar, ""], Float[Scalar, ""]]]

    def __add__(self, other: "LossSum") -> "LossSum":
        return jax.tree.map(lambda a, b: a + b, self, other)


@no_type_check
@struct.dataclass
class Recommendations:
    """Lists of items, best first.

    Attributes:
      rows: catalogue rows; -1 if there is no result, or one that was cut before its end.
      scores: final scores (natural log, after the length penalty); -inf if there is no result.
    """

    rows: Int[Array, "B K"]
    scores: Float[Array, "B K"]


class Remainders(NamedTuple):
    """For each token of the vocabulary what remains of it where a text is trimmed: itself, another token, or -1; int32.

    Attributes:
      end: before a newline, or EOS; another token if the characters before the newline, without quotes, are one.
      opening: at the start of a text, without quotes.
      closing: at the end of a text, without quotes.
    """

    end: Int[np.ndarray | Array, " V"]
    opening: Int[np.ndarray | Array, " V"]
    closing: Int[np.ndarray | Array, " V"]
