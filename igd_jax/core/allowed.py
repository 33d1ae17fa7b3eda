"""What may be recommended: named sets of candidates, and some of them to one user."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

OF_TRAIN_ROWS = ("train", "warm", "cold")
"""Named candidate sets that follow the train rows in use."""
CANDIDATES = ("catalogue", *OF_TRAIN_ROWS)
"""All named candidate sets; any other value is the path of a file."""


@dataclass(frozen=True)
class Allowed:
    """A subset of the candidates, stored as row numbers, as masks of many requests would need much memory.

    Attributes:
      only: catalogue rows that may be recommended; None = all.
      without: catalogue rows that may not be recommended.
    """

    only: Int[np.ndarray, " some"] | None
    without: Int[np.ndarray, " others"]

    def mask(self, is_candidate: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Mask of the candidate rows that may be recommended."""
        mask = is_candidate.copy()
        if self.only is not None:
            mask[:] = False
            mask[self.only] = is_candidate[self.only]
        mask[self.without] = False
        return mask

    def allows(self, rows: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether each of some candidate rows may be recommended."""
        is_left = ~np.isin(rows, self.without)
        return is_left if self.only is None else is_left & np.isin(rows, self.only)
