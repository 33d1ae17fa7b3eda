"""Compare evaluations of the same rows, or users: one table, with a bootstrap interval for each difference.

    python -m igd_jax.compare RUN_A RUN_B RUN_C
    python -m igd_jax.compare RUN/eval/test RUN/eval/NAME --targets=cold
    python -m igd_jax.compare RUN_A RUN_B --json --output=FOLDER

Each RUN is a run's folder, of which all evaluations are compared, the folder of one evaluation, RUN/eval/NAME, or that
of a sweep. Evaluations of the same data whose configs differ in train.seed, or in what changes no result, such as mesh,
batch sizes of decoding and intervals of the log, are one method, whose metrics are means over seeds, row by row. All
other methods are compared with the first; intervals and significance are corrected for the number of comparisons (see
`evaluation.significance`).

The table is also written to compare.md, and what --json prints to compare.json, both in the folder --output: by default
the innermost one that holds all evaluations, such as runs for runs/a and runs/b.
"""

import contextlib
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Shaped

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import local_path, read_json, write_json, write_text
from igd_jax.core.log import say
from igd_jax.evaluation.evaluations import (
    Evaluation,
    check_same_rows,
    find_all_evaluations,
    read_evaluation,
    short_labels,
)
from igd_jax.evaluation.queries import PROTOCOLS
from igd_jax.evaluation.significance import CONFIDENCE, MIN_USERS, N_RESAMPLES, corrected, interval, resampled_means
from igd_jax.evaluation.tables import comparison_table


def by_method(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Group evaluations into methods, under unique labels, in the order of their first evaluations.

    A method has one set of prepared data, and at most one evaluation per seed: the second one with the same config and
    seed, for example by other code, belongs to another method, and so on.
    """
    seen: Counter[tuple[Any, ...]] = Counter()
    methods: dict[tuple[Any, ...], list[Evaluation]] = {}
    for evaluation in evaluations:
        method = (evaluation.origin.method, evaluation.record.data_fingerprint)
        asked = (*method, evaluation.origin.seed)
        methods.setdefault((*method, seen[asked]), []).append(evaluation)
        seen[asked] += 1
    labels = [_common([evaluation.label for evaluation in group]) for group in methods.values()]
    unclear = {label for label in labels if labels.count(label) > 1}
    groups = methods.values()
    return {group[0].label if label in unclear else label: group for label, group in zip(labels, groups, strict=True)}


def _common(labels: Sequence[str]) -> str:
    """Common part of labels, ``seed=*`` for ``seed=1`` and ``seed=2``; the first label if they have none."""
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
    """HR (for users: recall) and NDCG at all common cut-offs, and each method's difference to the first.

    Returns:
      ``n`` rows or users, according to ``protocol``, of ``split`` (None if no config.json tells); ``ks``,
      ``ks_skipped`` (not in all evaluations), ``n_users`` (those that are resampled; if there are fewer than
      `significance.MIN_USERS`, nothing is significant), ``confidence``, ``n_resamples``, ``reference`` (label of the
      first method), ``n_comparisons`` (pairs of methods times metrics, for which p-values are corrected),
      ``evaluations`` (labels by method), ``candidates`` (by method; None if not told), ``data`` (by method: the
      fingerprint of the prepared data; None if not told), ``decoding`` (by method:
      `evaluation.origin.Origin.decoding`), ``weights`` (by evaluation: ``run``, its folder, and ``step``, None for
      untrained weights), ``choices`` (by method, where values were chosen on validation: the fields of
      `evaluation.choice.Choice`, and ``chosen``: for each evaluation the values by field),
      ``popularity`` (baseline of the first evaluation, by metric), ``winner`` (by metric: the best method if it beats
      the second after correction, else None) and ``runs``: by method and metric, ``value``; ``spread``, the standard
      deviation over several seeds; and except for the first method, ``difference``; ``low`` and ``high``, its own
      interval, and whether that ``excludes_zero``; and corrected for all comparisons, ``together``, the interval [low,
      high], and ``p`` and ``significant``.

    Raises:
      InputError: there are no evaluations, their rows or targets differ, or they have no common k.
    """
    if not evaluations:
        raise InputError("there is no evaluation to compare")
    check_same_rows(evaluations)
    all_ks = [evaluation.ks for evaluation in evaluations]
    ks = sorted(set.intersection(*all_ks))
    if not ks:
        given = "; ".join(f"{e.label}: {sorted(e.ks)}" for e in evaluations)
        raise InputError(f"the evaluations have no k in common ({given}); evaluate again with the same eval.ks")
    names = [f"{metric}@{k}" for metric in (PROTOCOLS[evaluations[0].protocol], "ndcg") for k in ks]
    methods = by_method(evaluations)
    pairs = [(a, b, m) for a, b in itertools.combinations(range(len(methods)), 2) for m in range(len(names))]
    first = evaluations[0]
    user = np.array([answer.user for answer in first.answers])
    n_users = len(set(user.tolist()))
    runs, winner = _runs(methods, names, pairs, user, may_be_sure=n_users >= MIN_USERS)
    return {
        "n": len(first.answers),
        "protocol": first.protocol,
        "split": next((split for e in evaluations if (split := e.origin.split)), None),
        "ks": ks,
        "ks_skipped": sorted(set.union(*all_ks) - set(ks)),
        "n_users": n_users,
        "confidence": CONFIDENCE,
        "n_resamples": N_RESAMPLES,
        "reference": next(iter(methods)),
        "n_comparisons": len(pairs),
        "evaluations": {label: [evaluation.label for evaluation in group] for label, group in methods.items()},
        "candidates": {label: group[0].candidates for label, group in methods.items()},
        "data": {label: group[0].record.data_fingerprint for label, group in methods.items()},
        "decoding": {label: dict(group[0].origin.decoding) for label, group in methods.items()},
        "weights": {
            e.label: {"run": str(e.run), "step": e.record.checkpoint and e.record.checkpoint.step} for e in evaluations
        },
        "choices": {
            label: {**asdict(choice), "chosen": [dict(evaluation.origin.chosen) for evaluation in group]}
            for label, group in methods.items()
            if (choice := group[0].origin.choice)
        },
        "popularity": {name: first.popularity.get(name) for name in names},
        "winner": winner,
        "runs": runs,
    }


def _runs(
    methods: Mapping[str, Sequence[Evaluation]],
    names: Sequence[str],
    pairs: Sequence[tuple[int, int, int]],
    user: Shaped[np.ndarray, " n"],
    *,
    may_be_sure: bool,
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """The entries ``runs`` and ``winner`` of `compare`; `pairs` are the methods a and b and the metric to compare."""
    labels, n = list(methods), len(names)
    runs: dict[str, Any] = {label: {name: {} for name in names} for label in labels}
    columns = []
    for label, group in methods.items():
        for name in names:
            seeds = [evaluation.by_row[name] for evaluation in group]
            columns.append(np.mean(seeds, axis=0))
            runs[label][name]["value"] = float(columns[-1].mean())
            if len(seeds) > 1:
                runs[label][name]["spread"] = float(np.std([values.mean() for values in seeds], ddof=1))
    by_row = np.stack(columns, axis=1)
    means, samples = by_row.mean(axis=0), resampled_means(by_row, user)
    found = corrected(means, samples, [(a * n + m, b * n + m) for a, b, m in pairs])
    p_of, margin_of = (dict(zip(pairs, values.tolist(), strict=True)) for values in found)
    for b, label in enumerate(labels[1:], start=1):
        for m, name in enumerate(names):
            difference, margin = float(means[b * n + m] - means[m]), margin_of[0, b, m]
            low, high = interval(samples[b * n + m] - samples[m])
            runs[label][name] |= {
                "difference": difference,
                "low": low,
                "high": high,
                "excludes_zero": low > 0 or high < 0,
                "together": [difference - margin, difference + margin],
                "p": p_of[0, b, m],
                "significant": may_be_sure and p_of[0, b, m] <= 1 - CONFIDENCE,
            }
    winner: dict[str, str | None] = dict.fromkeys(names)
    for m, name in enumerate(names) if len(labels) > 1 else ():
        best, second = np.argsort(-means[m::n], kind="stable")[:2].tolist()
        if may_be_sure and p_of[min(best, second), max(best, second), m] <= 1 - CONFIDENCE:
            winner[name] = labels[best]
    return runs, winner


def compare_folders(folders: Sequence[Path], *, labels: Sequence[str] = (), group: str = "") -> dict[str, Any]:
    """`compare` the evaluations in some folders; only on ``warm`` or ``cold`` targets if `group` says so.

    Args:
      folders: the folders.
      labels: their labels, which differ; empty = `short_labels`.
      group: ``warm``, ``cold`` or empty.
    """
    labels = labels or short_labels(folders)
    found = [read_evaluation(label, folder, group=group) for label, folder in zip(labels, folders, strict=True)]
    return compare(found) | {"targets": group or "all"}


def files_in(folder: Path, *, name: str = "compare") -> tuple[Path, Path]:
    """Paths of a comparison's table and JSON: NAME.md and NAME.json.

    Raises:
      InputError: such a file is there, but no comparison wrote it.
    """
    table, record = folder / f"{name}.md", folder / f"{name}.json"
    known = read_json(record) if record.exists() else {}
    if (table.exists() or record.exists()) and not (isinstance(known, dict) and "n_comparisons" in known):
        raise InputError(f"{folder} holds a {name}.md or {name}.json that no comparison wrote; name another --output")
    return table, record


def write_comparison(comparison: Mapping[str, Any], files: tuple[Path, Path]) -> None:
    """Write a comparison to the paths of `files_in`, replacing an earlier one."""
    table, record = files
    table.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, comparison)
    write_text(table, comparison_table(comparison) + "\n")


def main(runs: Sequence[str]) -> None:
    """Compare all evaluations of `runs`: print a table, or with ``--json`` JSON, and write both."""
    found = {Path(os.path.abspath(folder)): folder for run in runs for folder in find_all_evaluations(run)}
    if len(found) < 2:
        named = ", ".join(map(str, found.values())) or "none"
        raise InputError(f"compare needs two evaluations or more, got {named}; name another run")
    output = flags.FLAGS.output
    files = files_in(Path(os.path.commonpath(found)) if output is None else local_path(output, option="--output"))
    with contextlib.redirect_stdout(sys.stderr if flags.FLAGS.json else sys.stdout):
        result = compare_folders(list(found.values()), group=flags.FLAGS.targets or "")
    write_comparison(result, files)
    if flags.FLAGS.json:
        say(json.dumps(result, indent=2, ensure_ascii=False))
        return
    say(comparison_table(result))
    if len(result["runs"]) == 1:
        say("\nnote: there is one method only, so nothing to compare; name an evaluation of another config")
    say(f"\nwritten to {files[0]} and {files[1].name}")


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
    flags.DEFINE_string("output", None, "Folder of compare.md and compare.json; default the one that holds all.")
    flags.DEFINE_enum("targets", None, ["warm", "cold"], "Targets that training saw, or not; default all.")


if __name__ == "__main__":
    define_flags()
    errors.run(main, positional=True)
