"""predictions.jsonl: what was recommended to whom, and what was right. The one owner of this format.

One JSON object per line and query, UTF-8, in the order of the queries; schema 1, keys in this order::

    {"row": 7,                                 number of the row of the split whose history was shown, from 0
     "user": "A1",                             the source's own user id
     "target": {"items": ["B3"],               what was right: one item id per distinct identifier, oldest first
                "title": "Red Fox",            title of the first of them
                "warm": [true]},               for each of them, whether training saw it
     "ranked": [{"items": ["B3", "B9"],        best first: ids of all candidates that the result stands for
                 "title": "Red Fox",           their title
                 "score": -1.25,               final score (natural log, after the length penalty)
                 "tokens": [71, 5, 0]}, ...]}  ids of the identifier, end-of-text included

A target is hit by the first result that lists its item. A result that was cut before its end, or is no item, lists none
and has no title and no tokens. The version of the schema is written beside the file (`evaluation.record`).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from igd_jax.core.errors import InputError
from igd_jax.core.io import atomic_file
from igd_jax.core.shown import shortened

SCHEMA_VERSION = 1
"""Counts up when a reader of an older version would misread the file."""

AGAIN = "run python -m igd_jax.evaluate again"
NOUNS = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}

T = TypeVar("T", int, float, str, bool)


@dataclass(frozen=True)
class Result:
    """One place of a list.

    Attributes:
      items: ids of all candidates that share the identifier; none where it is unfinished.
      title: theirs; empty where there is no item.
      score: final score.
      tokens: ids of the identifier, end-of-text included; none where there is no item.
    """

    items: tuple[str, ...]
    title: str
    score: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """What was right for one query.

    Attributes:
      items: an item id per distinct identifier, at least one, oldest first.
      title: that of the first.
      warm: for each item, whether training saw its identifier.
    """

    items: tuple[str, ...]
    title: str
    warm: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not self.items or len(self.items) != len(self.warm):
            raise ValueError("a target needs items, and for each whether it is warm")


@dataclass(frozen=True)
class Prediction:
    """One query and its list.

    Attributes:
      row: number of the row of the split whose history was shown.
      user: whose row it is.
      target: what was right.
      ranked: results, best first.
    """

    row: int
    user: str
    target: Target
    ranked: tuple[Result, ...]


def as_json(value: Prediction | Target | Sequence[Result] | int | str) -> str:
    """A prediction, or a part of one, as it stands in the file: ``ranked`` for a list of results, and so on."""
    return json.dumps(value, default=vars, ensure_ascii=False)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write the whole file or nothing."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(as_json(prediction) + "\n" for prediction in predictions)


def read_predictions(path: Path) -> Iterator[Prediction]:
    """The lines of a predictions.jsonl, in order.

    Raises:
      InputError: there is no such file, or a line is no prediction.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; {AGAIN}")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                prediction = _prediction(json.loads(line))
            except (RecursionError, ValueError) as error:
                raise InputError(f"{path} line {number} is no prediction ({error}); {AGAIN}") from None
            yield prediction


def check_version(version: int, *, source: Path) -> None:
    """Raise `InputError` where predictions, by what `source` says of them, have a schema newer than this one."""
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{source} says that predictions.jsonl has schema {version}, but this igd_jax reads up to "
            f"{SCHEMA_VERSION}; read it with the igd_jax that wrote it, or a newer one"
        )


def _prediction(value: Any) -> Prediction:
    entry = _object(value, Prediction, "the line")
    target, ranked = _object(entry["target"], Target, "target"), entry["ranked"]
    if not isinstance(ranked, list):
        raise ValueError(f"ranked is {_shown(ranked)}; expected a list")
    return Prediction(
        row=_one(entry["row"], int, "row"),
        user=_one(entry["user"], str, "user"),
        target=Target(
            items=_list(target["items"], str, "target.items"),
            title=_one(target["title"], str, "target.title"),
            warm=_list(target["warm"], bool, "target.warm"),
        ),
        ranked=tuple(_result(each, f"ranked[{place}]") for place, each in enumerate(ranked)),
    )


def _result(value: Any, name: str) -> Result:
    result = _object(value, Result, name)
    return Result(
        items=_list(result["items"], str, f"{name}.items"),
        title=_one(result["title"], str, f"{name}.title"),
        score=_one(result["score"], float, f"{name}.score"),
        tokens=_list(result["tokens"], int, f"{name}.tokens"),
    )


def is_finite(value: Any) -> bool:
    """Whether a value from JSON is a number, of at most the size up to which floats have all whole numbers."""
    return type(value) in (int, float) and abs(value) <= 2**53


def _object(value: Any, kind: type, name: str) -> dict[str, Any]:
    """A JSON object that has the fields of this dataclass and no others."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_shown(value)}; expected an object")
    expected = [each.name for each in fields(kind)]
    for key in expected:
        if key not in value:
            raise ValueError(f"{name} has no {key!r}")
    if unknown := value.keys() - set(expected):
        raise ValueError(f"{name} has {min(unknown)!r}; expected only {', '.join(expected)}")
    return value


def _one(value: Any, kind: type[T], name: str) -> T:
    """A value of one of `NOUNS`; whole numbers are numbers, too."""
    if not (is_finite(value) if kind is float else type(value) is kind):
        raise ValueError(f"{name} is {_shown(value)}; expected {NOUNS[kind]}")
    return kind(value)


def _list(value: Any, kind: type[T], name: str) -> tuple[T, ...]:
    if not isinstance(value, list) or not all(type(each) is kind for each in value):
        raise ValueError(f"{name} is {_shown(value)}; expected a list, each {NOUNS[kind]}")
    return tuple(value)


def _shown(value: Any) -> str:
    """JSON of a value, as a message repeats it."""
    return shortened(json.dumps(value, ensure_ascii=False))
