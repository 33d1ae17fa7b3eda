"""Sequences and codes as LC-Rec and LETTER publish them: the items of each user in order, and the code of each item."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.io import read_json
from igd_jax.core.shown import shown
from igd_jax.data.assembling import NO_TIMES, TIMES, assemble
from igd_jax.data.event_log import RowLog, align_texts
from igd_jax.data.prepared import SPLITS, Prepared, parts_of_code
from igd_jax.data.source_io import is_writable, reading

FIELDS = {"title": "title", "description": "description", "brand": "brand", "categories": "category"}
"""Texts of an item that are read, and what they are called here."""


def read(path: Path, *, max_history: int = 20) -> Prepared:
    """Read a folder with ``*.inter.json``, user -> items, and ``*.index.json``, item -> code, a list of its parts.

    ``*.item.json``, item -> texts by name (`FIELDS`), is optional, and either of the last two may be missing. Rows are
    the published ones: of each user the last item is for test, the one before for valid, and the others for train, each
    after at least one of them. Items of the catalogue are all that the files of items have, in their order. The splits
    have times 0, 1 and 2, as none are published.

    Args:
      max_history: most items of history per row; published: 20.

    Raises:
      InputError: a file is missing, ambiguous or malformed, or an item of a user is in no file of items.
    """
    users = _read_object(path, "inter")
    codes, items = _read_object(path, "index", is_optional=True), _read_object(path, "item", is_optional=True)
    item_ids = [*dict.fromkeys([*codes, *items])]
    if not item_ids:
        raise InputError(f"{path} has neither *.index.json nor *.item.json with items; expected at least one of them")
    texts = {name: _texts(path, items, theirs) for theirs, name in FIELDS.items()} | {"code": _codes(path, codes)}
    titles = {item: title for item, title in texts.pop("title").items() if title.strip()}
    number_of = {item: number for number, item in enumerate(item_ids)}
    rows, dropped = {split: RowLog() for split in SPLITS}, Counter[str]()
    for user, sequence in users.items():
        numbers = _numbers(path, user, sequence, number_of)
        dropped["first of its user, so without history: events"] += bool(numbers)
        for end in range(1, len(numbers)):
            split = SPLITS[max(end - len(numbers) + 3, 0)]  # test for the last item
            dropped[f"history cut to the last {max_history}: rows"] += end > max_history
            rows[split].add(user, numbers[max(end - max_history, 0) : end], numbers[end], TIMES[split])
    untitled = len(item_ids) - len(titles)
    return assemble(
        item_ids=item_ids,
        titles=[titles.get(item, f"item {item}") for item in item_ids],
        texts=align_texts(texts, item_ids),
        splits={split: rows[split].finish() for split in SPLITS},
        dropped=dict(dropped),
        notes=NO_TIMES | ({"items without a title, called by their ids": untitled} if untitled else {}),
    )


def _read_object(folder: Path, name: str, *, is_optional: bool = False) -> dict[str, Any]:
    """The object in the one file ``*.NAME.json``; empty if it is optional and missing."""
    found = sorted(folder.glob(f"*.{name}.json"))
    if is_optional and not found:
        return {}
    if len(found) != 1:
        raise InputError(f"{folder} has {len(found)} files like *.{name}.json; expected exactly one")
    with reading(found[0]):
        content = read_json(found[0])
    if not isinstance(content, dict) or not all(map(is_writable, content)):
        raise InputError(f"{found[0]} holds {shown(content)}; expected an object whose names are ids")
    return content


def _numbers(folder: Path, user: str, sequence: Any, number_of: Mapping[str, int]) -> list[int]:
    """Catalogue indices of the items of a user."""
    if not isinstance(sequence, list):
        raise InputError(f"*.inter.json in {folder}, user {shown(user)}: {shown(sequence)}; expected a list of items")
    try:
        return [number_of[str(item)] for item in sequence]
    except KeyError as error:
        raise InputError(
            f"*.inter.json in {folder}, user {shown(user)}: item {shown(error.args[0])} is in no file of items"
        ) from None


def _texts(folder: Path, items: Mapping[str, Any], name: str) -> dict[str, str]:
    """One text of each item that has it."""
    texts: dict[str, Any] = {
        item: words.get(name, "") if isinstance(words, dict) else None for item, words in items.items()
    }
    if wrong := [item for item, text in texts.items() if not is_writable(text)]:
        raise InputError(
            f"*.item.json in {folder}, item {shown(wrong[0])}: {shown(items[wrong[0]])}; expected an object whose "
            f"{name} is a text"
        )
    return texts


def _is_part(part: Any) -> bool:
    return is_writable(part) and parts_of_code(part) == [part]


def _codes(folder: Path, codes: Mapping[str, Any]) -> dict[str, str]:
    """Parts of each code, joined by spaces."""
    for item, parts in codes.items():
        if not isinstance(parts, list) or not parts or not all(map(_is_part, parts)):
            raise InputError(
                f"*.index.json in {folder}, item {shown(item)}: {shown(parts)}; expected a list of texts without "
                'blanks and commas, such as ["<a_12>", "<b_7>"]'
            )
    return {item: " ".join(parts) for item, parts in codes.items()}
