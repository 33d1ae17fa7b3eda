"""A collaborative source: what other users' behaviour says of every item, for the rows of one split.

Scores are inner products of a vector a row and a vector an item, so a file holds two small matrices and not one number
for each pair. Popularity is the same with vectors of length one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.data.safetensors_io import read_matrices

FILE = "collaborative.safetensors"
AGAIN = "evaluate the collaborative run again"


@dataclass(frozen=True)
class Collaborative:
    """Unnormalised log-probabilities of items, as ``users @ items.T``.

    Attributes:
      users: hidden state of each row, float32.
      items: embedding of each item of the data set, float32.
    """

    users: Float[np.ndarray, "R D"]
    items: Float[np.ndarray, "I D"]

    def scores(self, rows: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b I"]:
        """Scores of all items for some rows, natural log up to a constant a row."""
        return self.users[rows] @ self.items.T


def popularity(counts: Int[np.ndarray, " I"], n_rows: int) -> Collaborative:
    """The log of each item's train count, the same for every row; -inf where it is 0."""
    with np.errstate(divide="ignore"):
        return Collaborative(np.ones((n_rows, 1), np.float32), np.log(counts.astype(np.float32))[:, None])


def save_collaborative(source: Collaborative, path: Path, *, fingerprint: str, split: str) -> None:
    """Write users, items, and whose they are.

    Args:
      fingerprint: of the prepared data.
      split: whose rows.
    """
    tensors = {"users": np.ascontiguousarray(source.users), "items": np.ascontiguousarray(source.items)}
    save_file(tensors, path, metadata={"fingerprint": fingerprint, "split": split})


def load_collaborative(folder: Path, *, fingerprint: str, split: str, n_rows: int, n_items: int) -> Collaborative:
    """Read what an evaluation of a collaborative run left in its folder.

    Raises:
      InputError: no such file, or it was made for other data, another split, or too few rows.
    """
    path = _file_of(folder, asked_by="decode.collaborative", expected="'popularity' or the evaluation")
    (users, items), found = read_matrices(path, "users", "items", remedy=AGAIN)
    for name, wanted in (("fingerprint", fingerprint), ("split", split)):
        if found.get(name) != wanted:
            raise InputError(
                f"{path} has scores of {name} {found.get(name)}, but the rows to rank are of {name} {wanted}; evaluate "
                "the collaborative run on the same data and split"
            )
    if len(users) < n_rows or len(items) != n_items:
        raise InputError(
            f"{path} has {len(users):,} rows of {len(items):,} items, but {n_rows:,} rows of {n_items:,} items are in "
            f"that split; {AGAIN}"
        )
    return Collaborative(users[:n_rows], items)


def load_item_vectors(folder: Path, *, fingerprint: str, n_items: int) -> Float[np.ndarray, "I D"]:
    """The item vectors alone of such a folder, of whatever split, for `config.method.args.collaborative`.

    Raises:
      InputError: there are none, they are of another catalogue, or not finite.
    """
    path = _file_of(folder, asked_by="method.args.collaborative", expected="the evaluation")
    (vectors,), found = read_matrices(path, "items", remedy=AGAIN)
    if (given := found.get("fingerprint")) != fingerprint:
        raise InputError(
            f"{path} has vectors of data {given}, but this run's data is {fingerprint}; evaluate a collaborative run "
            "on the same data"
        )
    if len(vectors) != n_items or not np.isfinite(vectors).all():
        raise InputError(
            f"{path} has {len(vectors):,} vectors, {int((~np.isfinite(vectors).all(axis=1)).sum()):,} of them not "
            f"finite, for {n_items:,} items; evaluate a collaborative run on the same data"
        )
    return vectors


def _file_of(folder: Path, *, asked_by: str, expected: str) -> Path:
    if not (path := folder / FILE).is_file():
        raise InputError(
            f"config.{asked_by} is {str(folder)!r}, which holds no {FILE}; expected {expected} of a collaborative run: "
            "python -m igd_jax.train --config=configs/sasrec.py ..., then evaluate"
        )
    return path
