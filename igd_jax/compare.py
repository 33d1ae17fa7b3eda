"""Compare evaluations that answered the same rows: one table, with a bootstrap interval for each difference.

    python -m igd_jax.compare RUN_A RUN_B [RUN_C ...] [--json]

Each RUN is a run's folder, whose evaluations all take part, or the folder of one evaluation, RUN/eval/NAME. Evaluations
whose configs differ by train.seed alone are one method: its metrics are means over the seeds, row by row. The first
method is what the others are compared with; a difference counts once it holds against the number of comparisons, see
`evaluation.significance`.
"""

import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
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
from igd_jax.evaluation.significance import adjusted_p, interval, resampled_means
from igd_jax.evaluation.tables import comparison_table

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
FILES = ("metrics.json", "predictions.jsonl")
SCRATCH = (".partial", ".old")  # what `core.io.atomic_folder` leaves behind when it is killed


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, read back.

    Attributes:
      label: short, and unlike those of the others.
      keys: what each row asked: row number, user and target as they stand in predictions.jsonl.
      rank: place of the first result that lists an item of the target, from 0; -1 where none does.
      ks: cut-offs of its metrics.json.
      popularity: metrics of the popularity baseline, by name.
      method: a text that evaluations of one method share, whatever their seed.
      seed: `train.seed`; None where the evaluation has no config.json.
    """

    label: str
    keys: list[dict[str, Any]]
    rank: Int[np.ndarray, "R"]
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
    if (protocol := metrics.get("protocol", "rows")) != "rows":
        raise InputError(
            f"{folder} was evaluated by the protocol {protocol}, but compare reads evaluations by rows only; evaluate "
            "again with --config.eval.protocol=rows, or name others as RUN/eval/NAME"
        )
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
    popularity = metrics.get("popularity_baseline", {})
    keys, method, seed = [key for key, _ in rows], str(folder), None
    if (folder / "config.json").exists():
        config = read_json(folder / "config.json")
        method, seed = method_of(config), config["train"]["seed"]
    return Evaluation(label, keys, rank, ks, popularity, method, seed)


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


def by_method(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Evaluations of each method under a label of its own, methods in the order of their first evaluation.

    A seed counts once in a method: the second evaluation with the same config and seed, say by other code, begins
    another method, and so on.
    """
    seen: Counter[tuple[str, int | None]] = Counter()
    methods: dict[tuple[str, int], list[Evaluation]] = {}
    for evaluation in evaluations:
        asked = (evaluation.method, evaluation.seed)
        methods.setdefault((evaluation.method, seen[asked]), []).append(evaluation)
        seen[asked] += 1
    labels = [_common([evaluation.label for evaluation in group]) for group in methods.values()]
    unclear = {label for label in labels if labels.count(label) > 1}
    groups = methods.values()
    return {group[0].label if label in unclear else label: group for label, group in zip(labels, groups, strict=True)}


def _common(labels: Sequence[str]) -> str:
    """What the labels of a method's seeds share, ``seed=*`` of ``seed=1`` and ``seed=2``; the first if nothing."""
    if len(labels) == 1:
        return labels[0]
    digits = "0123456789"
    start = _shared_start(labels).rstrip(digits)
    end = _shared_start([label[len(start) :][::-1] for label in labels])[::-1].lstrip(digits)
    return f"{start}*{end}" if start or end else labels[0]


def _shared_start(texts: Sequence[str]) -> str:
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in same)


def compare(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """HR and NDCG at every k that all evaluations have, and each method's difference to the first.

    Returns:
      ``n`` rows, ``ks``, ``ks_skipped`` (not in all evaluations), ``confidence``, ``n_resamples``, ``reference`` (label
      of the first method), ``n_comparisons`` (pairs of methods times metrics, all of which the correction counts),
      ``evaluations`` (labels by method), ``popularity`` (the baseline of the first evaluation, by metric), ``winner``
      (by metric: the best method if it beats the second best after correction, else None) and ``runs``: by method and
      metric its ``value``; ``spread``, the standard deviation over seeds, where it has several; and, but for the
      first, ``difference``, ``low``, ``high``, ``excludes_zero``, ``p`` and ``significant``. ``low`` and ``high`` bound
      this one difference; ``p`` and ``significant`` are corrected.

    Raises:
      InputError: no evaluation, other rows or targets, or no k in common.
    """
    if not evaluations:
        raise InputError("there is no evaluation to compare")
    check_same_rows(evaluations)
    all_ks = [evaluation.ks for evaluation in evaluations]
    ks = sorted(set.intersection(*all_ks))
    if not ks:
        given = "; ".join(f"{e.label}: {sorted(e.ks)}" for e in evaluations)
        raise InputError(f"the evaluations have no k in common ({given}); evaluate again with the same eval.ks")
    names = [f"{metric}@{k}" for metric in ("hr", "ndcg") for k in ks]
    methods = by_method(evaluations)
    pairs = [(a, b, m) for a, b in itertools.combinations(range(len(methods)), 2) for m in range(len(names))]
    runs, winner = _runs(methods, names, ks, pairs)
    first = evaluations[0]
    return {
        "n": len(first.keys),
        "ks": ks,
        "ks_skipped": sorted(set.union(*all_ks) - set(ks)),
        "confidence": CONFIDENCE,
        "n_resamples": N_RESAMPLES,
        "reference": next(iter(methods)),
        "n_comparisons": len(pairs),
        "evaluations": {label: [evaluation.label for evaluation in group] for label, group in methods.items()},
        "popularity": {name: first.popularity.get(name) for name in names},
        "winner": winner,
        "runs": runs,
    }


def _runs(
    methods: Mapping[str, Sequence[Evaluation]],
    names: Sequence[str],
    ks: Sequence[int],
    pairs: Sequence[tuple[int, int, int]],
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """What `compare` returns as ``runs`` and ``winner``; `pairs` are methods a and b and the metric compared."""
    labels, n = list(methods), len(names)
    runs: dict[str, Any] = {label: {name: {} for name in names} for label in labels}
    columns = []
    for label, group in methods.items():
        seeds = [row_metrics(evaluation.rank, ks) for evaluation in group]
        for name in names:
            columns.append(np.mean([values[name] for values in seeds], axis=0))
            runs[label][name]["value"] = float(columns[-1].mean())
            if len(seeds) > 1:
                runs[label][name]["spread"] = float(np.std([values[name].mean() for values in seeds], ddof=1))
    by_row = np.stack(columns, axis=1)
    means, samples = by_row.mean(axis=0), resampled_means(by_row, n_resamples=N_RESAMPLES)
    p = adjusted_p(means, samples, [(a * n + m, b * n + m) for a, b, m in pairs])
    p_of = dict(zip(pairs, p.tolist(), strict=True))
    for b, label in enumerate(labels[1:], start=1):
        for m, name in enumerate(names):
            low, high = interval(samples[b * n + m] - samples[m], confidence=CONFIDENCE)
            runs[label][name] |= {
                "difference": float(means[b * n + m] - means[m]),
                "low": low,
                "high": high,
                "excludes_zero": low > 0 or high < 0,
                "p": p_of[0, b, m],
                "significant": p_of[0, b, m] <= 1 - CONFIDENCE,
            }
    winner: dict[str, str | None] = dict.fromkeys(names)
    for m, name in enumerate(names) if len(labels) > 1 else ():
        best, second = np.argsort(-means[m::n], kind="stable")[:2].tolist()
        if p_of[min(best, second), max(best, second), m] <= 1 - CONFIDENCE:
            winner[name] = labels[best]
    return runs, winner


def compare_folders(folders: Sequence[Path]) -> dict[str, Any]:
    """`compare` of the evaluations in these folders."""
    labels = short_labels(folders)
    return compare([read_evaluation(label, folder) for label, folder in zip(labels, folders, strict=True)])


def main(runs: Sequence[str]) -> None:
    """Print the comparison of all evaluations of `runs`, as a table or with ``--json`` as JSON."""
    found = {Path(os.path.abspath(folder)): folder for run in runs for folder in find_evaluations(run)}
    if len(found) < 2:
        named = ", ".join(map(str, found.values())) or "none"
        raise InputError(f"compare needs two evaluations or more, got {named}; name another run")
    result = compare_folders(list(found.values()))
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
