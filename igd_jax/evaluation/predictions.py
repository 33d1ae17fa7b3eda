"""Evaluations as `evaluate` wrote them into folders, read back for comparison."""

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluation.metrics import row_metrics
from igd_jax.evaluation.user_metrics import user_metrics

FILES = ("metrics.json", "predictions.jsonl")
HITS = {"rows": "hr", "users": "recall"}
"""Protocols of evaluations, and what each calls the share of hits."""
SCRATCH = (".partial", ".old")  # what `core.io.atomic_folder` leaves behind when it is killed


Row: TypeAlias = tuple[dict[str, Any], list[int]]
"""What was asked, and the place of each item of the target in the list; -1 = missed."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, read back.

    Attributes:
      label: short, and unlike those of the others.
      protocol: rows or users; the rest calls its queries rows.
      keys: what each row asked: row number, user and target as they stand in predictions.jsonl.
      by_row: each metric of every row.
      ks: cut-offs of its metrics.json.
      popularity: metrics of the popularity baseline, by name.
      method: a text that evaluations of one method share, whatever their seed.
      seed: `train.seed`; None where the evaluation has no config.json.
    """

    label: str
    protocol: str
    keys: list[dict[str, Any]]
    by_row: dict[str, Float[np.ndarray, "R"]]
    ks: set[int]
    popularity: dict[str, Any]
    method: str
    seed: int | None


def find_evaluations(run: str) -> list[Path]:
    """Folders of evaluations: `run` itself, or those under ``run/eval``.

    Raises:
      InputError: `run` is no folder, or holds no evaluation.
    """
    path = Path(run)
    if not path.is_dir():
        raise InputError(f"{run} is no folder; give a run's folder or one evaluation, RUN/eval/NAME")
    if any((path / name).exists() for name in FILES):
        return [path]
    folders = sorted(f for f in Workdir(run).eval("").glob("*") if f.is_dir() and f.suffix not in SCRATCH)
    if not folders:
        raise InputError(f"{run} holds no evaluation; run python -m igd_jax.evaluate --workdir={run} first")
    return folders


def short_labels(folders: Sequence[Path]) -> list[str]:
    """What tells the folders apart: their paths without the parts that all begin or end with, and without ``eval``.

    ::

        runs/a/eval/test, runs/b/eval/test                 ->  a, b
        runs/a/eval/test, runs/a/eval/alpha=0, runs/b/...  ->  a/test, a/alpha=0, b/test
    """
    paths = [[part for part in Path(os.path.abspath(folder)).parts if part != "eval"] for folder in folders]
    for end in (0, -1):
        while all(len(parts) > 1 for parts in paths) and len({parts[end] for parts in paths}) == 1:
            paths = [parts[1:] if end == 0 else parts[:-1] for parts in paths]
    return ["/".join(parts) for parts in paths]


def method_of(config: Mapping[str, Any]) -> str:
    """A config as text without its seed: neither as `train.seed` nor in a path, as seed=1, seed1, seed-1 or seed_1.

    Where a value was chosen on validation, the way it was chosen stands for it: seeds may choose differently.
    """
    blank = json.loads(json.dumps(config))
    for field in ("train.seed", *([config["chosen"]["field"]] if "chosen" in config else [])):
        *sections, last = field.split(".")
        reduce(dict.__getitem__, sections, blank)[last] = None
    text = json.dumps(blank, sort_keys=True)
    return re.sub(rf"(seed[=_-]?){config['train']['seed']}(?!\d)", r"\1*", text)


def _read_rows(path: Path) -> Iterator[Row]:
    """The lines of a predictions.jsonl."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                place: dict[str, int] = {}
                for rank, result in enumerate(entry["ranked"]):
                    place |= {item: rank for item in result["items"] if item not in place}
                key = {name: entry[name] for name in ("row", "user", "target")}
                ranks = [place.get(item, -1) for item in entry["target"]["items"]]
                if len(ranks) != len(entry["target"]["warm"]) or not ranks:
                    raise ValueError("a target needs items, and for each whether it is warm")
                yield key, ranks
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path} line {number} is no prediction ({error!r}); run evaluate again") from None


def _metrics(rows: Sequence[Row], protocol: str, ks: Iterable[int]) -> dict[str, Float[np.ndarray, "R"]]:
    """Every metric of every row."""
    rank, row = (np.array(x) for x in zip(*((r, q) for q, (_, ranks) in enumerate(rows) for r in ranks), strict=True))
    return row_metrics(rank, sorted(ks)) if protocol == "rows" else user_metrics(rank, row, sorted(ks))


def only(rows: Sequence[Row], group: str) -> list[Row]:
    """Rows with those of their targets alone that are ``warm``, or ``cold``; without rows that have none."""
    kept = []
    for key, ranks in rows:
        wanted = [warm == (group == "warm") for warm in key["target"]["warm"]]
        if any(wanted):
            kept.append((key, list(itertools.compress(ranks, wanted))))
    return kept


def read_evaluation(label: str, folder: Path, *, group: str = "") -> Evaluation:
    """Read one evaluation; metrics are recomputed from its predictions and must agree with its metrics.json.

    Args:
      group: ``warm`` or ``cold``: only targets whose titles training saw, or not; empty = all.

    Raises:
      InputError: a file is missing or malformed, the two files are not of one evaluation, or no target is in the group.
    """
    metrics_path, predictions_path = (folder / name for name in FILES)
    for path in (metrics_path, predictions_path):
        if not path.exists():
            raise InputError(f"{path} does not exist; finish this evaluation, or name others as RUN/eval/NAME")
    metrics = read_json(metrics_path)
    if not isinstance(metrics, dict):
        raise InputError(f"{metrics_path} holds no metrics by name; run evaluate again")
    if (protocol := metrics.get("protocol", "rows")) not in HITS:
        raise InputError(f"{metrics_path} tells of the protocol {protocol!r}, which is not known; run evaluate again")
    ks = {int(name.split("@")[1]) for name in metrics if re.fullmatch(rf"{HITS[protocol]}@\d+", name)}
    rows = list(_read_rows(predictions_path))
    if not rows:
        raise InputError(f"{predictions_path} has no rows; run python -m igd_jax.evaluate again")
    by_row = _metrics(rows, protocol, ks)
    means = {name: float(values.mean()) for name, values in by_row.items()}
    for name, value in {"n": len(rows), **means}.items():
        told = metrics.get(name)
        if not isinstance(told, int | float) or not math.isclose(told, value, rel_tol=0, abs_tol=1e-6):
            raise InputError(f"{predictions_path} gives {name} {value}, {metrics_path} {told}; run evaluate again")
    if group:
        if not (rows := only(rows, group)):
            raise InputError(f"{predictions_path} has no target that is {group}; compare all, without --targets")
        by_row = _metrics(rows, protocol, ks)
    popularity = {} if group else metrics.get("popularity_baseline", {})
    keys, method, seed = [key for key, _ in rows], str(folder), None
    if (folder / "config.json").exists():
        config = read_json(folder / "config.json")
        method, seed = method_of(config), config["train"]["seed"]
    return Evaluation(label, protocol, keys, by_row, ks, popularity, method, seed)


def check_same_rows(evaluations: Sequence[Evaluation]) -> None:
    """Raise `InputError` naming the first place where an evaluation asked something else than the first one did."""
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.protocol != first.protocol:
            raise InputError(
                f"{first.label} was evaluated by {first.protocol}, {other.label} by {other.protocol}; compare "
                "evaluations of the same eval.protocol"
            )
        if len(other.keys) != len(first.keys):
            raise InputError(
                f"{first.label} has {len(first.keys):,} rows, {other.label} {len(other.keys):,}; "
                "compare evaluations of the same split and eval.max_examples"
            )
        for line, (a, b) in enumerate(zip(first.keys, other.keys, strict=True), start=1):
            for name in a:
                if a[name] != b[name]:
                    raise InputError(
                        f"predictions.jsonl line {line}: {name} is {json.dumps(a[name], ensure_ascii=False)} in "
                        f"{first.label}, {json.dumps(b[name], ensure_ascii=False)} in {other.label}; "
                        "compare evaluations of the same data and split"
                    )
