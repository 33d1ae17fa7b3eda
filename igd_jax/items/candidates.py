"""Which items may be recommended."""

import codecs
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from igd_jax.core.allowed import CANDIDATES
from igd_jax.core.errors import InputError
from igd_jax.core.io import local_path


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

    A blank title recommends nothing, yet its newline is a likely first token after some prompts, so it would lead their
    lists. It is a candidate only where that is published, or asked for.

    Args:
      which: ``catalogue`` (all items with a title), ``train`` (titles that are train targets, a blank one too, as in
        the published IGD), ``warm`` (titles seen in training, as in SETRec), ``cold`` (all other titles), or the path
        of a text file with one item id per line.
      item_ids, titles: id and title of each item.
      counts: train targets per item.
      seen: items seen in training, as a target or in a history.
      option: name of the option that holds `which`, for error messages.

    Raises:
      InputError: the file is missing, no text, or names an item that is not in the data.
    """
    if which in CANDIDATES:
        members = counts > 0 if which == "train" else seen
        named = {title for title, is_member in zip(titles, members, strict=True) if is_member}
        is_named = np.fromiter((title in named for title in titles), bool, len(titles))
        has_title = np.fromiter((bool(title.strip()) for title in titles), bool, len(titles))
        warm, cold = has_title & is_named, has_title & ~is_named
        return {"catalogue": has_title, "train": is_named, "warm": warm, "cold": cold}[which]
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
