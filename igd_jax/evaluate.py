"""Rank the rows of a split with a trained run, or with a Hugging Face folder as it is.

    python -m igd_jax.evaluate --workdir=RUN [--split=test] [--name=NAME] [--config.decode.alpha=0.2]
    python -m igd_jax.evaluate --config=configs/igd.py --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.evaluate --workdir=RUN --choose=decode.alpha=0,0.1,0.2,0.4 [--choose_examples=500]

Writes RUN/eval/NAME/{metrics.json, predictions.jsonl, config.json}, whole or not at all; a method with vectors of users
and items, as SASRec, adds collaborative.safetensors. With --choose, the field first takes the value that ranks the rows
of valid best; the split is then ranked with that one.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from flax import nnx
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, atomic_folder, write_json
from igd_jax.core.log import say
from igd_jax.data.collaborative import FILE, save_collaborative
from igd_jax.data.prepared import Rows
from igd_jax.evaluation.ranking import Candidates, Targets
from igd_jax.evaluation.ranking import evaluate as rank_metrics
from igd_jax.evaluation.tables import evaluation_table
from igd_jax.grid import Axis, changed, parse_axis
from igd_jax.rank import collaborative_source, collaborative_vectors, describe_results, rank
from igd_jax.run import (
    Run,
    config_json,
    define_config_flag,
    define_decode_as_flag,
    first_rows,
    load_config,
    set_up,
    trained_model,
)

CHOSEN_ON = "valid"
VARIED = ("decode.", "method.args.")
"""Fields that --choose may vary: how a trained model is decoded."""


@dataclass(frozen=True)
class Scored:
    """Recommendations for some rows of a split, and how good they are.

    Attributes:
      ranked: catalogue rows, best first; -1 = no result.
      scores, nodes: see `core.types.Ranked`.
      metrics: what metrics.json holds.
      rows_per_second: of ranking, compilation included.
    """

    run: Run
    model: nnx.Module
    rows: Rows
    ranked: Int[np.ndarray, "R K"]
    scores: Float[np.ndarray, "R K"]
    nodes: Int[np.ndarray, "R K"]
    metrics: dict[str, Any]
    rows_per_second: float


def evaluate(config: ConfigDict, workdir: Workdir, *, name: str) -> dict[str, Any]:
    """Recommend for the rows of `config.eval.split`, score, print the table and write the folder of the evaluation.

    Raises:
      InputError: bad config, no model, or a cut-off beyond the number of beams.
    """
    found = score(config, workdir)
    say(f"\n{config.eval.split} of {config.data.dir}, {found.rows_per_second:.1f} users/s")
    say(evaluation_table(found.metrics))
    vectors = collaborative_vectors(found.run, found.model, found.rows)
    folder = workdir.eval(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        write_json(partial / "metrics.json", found.metrics)
        write_json(partial / "config.json", config_json(config))
        write_predictions(partial / "predictions.jsonl", found.run, found.rows, found.ranked, found.scores, found.nodes)
        if vectors is not None:
            mark = found.run.prepared.meta["fingerprint"]
            save_collaborative(vectors, partial / FILE, fingerprint=mark, split=config.eval.split)
    say(f"\nwritten to {folder}")
    return found.metrics


def score(config: ConfigDict, workdir: Workdir) -> Scored:
    """Recommend for the first rows of `config.eval.split` and compute the metrics; nothing is written.

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
    metrics = {**metrics, "candidates": config.decode.candidates}
    return Scored(run, model, rows, ranked, scores, nodes, metrics, len(rows) / seconds)


def choose(config: ConfigDict, workdir: Workdir, axis: Axis, *, max_examples: int) -> ConfigDict:
    """The config with the value that ranks best: highest NDCG at the largest k, the first of equals. Says all values.

    Rows are those of valid, whatever `config.eval.split` is. A source of collaborative scores that is named after that
    split, ``RUN/eval/test``, gives way to its sibling ``RUN/eval/valid``.

    Args:
      max_examples: first rows of valid that are ranked; 0 = all.

    Raises:
      InputError: see `score`.
    """
    on_valid: dict[str, Any] = {"eval.split": CHOSEN_ON, "eval.max_examples": max_examples}
    metric, values = f"ndcg@{max(config.eval.ks, default=0)}", []
    for value in axis.values:
        trial = changed(config, {**on_valid, axis.field: value})
        source = Path(trial.decode.collaborative)
        if source.name == config.eval.split:
            trial.decode.collaborative = str(source.with_name(CHOSEN_ON))
        found = score(trial, workdir)
        values.append(found.metrics[metric])
        say(f"{axis.field}={value}: {metric} {values[-1]:.4f} on {found.metrics['n']:,} rows of {CHOSEN_ON}")
    best = axis.values[int(np.argmax(values))]
    told = ", ".join(f"{value}: {number:.4f}" for value, number in zip(axis.values, values, strict=True))
    say(f"chosen {axis.field}={best} by {metric} of {CHOSEN_ON} ({told})\n")
    return changed(config, {axis.field: best})


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
    flags.DEFINE_string("choose", None, "FIELD=VALUE,VALUE: take the value that ranks valid best.")
    flags.DEFINE_integer("choose_examples", 0, "First rows of valid that --choose ranks; 0 = all.")
    define_decode_as_flag()
    define_config_flag()


def main() -> None:
    """Entry point."""
    workdir = Workdir(flags.FLAGS.workdir)
    config = load_config(flags.FLAGS.config, workdir)
    if flags.FLAGS.split:
        config.eval.split = flags.FLAGS.split
    if flags.FLAGS.choose is not None:
        axis = parse_axis(flags.FLAGS.choose, config, option="--choose", under=VARIED)
        config = choose(config, workdir, axis, max_examples=flags.FLAGS.choose_examples)
    evaluate(config, workdir, name=flags.FLAGS.name or config.eval.split)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
