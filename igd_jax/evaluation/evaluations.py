"""Reads the folders that `evaluate` writes, for comparison."""

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, is_leftover, local_path, read_json
from igd_jax.core.log import say_once
from igd_jax.evaluation.choice import CHOSEN_ON
from igd_jax.evaluation.origin import Origin, read_origin
from igd_jax.evaluation.predictions import AGAIN, Prediction, Target, as_json, is_finite, read_predictions
from igd_jax.evaluation.queries import PROTOCOLS
from igd_jax.evaluation.record import EvaluationRecord, read_record
from igd_jax.evaluation.user_metrics import query_metrics

METRICS, PREDICTIONS, RECORD, CONFIG = "metrics.json", "predictions.jsonl", "env.json", "config.json"
"""Names of the files in an evaluation's folder."""


@dataclass(frozen=True)
class Answer:
    """One query, and the ranks of its target in its list.

    Attributes:
      row, user, target: as in predictions.jsonl.
      ranks: rank of each item of the target, from 0; -1 = missed.
    """

    row: int
    user: str
    target: Target
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, read back.

    Attributes:
      label: short name, unique among the evaluations.
      protocol: rows or users; "row" stands for a query of either below.
      answers: answer for each row.
      by_row: value of each metric for every row.
      ks: cut-offs of its metrics.json.
      popularity: metrics of the popularity baseline, by name.
      origin: what its config.json tells.
      record: record of code, machine and checkpoint.
      candidates: name or file of its candidates, and what further restricts them; None = not told.
      run: folder of its run; its own folder if it lies in none.
    """

    label: str
    protocol: str
    answers: list[Answer]
    by_row: dict[str, Float[np.ndarray, " R"]]
    ks: set[int]
    popularity: dict[str, Any]
    origin: Origin
    record: EvaluationRecord
    candidates: str | None
    run: Path


def find_evaluations(run: str) -> list[Path]:
    """Folders of evaluations: `run` itself, or those under ``run/eval``.

    Raises:
      InputError: `run` is not a folder, or holds no evaluation.
    """
    path = local_path(run, option="RUN")
    if not path.is_dir():
        raise InputError(f"{run} is not a folder; give a run's folder or one evaluation, RUN/eval/NAME")
    if any((path / name).exists() for name in (METRICS, PREDICTIONS)):
        return [path]
    folders = sorted(f for f in Workdir(run).evaluations.glob("*") if f.is_dir() and not is_leftover(f))
    if not folders:
        raise InputError(f"{run} holds no evaluation; run python -m igd_jax.evaluate --workdir={run} first")
    return folders


def find_all_evaluations(path: str) -> list[Path]:
    """As `find_evaluations`; of the folder of a sweep, those of all its runs, on valid only if there are no others.

    Raises:
      InputError: as there.
    """
    folder = local_path(path, option="RUN")
    if any((folder / name).exists() for name in (CONFIG, METRICS, PREDICTIONS)):
        return find_evaluations(path)
    found = [one for run in sorted(folder.glob("*/eval")) for one in find_evaluations(str(run.parent))]
    return [one for one in found if one.name.partition(",")[0] != CHOSEN_ON] or found or find_evaluations(path)


def short_labels(folders: Sequence[Path]) -> list[str]:
    """Labels of folders: their paths without common first and last parts, and without ``eval`` if they then differ.

    ::

        runs/a/eval/test, runs/b/eval/test                 ->  a, b
        runs/a/eval/test, runs/a/eval/alpha=0, runs/b/...  ->  a/test, a/alpha=0, b/test
    """
    whole = [list(Path(os.path.abspath(folder)).parts) for folder in folders]
    labels = _without_common_ends([[part for part in parts if part != "eval"] for parts in whole])
    return labels if len(set(labels)) == len(labels) else _without_common_ends(whole)


def _without_common_ends(paths: list[list[str]]) -> list[str]:
    for end in (0, -1):
        while all(len(parts) > 1 for parts in paths) and len({parts[end] for parts in paths}) == 1:
            paths = [parts[1:] if end == 0 else parts[:-1] for parts in paths]
    return ["/".join(parts) for parts in paths]


def only(answers: Sequence[Answer], group: str) -> list[Answer]:
    """Answers restricted to their ``warm`` or their ``cold`` targets; answers without any are left out."""
    kept = []
    for answer in answers:
        wanted = [warm == (group == "warm") for warm in answer.target.warm]
        if any(wanted):
            kept.append(replace(answer, ranks=tuple(itertools.compress(answer.ranks, wanted))))
    return kept


def read_evaluation(label: str, folder: Path, *, group: str = "") -> Evaluation:
    """Read one evaluation; metrics are recomputed from its predictions and must agree with its metrics.json.

    Args:
      label: name of the evaluation.
      folder: its folder.
      group: ``warm`` or ``cold``, for targets seen in training or not; empty = all.

    Raises:
      InputError: a file is missing or malformed, the files disagree, or no target is in the group.
    """
    metrics_path, predictions_path = folder / METRICS, folder / PREDICTIONS
    for path in (metrics_path, predictions_path):
        if not path.exists():
            raise InputError(f"{path} does not exist; finish this evaluation, or name others as RUN/eval/NAME")
    record = read_record(folder / RECORD)
    metrics = read_json(metrics_path)
    if not isinstance(metrics, dict):
        raise InputError(f"{metrics_path} holds no metrics by name; {AGAIN}")
    protocol = metrics.get("protocol")
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise InputError(f"{metrics_path} tells of the protocol {protocol!r}, which is not known; {AGAIN}")
    ks = {int(name.split("@")[1]) for name in metrics if re.fullmatch(rf"{PROTOCOLS[protocol]}@[1-9]\d{{,8}}", name)}
    answers = [_answer(prediction) for prediction in read_predictions(predictions_path)]
    if not answers:
        raise InputError(f"{predictions_path} has no rows; {AGAIN}")
    by_row = _metrics(answers, protocol, ks)
    means = {name: float(values.mean()) for name, values in by_row.items()}
    for name, value in {"n": len(answers), **means}.items():
        told = metrics.get(name)
        if told is None or not is_finite(told) or not math.isclose(told, value, rel_tol=0, abs_tol=1e-6):
            raise InputError(f"{predictions_path} gives {name} {value}, {metrics_path} {told}; {AGAIN}")
    if group:
        if not (answers := only(answers, group)):
            raise InputError(f"{predictions_path} has no target that is {group}; compare all, without --targets")
        by_row = _metrics(answers, protocol, ks)
    popularity = {} if group else metrics.get("popularity_baseline", {})
    if not isinstance(popularity, dict) or not all(map(is_finite, popularity.values())):
        raise InputError(f"{metrics_path} has no finite numbers as popularity_baseline; {AGAIN}")
    origin = _origin(folder / CONFIG) if (folder / CONFIG).exists() else Origin(method=str(folder))
    candidates = None if (told := metrics.get("candidates")) is None else f"{told}{origin.restricted}"
    whole = Path(os.path.abspath(folder))
    run = whole.parents[1] if whole.parent.name == "eval" else whole
    return Evaluation(label, protocol, answers, by_row, ks, popularity, origin, record, candidates, run)


def _origin(path: Path) -> Origin:
    """Origin by a config.json; a run that `sweep` chose is a chosen one in its later evaluations, too.

    Other evaluations of the run are read for that. What they hold is no fault of this one, so that it is only told.
    """
    folder, of_run = Path(os.path.abspath(path)).parent, set[str]()
    for other in folder.parent.glob(f"*/{CONFIG}") if folder.parent.name == "eval" else ():
        if other.parent == folder or is_leftover(other.parent):
            continue
        try:
            of_run |= {name for name in _read(other, read_origin).chosen if name.startswith("train.")}
        except (InputError, OSError) as error:
            say_once(f"note: what a sweep chose is not looked up there: {error}")
    return _read(path, partial(read_origin, of_run=sorted(of_run)))


def _read(path: Path, read: Callable[[Any], Origin]) -> Origin:
    config = read_json(path)
    try:
        return read(config)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a config of an evaluation ({error!r}); {AGAIN}") from None


def _answer(prediction: Prediction) -> Answer:
    place: dict[str, int] = {}
    for rank, result in enumerate(prediction.ranked):
        for item in result.items:
            place.setdefault(item, rank)
    ranks = tuple(place.get(item, -1) for item in prediction.target.items)
    return Answer(prediction.row, prediction.user, prediction.target, ranks)


def _metrics(answers: Sequence[Answer], protocol: str, ks: Iterable[int]) -> dict[str, Float[np.ndarray, " R"]]:
    """Value of each metric for every row."""
    rank = np.array([rank for answer in answers for rank in answer.ranks])
    query = np.repeat(np.arange(len(answers)), [len(answer.ranks) for answer in answers])
    return query_metrics(protocol, rank, query, sorted(ks))


def check_same_rows(evaluations: Sequence[Evaluation]) -> None:
    """Raise `InputError` unless all evaluations have the same queries; it names the first difference."""
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.protocol != first.protocol:
            raise InputError(
                f"{first.label} was evaluated by {first.protocol}, {other.label} by {other.protocol}; compare "
                "evaluations of the same eval.protocol"
            )
        splits = first.origin.split, other.origin.split
        if None not in splits and splits[0] != splits[1]:
            raise InputError(
                f"{first.label} was evaluated on {splits[0]}, {other.label} on {splits[1]}; compare evaluations of the "
                "same split"
            )
        if len(other.answers) != len(first.answers):
            raise InputError(
                f"{first.label} has {len(first.answers):,} rows, {other.label} {len(other.answers):,}; "
                "compare evaluations of the same split and eval.max_examples and, with --targets, of runs on the same "
                "train rows"
            )
        for line, (a, b) in enumerate(zip(first.answers, other.answers, strict=True), start=1):
            for name in ("row", "user", "target"):
                ours, theirs = getattr(a, name), getattr(b, name)
                if name == "target":  # which of its items are named, and warm, depends on candidates and train rows
                    ours, theirs = ours.title, theirs.title
                if ours != theirs:
                    raise InputError(
                        f"predictions.jsonl line {line}: {name} is {as_json(ours)} in {first.label}, {as_json(theirs)} "
                        f"in {other.label}; compare evaluations of the same data and split"
                    )
            if _counted(a) != _counted(b):
                raise InputError(
                    f"predictions.jsonl line {line}: {len(a.ranks)} of {len(a.target.items)} targets count in "
                    f"{first.label}, {len(b.ranks)} of {len(b.target.items)} in {other.label}, or other ones; compare "
                    "evaluations of the same data and, with --targets, of runs on the same train rows"
                )


def _counted(answer: Answer) -> tuple[bool, ...]:
    """Which targets of a query count: those that are warm, or cold, once `only` has chosen, and else all."""
    warm = answer.target.warm
    if len(answer.ranks) == len(warm):
        return (True,) * len(warm)
    return warm if sum(warm) == len(answer.ranks) else tuple(not each for each in warm)
