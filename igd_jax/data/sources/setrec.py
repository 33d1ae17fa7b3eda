"""Splits as published by SETRec: for each user the items of train, valid and test, in their order and without times.

The published files ``training_dict.npy``, ``validation_dict.npy`` and ``testing_dict.npy`` are pickles, which can run
any code when they are read, and so are never read here. What is read is the same as JSON (docs/data.md, Sources).
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from igd_jax.core.errors import InputError
from igd_jax.core.io import read_json
from igd_jax.core.shown import shown
from igd_jax.data.assembling import NO_TIMES, TIMES, assemble
from igd_jax.data.event_log import RowLog
from igd_jax.data.prepared import SPLITS, Prepared
from igd_jax.data.source_io import is_writable, reading

FILES = {"train": "training_dict", "valid": "validation_dict", "test": "testing_dict"}
TITLES = "titles.json"
LAST = 50
"""Number of a user's last items of train that are targets and history of train rows, as published."""
_FEWEST_SEEN = 0.1
CONVERT = (
    'python -c "import json, numpy as np; [json.dump({int(u): [int(i) for i in items] for u, items in '
    "np.load(f'{name}.npy', allow_pickle=True).item().items()}, open(f'{name}.json', 'w')) for name in "
    "('training_dict', 'validation_dict', 'testing_dict')]\""
)
"""Command that turns the published files into those that are read."""


def read(path: Path) -> Prepared:
    """Read a folder with ``training_dict.json``, ``validation_dict.json``, ``testing_dict.json``: user -> items.

    Items are numbers from 0, the rows of the published vectors and features. ``titles.json``, a list in that order, is
    optional. Rows are the published ones: of train, every prefix of a user's last 50 items, the empty one included, if
    train has two of them; of valid and test, each item after all earlier ones, never cut. The splits have times 0, 1
    and 2. All items of train are warm, as published, even those that are in none of its rows.

    Raises:
      InputError: a file is missing, a pickle or malformed, or numbers of items are not rows of a catalogue.
    """
    dicts = {split: _read_dict(path, name) for split, name in FILES.items()}
    users = list(dict.fromkeys(user for items in dicts.values() for user in items))
    every = [item for items in dicts.values() for sequence in items.values() for item in sequence]
    n_items, n_seen = max(every, default=-1) + 1, len(set(every))
    if n_seen < _FEWEST_SEEN * n_items:
        raise InputError(
            f"{path} has items up to {n_items - 1:,}, but only {n_seen:,} different ones; expected the numbers of the "
            "catalogue's rows, from 0"
        )
    dropped: Counter[str] = Counter()
    rows = {split: RowLog() for split in SPLITS}
    for user in users:
        train, valid, test = (dicts[split].get(user, []) for split in SPLITS)
        latest = train[-LAST:]
        dropped[f"before the last {LAST} train events of a user: events"] += len(train) - len(latest)
        if len(latest) < 2:
            dropped["only train event of its user: events"] += len(latest)
        else:
            _add_rows(rows["train"], user, [], latest, time=TIMES["train"])
        whole = train + valid
        for split, known, targets in (("valid", train, valid), ("test", whole, test)):
            skipped = 0 if known else 1  # a row of valid or test has a history
            dropped["first of its user, so without history: events"] += len(targets[:skipped])
            _add_rows(rows[split], user, known + targets[:skipped], targets[skipped:], time=TIMES[split])
    titles, notes = _read_titles(path, n_items)
    splits = {split: rows[split].finish() for split in SPLITS}
    beside = np.zeros(n_items, bool)
    beside[[item for items in dicts["train"].values() for item in items]] = True
    beside &= ~splits["train"].seen(n_items)
    return assemble(
        item_ids=[str(item) for item in range(n_items)],
        titles=titles,
        splits=splits,
        dropped=dict(dropped),
        notes=NO_TIMES | notes,
        seen_beside_rows=beside if beside.any() else None,
    )


def _add_rows(rows: RowLog, user: str, known: list[int], targets: list[int], *, time: int) -> None:
    """A row for each target, with the known items and the targets before it as history."""
    items = known + targets
    for end in range(len(known), len(items)):
        rows.add(user, items[:end], items[end], time)


def _read_dict(folder: Path, name: str) -> dict[str, list[int]]:
    """Items of each user in one split."""
    path, published = folder / f"{name}.json", folder / f"{name}.npy"
    if not path.exists() and published.exists():
        raise InputError(f"{published} is a pickle, which can run code and is never read; convert it: {CONVERT}")
    found = _read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {shown(found)}; expected an object of users and their lists of items")
    if not all(map(is_writable, found)):
        raise InputError(f"{path} has users that no file of text can hold (half a character, as \\ud83d)")
    for user, items in found.items():
        if not isinstance(items, list) or any(type(item) is not int or not 0 <= item < 2**31 for item in items):
            raise InputError(f"{path}, user {shown(user)}: {shown(items)}; expected a list of item numbers from 0")
    return found


def _read_titles(folder: Path, n_items: int) -> tuple[list[str], dict[str, str | int]]:
    """Titles of the items, made up from their numbers where there is no file, and a note about it."""
    path = folder / TITLES
    if not path.exists():
        return [f"item {item}" for item in range(n_items)], {"titles": "none are published; each is the item's number"}
    titles = _read_json(path)
    if not isinstance(titles, list) or len(titles) != n_items or not all(map(is_writable, titles)):
        raise InputError(f"{path} holds {shown(titles)}; expected a list of {n_items:,} texts, one per item")
    return titles, {}


def _read_json(path: Path) -> Any:
    with reading(path):
        return read_json(path)
