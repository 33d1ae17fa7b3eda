"""Splits as published by IGD and D3: csv rows with Python lists, an info file of ``title<TAB>id`` lines.

Items, rows, their order and the splits are kept as published. This includes an item with a blank title, which the
published figures count.
"""

from collections import Counter
from pathlib import Path

from igd_jax.core.errors import InputError
from igd_jax.core.log import say
from igd_jax.core.shown import shown
from igd_jax.data.assembling import assemble
from igd_jax.data.event_log import RowLog
from igd_jax.data.prepared import SPLITS, Prepared, Rows
from igd_jax.data.source_io import csv_rows, parse_seconds, python_literal, text_lines

_COLUMNS = ("user_id", "history_item_title", "item_title", "history_item_id", "item_id", "timestamp")


def read(path: Path) -> Prepared:
    """Read a folder of published splits; every item of the info file is in the catalogue, in its order.

    Files: ``train/*.csv valid/*.csv test/*.csv info/*.txt``, or ``*.train.csv *.valid.csv *.test.csv *.info.txt``.

    Raises:
      InputError: a file is missing or ambiguous, or a line cannot be read; with the line.
    """
    files = {name: _find(path, name, "txt" if name == "info" else "csv") for name in (*SPLITS, "info")}
    dropped, renamed = Counter[str](), Counter[str]()
    title_of = _read_info(files["info"], dropped)
    splits = {}
    for split in SPLITS:
        splits[split] = _read_rows(files[split], title_of=title_of, dropped=dropped, renamed=renamed)
        say(f"{files[split].name}: {len(splits[split]):,} rows")
    titles = list(title_of.values())
    return assemble(item_ids=list(title_of), titles=titles, splits=splits, dropped=dict(dropped), notes={**renamed})


def _find(folder: Path, name: str, ending: str) -> Path:
    found = sorted([*folder.glob(f"{name}/*.{ending}"), *folder.glob(f"*.{name}.{ending}")])
    if len(found) != 1:
        names = f" ({found[0].name}, {found[1].name} ...)" if found else ""
        raise InputError(
            f"{folder} has {len(found)} files like {name}/*.{ending} or *.{name}.{ending}{names}; expected exactly one"
        )
    return found[0]


def _read_info(path: Path, dropped: Counter[str]) -> dict[str, str]:
    """Titles by item id, in file order. The id follows the last tab; a title may contain tabs."""
    title_of: dict[str, str] = {}
    for line, text in enumerate(text_lines(path, newline="\n"), start=1):
        title, tab, item = text.rstrip("\r\n").rpartition("\t")
        if not tab or not item.strip():
            raise InputError(f"{path} line {line}: expected a title, a tab and an id, got {shown(text.rstrip())}")
        if title_of.setdefault(item.strip(), title) != title:
            dropped["title other than the item's first in the info file: lines"] += 1
    if not title_of:
        raise InputError(f"{path} is empty; it lists the catalogue as title, tab, id")
    return title_of


def _read_rows(path: Path, *, title_of: dict[str, str], dropped: Counter[str], renamed: Counter[str]) -> Rows:
    """The rows that have a history. Titles come from the info file, and rows that disagree are counted in `renamed`."""
    code_of = {item: code for code, item in enumerate(title_of)}
    rows = RowLog()
    for line, (user, past_titles, title, past, item, when) in csv_rows(path, _COLUMNS):
        if not user.strip():
            raise InputError(f"{path} line {line}: user_id is empty; fill it or remove the row")
        try:
            items = [str(past_item) for past_item in _python_list(past)] + [item]
            titles = [*_python_list(past_titles), title]
            codes = [code_of[each] for each in items]
            if titles != [title_of[each] for each in items]:
                renamed["rows with other titles than in the info file, whose titles count"] += 1
            seconds = parse_seconds(when)
        except KeyError as error:
            raise InputError(f"{path} line {line}: item {shown(error.args[0])} is not in the info file") from None
        except ValueError as error:
            raise InputError(f"{path} line {line}: {error}") from None
        if len(codes) == 1:
            dropped["no history: rows"] += 1
            continue
        rows.add(user, codes[:-1], codes[-1], seconds)
    return rows.finish()


def _python_list(text: str) -> list:
    """Parse a list written as a Python literal; raises `ValueError` if it is none."""
    if (value := python_literal(text, list)) is None:
        raise ValueError(f"expected a list such as [12, 7], got {shown(text)}")
    return value
