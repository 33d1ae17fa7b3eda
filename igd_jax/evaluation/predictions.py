"""predictions.jsonl: recommendations and targets of an evaluation. The format is defined here only.

One JSON object per line and query, UTF-8, in the order of the queries; schema 1, keys in this order::

    {"row": 7,                                 number of the row whose history was shown, among the split's in use
     "user": "A1",                             user id of the source
     "target": {"items": ["B3"],               target: one item id per distinct identifier, oldest first
                "title": "Red Fox",            title of the first item taken, whichever item of its row is named
                "warm": [true]},               for each of them, whether training saw it
     "ranked": [{"items": ["B3", "B9"],        results, best first: ids of all candidates with this identifier
                 "title": "Red Fox",           their title
                 "score": -1.25,               final score (natural log, after the length penalty)
                 "tokens": [71, 5, 0]}, ...]}  ids of the identifier, end-of-text included

A target is hit by the first result that lists its item. A result that was cut before its end, or is not an item, lists
none and has no title and no tokens. The version of the schema is in the env.json of the folder (`evaluation.record`).
"""

import json
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from igd_jax.core.errors import InputError
from igd_jax.core.io import atomic_file
from igd_jax.core.shown import shortened

SCHEMA_VERSION = 1
"""Version of the format; incremented if older readers would misread the file."""

AGAIN = "run python -m igd_jax.evaluate again"
NOUNS = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}

T = TypeVar("T", int, float, str, bool)


@dataclass(frozen=True)
class Result:
    """One entry of a list.

    Attributes:
      items: ids of all candidates that share the identifier; empty if it is unfinished.
      title: title of the items; empty if there are none.
      score: final score.
      tokens: ids of the identifier, end-of-text included; empty if there are no items.
    """

    items: tuple[str, ...]
    title: str
    score: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """Target of one query.

    Attributes:
      items: one item id per distinct identifier, at least one, oldest first.
      title: title of the first item that was taken, whichever of the items with its identifier is named.
      warm: whether the identifier of each item was seen in training.
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
      user: user of the row.
      target: target of the query.
      ranked: results, best first.
    """

    row: int
    user: str
    target: Target
    ranked: tuple[Result, ...]


FIELDS: dict[type, KeysView[str]] = {
    kind: dict.fromkeys(each.name for each in fields(kind)).keys() for kind in (Prediction, Target, Result)
}
"""Names of the fields of each, in order; looked up once, as a file has millions of objects."""


def as_json(value: Prediction | Mapping[str, Any] | Sequence[Result] | int | str) -> str:
    """JSON of a prediction or of a part of one, as in the file."""
    return json.dumps(value, default=vars, ensure_ascii=False)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a predictions.jsonl atomically."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(as_json(prediction) + "\n" for prediction in predictions)


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Read the lines of a predictions.jsonl, in order.

    Raises:
      InputError: there is no such file, or a line is not a prediction.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; {AGAIN}")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                prediction = _prediction(json.loads(line))
            except (RecursionError, ValueError) as error:
                raise InputError(f"{path} line {number} is not a prediction ({error}); {AGAIN}") from None
            yield prediction


def check_version(version: int, *, source: Path) -> None:
    """Raise `InputError` if the schema version of predictions, as read from `source`, is newer than ours."""
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
    """Whether a JSON value is a number of at most 2^53, up to which floats represent all whole numbers."""
    return type(value) in (int, float) and abs(value) <= 2**53


def _object(value: Any, kind: type, name: str) -> dict[str, Any]:
    """Check that a JSON value is an object with exactly the fields of a dataclass."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_shown(value)}; expected an object")
    if value.keys() != (expected := FIELDS[kind]):
        for key in expected:
            if key not in value:
                raise ValueError(f"{name} has no {key!r}")
        raise ValueError(f"{name} has {min(value.keys() - expected)!r}; expected only {', '.join(expected)}")
    return value


def _one(value: Any, kind: type[T], name: str) -> T:
    """Check the type of a JSON value, one of `NOUNS`; whole numbers are accepted as numbers."""
    if not (is_finite(value) if kind is float else type(value) is kind):
        raise ValueError(f"{name} is {_shown(value)}; expected {NOUNS[kind]}")
    return kind(value)


def _list(value: Any, kind: type[T], name: str) -> tuple[T, ...]:
    if not isinstance(value, list) or not set(map(type, value)) <= {kind}:
        raise ValueError(f"{name} is {_shown(value)}; expected a list, each {NOUNS[kind]}")
    return tuple(value)


def _shown(value: Any) -> str:
    """JSON of a value for a message."""
    return shortened(json.dumps(value, ensure_ascii=False))
