"""Rank the rows of a split with a trained run, or with a Hugging Face folder as it is.

    python -m igd_jax.evaluate --workdir=RUN [--split=test] [--name=NAME] [--config.decode.alpha=0.2]
    python -m igd_jax.evaluate --config=configs/igd.py --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN

Writes RUN/eval/NAME/{metrics.json, predictions.jsonl, config.json}, whole or not at all.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, atomic_folder, write_json
from igd_jax.core.log import say
from igd_jax.data.prepared import Rows
from igd_jax.evaluation.ranking import Candidates, Targets
from igd_jax.evaluation.ranking import evaluate as rank_metrics
from igd_jax.evaluation.tables import evaluation_table
from igd_jax.rank import collaborative_source, describe_results, rank
from igd_jax.run import Run, config_json, define_config_flag, first_rows, load_config, set_up, trained_model


def evaluate(config: ConfigDict, workdir: Workdir, *, name: str) -> dict[str, Any]:
    """Recommend for the rows of `config.eval.split`, score, print the table and write the folder of the evaluation.

    Raises:
      InputError: bad config, no model, or a cut-off beyond the number of beams.
    """
    if not 1 <= max(config.eval.ks, default=0) <= config.decode.num_beams:
        raise InputError(
            f"config.eval.ks is {config.eval.ks}, but {config.decode.num_beams} beams give lists of that length; raise "
            "config.decode.num_beams or lower ks"
        )
    run = set_up(config, workdir)
    rows = first_rows(run.rows(config.eval.split), config.eval.max_examples)
    source = collaborative_source(run, split=config.eval.split, n_rows=len(rows))
    model = trained_model(run, workdir)
    start = time.monotonic()
    ranked, scores, nodes = rank(run, model, run.examples(rows), source)
    seconds = time.monotonic() - start
    catalog, target = run.index.catalog, rows.target
    metrics = rank_metrics(
        ranked,
        targets=Targets(catalog.row_of_item[target], target, title_counts(run)[target]),
        candidates=Candidates(catalog.counts, catalog.item_start, catalog.item),
        ks=config.eval.ks,
        n_invalid=int(((nodes >= 0) & (ranked < 0)).sum()),
    )
    say(f"\n{config.eval.split} of {config.data.dir}, {len(rows) / seconds:.1f} users/s")
    say(evaluation_table(metrics))
    folder = workdir.eval(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        write_json(partial / "metrics.json", {**metrics, "candidates": config.decode.candidates})
        write_json(partial / "config.json", config_json(config))
        write_predictions(partial / "predictions.jsonl", run, rows, ranked, scores, nodes)
    say(f"\nwritten to {folder}")
    return metrics


def title_counts(run: Run) -> np.ndarray:
    """Train targets of each item's title: items that share a title share their counts."""
    totals: dict[str, int] = {}
    for title, count in zip(run.index.titles, run.counts, strict=True):
        totals[title] = totals.get(title, 0) + int(count)
    return np.array([totals[title] for title in run.index.titles])


def write_predictions(
    path: Path, run: Run, rows: Rows, ranked: np.ndarray, scores: np.ndarray, nodes: np.ndarray
) -> None:
    """One JSON line a row, in the split's order; a title that was cut before its end has no items."""
    with path.open("w", encoding="utf-8") as file:
        for r in range(len(rows)):
            target = int(rows.target[r])
            line = {
                "row": r,
                "user": rows.user[r],
                "target": {"items": [run.prepared.item_ids[target]], "title": run.index.titles[target]},
                "ranked": describe_results(run, ranked[r], scores[r], nodes[r]),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string("split", None, "Rows to rank: test, valid or train; default config.eval.split.")
    flags.DEFINE_string("name", None, "Name of the evaluation; default the split.")
    define_config_flag()


def main() -> None:
    """Entry point."""
    workdir = Workdir(flags.FLAGS.workdir)
    config = load_config(flags.FLAGS.config, workdir)
    if flags.FLAGS.split:
        config.eval.split = flags.FLAGS.split
    evaluate(config, workdir, name=flags.FLAGS.name or config.eval.split)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
