"""A collaborative source: scores of all items from the behaviour of users, for the rows of one split.

Scores are inner products of one vector per row and one per item, so a file holds two small matrices instead of a score
per pair. Popularity has vectors of length one. When a collaborative run ends, it exports its vectors to
``collaborative.safetensors`` in its folder: ``items``, and the users of each split in `EXPORTED`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from igd_jax.core.arrays import check_finite
from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.data.npy_io import read_npy
from igd_jax.data.safetensors_io import read_matrices, write_matrices

FILE = "collaborative.safetensors"
EXPORTED = ("valid", "test")
"""Splits whose user vectors a run exports."""
MENDED = "give a matrix of floats with a row per item, written by numpy.save"
AGAIN = "finish the collaborative run again: python -m igd_jax.train with its config and workdir"


@dataclass(frozen=True)
class Collaborative:
    """Unnormalised log-probabilities of items, as ``users @ items.T``.

    Attributes:
      users: hidden state of each row, float32.
      items: embedding of each item of the data set, float32.
    """

    users: Float[np.ndarray, "R D"]
    items: Float[np.ndarray, "I D"]

    def take(self, rows: Int[np.ndarray, " b"]) -> "Collaborative":
        """The source for some of the rows."""
        return Collaborative(self.users[rows], self.items)

    def scores(self, rows: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b I"]:
        """Scores of all items for some rows, natural log up to a constant per row."""
        return self.users[rows] @ self.items.T


def popularity(counts: Int[np.ndarray, " I"], n_rows: int) -> Collaborative:
    """The log of each item's train count, the same for every row; -inf where it is 0."""
    with np.errstate(divide="ignore"):
        return Collaborative(np.ones((n_rows, 1), np.float32), np.log(counts.astype(np.float32))[:, None])


def save_collaborative(
    folder: Path,
    items: Float[np.ndarray, "I D"],
    users: Mapping[str, Float[np.ndarray, "R D"]],
    *,
    fingerprint: str,
    n_train: int,
) -> None:
    """Write the vectors of a run into its folder.

    Args:
      users: user vectors by split.
      fingerprint: fingerprint of the prepared data.
      n_train: number of train rows that the run used.
    """
    told = {"fingerprint": fingerprint, "train_rows": str(n_train)}
    write_matrices(folder / FILE, {"items": items, **users}, told)


def load_collaborative(
    run: Path, *, fingerprint: str, split: str, n_rows: int, n_items: int, n_train: int
) -> Collaborative:
    """Read what a collaborative run exported, for the rows of a split; says if that run used other train rows.

    Args:
      run: folder of the run.
      fingerprint: fingerprint of the prepared data.
      split: name of the split.
      n_rows: number of its rows.
      n_items: number of items.
      n_train: number of train rows that are in use here.

    Raises:
      InputError: no such file, or it belongs to other data, lacks that split, or holds numbers that are not finite.
    """
    if split not in EXPORTED:
        raise InputError(
            f"config.decode.collaborative is {str(run)!r}, which has no scores for the rows of {split}; rank those of "
            f"{' or '.join(EXPORTED)}"
        )
    (items, users), found = read_matrices(path := run / FILE, "items", split, remedy=AGAIN)
    _check(path, items, found, fingerprint=fingerprint, n_items=n_items, n_train=n_train)
    if users.shape != (n_rows, items.shape[1]):
        raise InputError(
            f"{path} has {len(users):,} rows of {split}, {users.shape[1]} wide, but that split has {n_rows:,}, and "
            f"items are {items.shape[1]} wide; {AGAIN}"
        )
    return Collaborative(users, items)


def load_item_vectors(source: Path, *, fingerprint: str, n_items: int, n_train: int) -> Float[np.ndarray, "I D"]:
    """Read the item vectors only, of a collaborative run or of a NumPy file (``.npy``) with a row per item.

    Raises:
      InputError: there are none, or they belong to another catalogue or are not finite.
    """
    if source.suffix == ".npy":
        vectors = read_npy(source, remedy=MENDED)
        check_finite(str(source), vectors, remedy=MENDED)
        if len(vectors) != n_items:
            raise InputError(f"{source} has {len(vectors):,} item vectors for {n_items:,} items; {MENDED}")
        return vectors
    (vectors,), found = read_matrices(path := source / FILE, "items", remedy=AGAIN)
    _check(path, vectors, found, fingerprint=fingerprint, n_items=n_items, n_train=n_train)
    return vectors


def _check(
    path: Path,
    items: Float[np.ndarray, "I D"],
    found: Mapping[str, str],
    *,
    fingerprint: str,
    n_items: int,
    n_train: int,
) -> None:
    if (given := found.get("fingerprint")) != fingerprint:
        raise InputError(
            f"{path} has vectors of data {given}, but this run's data is {fingerprint}; train a collaborative run on "
            "the same data"
        )
    if len(items) != n_items:
        raise InputError(f"{path} has {len(items):,} item vectors for {n_items:,} items; {AGAIN}")
    if (rows := found.get("train_rows", str(n_train))) != str(n_train):  # a file may be older than this field
        say(f"note: {path} was learned from {rows} train rows, and {n_train} are in use here; methods differ in data")
