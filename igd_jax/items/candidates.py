"""Which items may be recommended."""

import codecs
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.errors import InputError
from igd_jax.core.io import local_path

CANDIDATES = ("catalogue", "train", "warm", "cold")
"""Named candidate sets; any other value is the path of a file."""


def choose_candidates(
    which: str,
    item_ids: Sequence[str],
    titles: Sequence[str],
    *,
    counts: Int[np.ndarray, " items"],
    seen: Bool[np.ndarray, " items"],
    option: str,
) -> Bool[np.ndarray, " items"]:
    """Mask of the items that may be recommended. The named sets treat items that share a title alike.

    Args:
      which: ``catalogue`` (all items, as in D3), ``train`` (titles that are train targets, as in the published IGD),
        ``warm`` (titles seen in training, as in SETRec), ``cold`` (all other titles), or the path of a text file with
        one item id per line.
      item_ids, titles: id and title of each item.
      counts: train targets per item.
      seen: items seen in training, as a target or in a history.
      option: name of the option that holds `which`, for error messages.

    Raises:
      InputError: the file is missing, no text, or names an item that is not in the data.
    """
    if which == "catalogue":
        return np.ones(len(item_ids), bool)
    if which in ("train", "warm", "cold"):
        members = counts > 0 if which == "train" else seen
        named = {title for title, is_member in zip(titles, members, strict=True) if is_member}
        return np.fromiter(((title in named) == (which != "cold") for title in titles), bool, len(titles))
    path = local_path(which, option=option)
    if not path.is_file():
        raise InputError(
            f"{option} is {which!r}; expected 'catalogue', 'train', 'warm', 'cold' or a file with one item id per line"
        )
    wanted = {line.strip() for line in _read(path, option).splitlines() if line.strip()}
    unknown = sorted(wanted.difference(item_ids))
    if unknown:
        raise InputError(
            f"{path} ({option}) names {len(unknown)} item ids that the data does not have, such as {unknown[0]!r}; "
            "take them out of the file"
        )
    return np.fromiter((item in wanted for item in item_ids), bool, len(item_ids))


def _read(path: Path, option: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it begins with the mark that editors write for it."""
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} ({option}) is no UTF-8 text ({error.reason} at byte {error.start:,}); save it as UTF-8"
        ) from None
