"""Compare evaluations that answered the same rows: one table, with a paired bootstrap interval for each difference.

    python -m igd_jax.compare RUN_A RUN_B [RUN_C ...] [--json]

Each RUN is a run's folder, whose evaluations all take part, or the folder of one evaluation, RUN/eval/NAME. The first
one is what the others are compared with.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Int

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.core.log import say
from igd_jax.evaluation.ranking import row_metrics
from igd_jax.evaluation.significance import paired_bootstrap
from igd_jax.evaluation.tables import comparison_table

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
FILES = ("metrics.json", "predictions.jsonl")
SCRATCH = (".partial", ".old")  # what `core.io.atomic_folder` leaves behind when it is killed


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, read back.

    Attributes:
      label: its column in the table.
      keys: what each row asked: row number, user and target as they stand in predictions.jsonl.
      rank: place of the first result that lists an item of the target, from 0; -1 where none does.
      ks: cut-offs of its metrics.json.
    """

    label: str
    keys: list[dict[str, Any]]
    rank: Int[np.ndarray, "R"]
    ks: set[int]


def find_evaluations(run: str) -> dict[str, Path]:
    """Folders of evaluations by label: `run` itself, or those under ``run/eval`` (RUN:NAME where there are several).

    Raises:
      InputError: `run` is no folder, or holds no evaluation.
    """
    path = Path(run)
    if not path.is_dir():
        raise InputError(f"{run} is no folder; give a run's folder or one evaluation, RUN/eval/NAME")
    label = run.rstrip("/")
    if any((path / name).exists() for name in FILES):
        return {label: path}
    folders = sorted(f for f in Workdir(run).eval("").glob("*") if f.is_dir() and f.suffix not in SCRATCH)
    if not folders:
        raise InputError(f"{run} holds no evaluation; run python -m igd_jax.evaluate --workdir={run} first")
    return {f"{label}:{folder.name}" if len(folders) > 1 else label: folder for folder in folders}


def _read_rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Key and rank of each line of a predictions.jsonl."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                wanted = set(entry["target"]["items"])
                hits = (place for place, result in enumerate(entry["ranked"]) if wanted.intersection(result["items"]))
                yield {name: entry[name] for name in ("row", "user", "target")}, next(hits, -1)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path} line {number} is no prediction ({error!r}); run evaluate again") from None


def read_evaluation(label: str, folder: Path) -> Evaluation:
    """Read one evaluation; metrics are recomputed from its predictions and must agree with its metrics.json.

    Raises:
      InputError: a file is missing or malformed, or the two files are not of one evaluation.
    """
    metrics_path, predictions_path = (folder / name for name in FILES)
    for path in (metrics_path, predictions_path):
        if not path.exists():
            raise InputError(f"{path} does not exist; finish this evaluation, or name others as RUN/eval/NAME")
    metrics = read_json(metrics_path)
    if not isinstance(metrics, dict):
        raise InputError(f"{metrics_path} holds no metrics by name; run evaluate again")
    ks = {int(name[3:]) for name in metrics if re.fullmatch(r"hr@\d+", name)}
    rows = list(_read_rows(predictions_path))
    if not rows:
        raise InputError(f"{predictions_path} has no rows; run python -m igd_jax.evaluate again")
    rank = np.array([rank for _, rank in rows])
    recomputed = {name: float(values.mean()) for name, values in row_metrics(rank, sorted(ks)).items()}
    for name, value in {"n": len(rows), **recomputed}.items():
        told = metrics.get(name)
        if not isinstance(told, int | float) or not math.isclose(told, value, rel_tol=0, abs_tol=1e-6):
            raise InputError(f"{predictions_path} gives {name} {value}, {metrics_path} {told}; run evaluate again")
    return Evaluation(label, [key for key, _ in rows], rank, ks)


def check_same_rows(evaluations: Sequence[Evaluation]) -> None:
    """Raise `InputError` naming the first place where an evaluation asked something else than the first one did."""
    first = evaluations[0]
    for other in evaluations[1:]:
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


def compare(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """HR and NDCG at every k that all evaluations have, and each one's difference to the first.

    Returns:
      ``n`` rows, ``ks``, ``ks_skipped`` (not in all evaluations), ``confidence``, ``n_resamples``, ``reference`` (label
      of the first) and ``runs``: by label and metric its ``value`` and, but for the first, ``difference``, ``low``,
      ``high`` and ``excludes_zero``.

    Raises:
      InputError: fewer than two evaluations, other rows or targets, or no k in common.
    """
    if len(evaluations) < 2:
        labels = ", ".join(evaluation.label for evaluation in evaluations) or "none"
        raise InputError(f"compare needs two evaluations or more, got {labels}; name another run")
    check_same_rows(evaluations)
    all_ks = [evaluation.ks for evaluation in evaluations]
    ks = sorted(set.intersection(*all_ks))
    if not ks:
        given = "; ".join(f"{e.label}: {sorted(e.ks)}" for e in evaluations)
        raise InputError(f"the evaluations have no k in common ({given}); evaluate again with the same eval.ks")

    names = [f"{metric}@{k}" for metric in ("hr", "ndcg") for k in ks]
    reference, *others = evaluations
    first = row_metrics(reference.rank, ks)
    runs: dict[str, Any] = {reference.label: {name: {"value": float(first[name].mean())} for name in names}}
    for other in others:
        values = row_metrics(other.rank, ks)
        runs[other.label] = {name: _against(first[name], values[name]) for name in names}
    return {
        "n": len(reference.keys),
        "ks": ks,
        "ks_skipped": sorted(set.union(*all_ks) - set(ks)),
        "confidence": CONFIDENCE,
        "n_resamples": N_RESAMPLES,
        "reference": reference.label,
        "runs": runs,
    }


def _against(first: np.ndarray, values: np.ndarray) -> dict[str, float | bool]:
    difference = paired_bootstrap(first, values, n_resamples=N_RESAMPLES, confidence=CONFIDENCE)
    return {
        "value": float(values.mean()),
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "excludes_zero": difference.excludes_zero,
    }


def main(runs: Sequence[str]) -> None:
    """Print the comparison of all evaluations of `runs`, as a table or with ``--json`` as JSON."""
    folders = {label: folder for run in runs for label, folder in find_evaluations(run).items()}
    result = compare([read_evaluation(label, folder) for label, folder in folders.items()])
    if flags.FLAGS.json:
        say(json.dumps(result, indent=2, ensure_ascii=False))
        return
    say(comparison_table(result))


def define_flags() -> None:
    """Define this command's own flags."""
    flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


if __name__ == "__main__":
    define_flags()
    errors.run(main, positional=True)
