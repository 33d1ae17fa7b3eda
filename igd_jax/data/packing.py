"""Rows packed into a fixed width, one after another or as trees of common beginnings (docs/packing.md).

Each row is its prompt and all of its target but the last token, which nothing follows. As trees, rows are sorted by
their tokens, and a row adds to a pack only what it does not share with the row before it:

    rows      a b c x            pack      a b c x d y . .      x and y: inputs of two targets
              a b c d y          position  0 1 2 3 3 4
                                 leave     6 6 6 4 6 6          c is seen from columns 2 to 5, x from its own

A token sees an earlier one up to whose `leave` it stands. Rows that share nothing are the same without branches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples

LEAST_SHARED = 8
"""Tokens that two rows have to share to stand in one tree: below it, a free choice of packs is worth more."""


@dataclass(frozen=True)
class PackShape:
    """Sizes of packs, the same for a whole run.

    Attributes:
      width: tokens of a pack.
      slots: target tokens of the packs that stand together.
      rows: rows of those packs.
      packs: packs of a micro-batch.
      together: adjacent packs, on one device, whose targets stand together: of more packs, the sums differ less.
      batches: micro-batches of a step, at most, as far as some steps tell.
      trees: whether rows share their common beginnings.
      shares_prefix: whether the shared prefix of all prompts stands apart, read once per micro-batch.
      covers_prompt: whether tokens of prompts are predicted, too.
    """

    width: int
    slots: int
    rows: int
    packs: int
    together: int = 1
    batches: int = 1
    trees: bool = False
    shares_prefix: bool = True
    covers_prompt: bool = False


@dataclass(frozen=True)
class _Texts:
    """Rows to be packed.

    Attributes:
      tokens: inputs of each row, right-padded with -1.
      lengths: tokens of each row.
      n_prompt: those of its prompt.
      item: its target.
      n_target: tokens of its target.
      follows: whether it follows the shared prefix.
      seed: seed of each row.
    """

    tokens: Int[np.ndarray, "b L"]
    lengths: Int[np.ndarray, " b"]
    n_prompt: Int[np.ndarray, " b"]
    item: Int[np.ndarray, " b"]
    n_target: Int[np.ndarray, " b"]
    follows: Bool[np.ndarray, " b"]
    seed: Int[np.ndarray, " b"]

    def take(self, order: Int[np.ndarray, " b"]) -> "_Texts":
        """The rows in another order."""
        return _Texts(*(array[order] for array in vars(self).values()))


@dataclass(frozen=True)
class Placed:
    """Rows with their places in packs; rows of a pack stand side by side.

    Attributes:
      texts: the rows, in the order of their places.
      shared: tokens that each row shares with the one before it.
      pack: number of each row's pack.
      n_packs: number of packs.
    """

    texts: _Texts
    shared: Int[np.ndarray, " b"]
    pack: Int[np.ndarray, " b"]
    n_packs: int

    @property
    def own(self) -> Int[np.ndarray, " b"]:
        """Tokens that each row adds to its pack."""
        return self.texts.lengths - self.shared


def own_lengths(examples: Examples, item_tokens: Ragged, *, shares_prefix: bool) -> Int[np.ndarray, " R"]:
    """Tokens of each row in a pack, if it shares none with others."""
    assert examples.target is not None
    n_shared = len(examples.shared_prefix) * examples.has_prefix if shares_prefix else 0
    return examples.prompt.lengths - n_shared + item_tokens.lengths[examples.target] - 1


def place_rows(
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    item_tokens: Ragged,
    shape: PackShape,
    *,
    seed: Int[np.ndarray, " b"] | None = None,
) -> Placed:
    """Choose packs for rows: the tightest that has room, widest first.

    Args:
      item_tokens: token row of each item.
      seed: of what is random about each row; None = nothing is.
    """
    texts = _texts(examples, rows, item_tokens, shares_prefix=shape.shares_prefix, seed=seed)
    shared = np.zeros(len(rows), np.int64)
    if shape.trees:
        texts = texts.take(np.lexsort((*texts.tokens.T[::-1], texts.follows)))
        shared[1:] = _shared_with_previous(texts)
    capacity = np.array([shape.width, shape.slots, shape.rows])
    unit, shared, sizes = _units(texts, shared, capacity, covers_prompt=shape.covers_prompt)
    pack_of_unit = _best_fit(sizes, capacity, shape.together)
    pack = pack_of_unit[unit]
    order = np.argsort(pack, kind="stable")
    return Placed(texts.take(order), shared[order], pack[order], int(pack.max()) + 1)


def _texts(
    examples: Examples,
    rows: Int[np.ndarray, " b"],
    item_tokens: Ragged,
    *,
    shares_prefix: bool,
    seed: Int[np.ndarray, " b"] | None,
) -> _Texts:
    """Inputs of rows, without a prefix that stands apart."""
    assert examples.target is not None
    follows = examples.has_prefix[rows] & shares_prefix & (len(examples.shared_prefix) > 0)
    prompts, item = examples.prompt.take(rows), examples.target[rows]
    prompts = prompts.keep_last(prompts.lengths - len(examples.shared_prefix) * follows)
    targets = item_tokens.take(item)
    whole = prompts.followed_by(targets)
    lengths = whole.lengths - 1
    tokens = whole.pad(int(lengths.max()), -1)
    tokens[np.arange(tokens.shape[1]) >= lengths[:, None]] = -1
    given = np.zeros(len(rows), np.int32) if seed is None else seed
    return _Texts(tokens, lengths, prompts.lengths, item, targets.lengths, follows, given)


def _shared_with_previous(texts: _Texts) -> Int[np.ndarray, " b_less_1"]:
    """Length of the common beginning of each row, but the first, and the one before it."""
    same = np.logical_and.accumulate(texts.tokens[1:] == texts.tokens[:-1], axis=1).sum(axis=1)
    shared = np.minimum(same, np.minimum(texts.lengths[1:], texts.lengths[:-1]))
    return np.where(texts.follows[1:] == texts.follows[:-1], shared, 0)


def _units(
    texts: _Texts, shared: Int[np.ndarray, " b"], capacity: Int[np.ndarray, "3"], *, covers_prompt: bool
) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"], Int[np.ndarray, "u 3"]]:
    """Trees that fit into a pack: of one too wide, a part repeats what it shares with the part before it.

    Returns:
      The number of each row's tree, what it shares within it, and tokens, slots and rows of each tree.
    """
    n_slots = texts.n_target + (texts.lengths if covers_prompt else 0)
    whole = np.stack([texts.lengths, n_slots, np.ones_like(n_slots)], axis=1).astype(np.int64)
    unit, kept = np.zeros(len(shared), np.int64), shared.copy()
    sizes: list[np.ndarray] = []
    for row in range(len(shared)):
        added = whole[row] - (shared[row], 0, 0)
        if shared[row] < LEAST_SHARED or (sizes[-1] + added > capacity).any():
            kept[row] = 0
            sizes.append(whole[row])
        else:
            sizes[-1] = sizes[-1] + added
        unit[row] = len(sizes) - 1
    return unit, kept, np.stack(sizes)


def _best_fit(sizes: Int[np.ndarray, "u 3"], capacity: Int[np.ndarray, "3"], together: int) -> Int[np.ndarray, " u"]:
    """Number of the pack of each tree: the one with the least room among those that have enough, widest trees first.

    Packs are dealt to the groups that stand together, so that each has some that begin wide: those have fewer slots.
    """
    assert (sizes <= capacity).all()
    width, pack = np.full(len(sizes) * together, capacity[0]), np.zeros(len(sizes), np.int64)
    n_open = int(-(-sizes[:, 0].sum() // (capacity[0] * together)))  # groups, at least: others only where none has room
    place = np.arange(len(width)).reshape(-1, together)
    place[:n_open] = place[:n_open].reshape(together, n_open).T
    place = np.argsort(place.reshape(-1))
    group = place // together
    shared = np.tile(capacity[1:], (len(sizes), 1))  # room for slots and rows
    for unit in np.argsort(-sizes[:, 0], kind="stable"):
        while True:
            opened = slice(n_open * together)
            has_room = np.all(shared[:n_open] >= sizes[unit, 1:], axis=1)
            fits = (width[opened] >= sizes[unit, 0]) & has_room[group[opened]]
            if fits.any():
                break
            n_open += 1
        number = np.where(fits, width[opened], capacity[0] + 1).argmin()
        width[number] -= sizes[unit, 0]
        shared[group[number]] -= sizes[unit, 1:]
        pack[unit] = place[number]
    return pack


def place_within(pack: Int[np.ndarray, " b"], sizes: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
    """Sum of the sizes of the rows of the same pack that stand before each row; packs ascend."""
    before = np.cumsum(sizes) - sizes
    return before - before[np.searchsorted(pack, pack)]


def per_pack(placed: Sequence[Placed], *, covers_prompt: bool) -> Float[np.ndarray, "3"]:
    """Mean tokens, slots and rows of the packs of some groups of rows."""
    used = np.zeros(3)
    for each in placed:
        tokens = each.own.sum()
        used += tokens, each.texts.n_target.sum() + covers_prompt * tokens, len(each.pack)
    return used / sum(each.n_packs for each in placed)
