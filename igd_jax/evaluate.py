"""Rank the rows of a split with a trained run, or with a Hugging Face folder as it is.

    python -m igd_jax.evaluate --workdir=RUN [--split=test] [--name=NAME] [--config.decode.alpha=0.2]
    python -m igd_jax.evaluate --config=configs/igd.py --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.evaluate --workdir=RUN --choose=decode.alpha=0,0.1,0.2,0.4 [--choose_examples=500]
    python -m igd_jax.evaluate --workdir=RUN --config.eval.protocol=users [--config.decode.candidates=warm|cold]

Writes RUN/eval/NAME/{metrics.json, predictions.jsonl, config.json}, whole or not at all; a method with vectors of users
and items, as SASRec, adds collaborative.safetensors. With --choose, the field first takes the value that ranks the rows
of valid best; the split is then ranked with that one. By the protocol users, each user of the split is asked once, and
all that they took in it is right.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from flax import nnx
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, atomic_folder, check_name, check_replaceable, write_json
from igd_jax.core.log import say
from igd_jax.core.ragged import Ragged
from igd_jax.data.collaborative import FILE, Collaborative, save_collaborative
from igd_jax.data.prepared import Rows, starts_of
from igd_jax.evaluation import metrics, user_metrics
from igd_jax.evaluation.tables import evaluation_table
from igd_jax.session.config_flags import config_json, define_config_flag, define_decode_as_flag, load_config
from igd_jax.session.config_grid import Axis, changed, parse_axis
from igd_jax.session.recommender import collaborative_source, collaborative_vectors, describe_results, rank
from igd_jax.session.session import Run, evenly_spaced, set_up, trained_model

CHOSEN_ON = "valid"
VARIED = ("decode.", "method.args.")
"""Fields that --choose may vary: how a trained model is decoded."""

PROTOCOLS = ("rows", "users")
"""What a query is: each row of the split, with its one target; or each user, with all the targets of theirs."""


@dataclass(frozen=True)
class Titles:
    """Distinct titles, by number.

    Attributes:
      of_item: number of each item's title; items that share a title share their number.
      row: catalogue row; -1 where it is no candidate.
      count: how often it is a train target.
      is_warm: training saw it, as a target or in a history.
    """

    of_item: Int[np.ndarray, " items"]
    row: Int[np.ndarray, " T"]
    count: Int[np.ndarray, " T"]
    is_warm: Bool[np.ndarray, " T"]


@dataclass(frozen=True)
class Queries:
    """What is asked, and what was right.

    Attributes:
      rows: all rows of the split.
      asked: the row whose history each query shows.
      targets: items that were right for each query, oldest first.
      titles: those of all items.
    """

    rows: Rows
    asked: Int[np.ndarray, "Q"]
    targets: Ragged
    titles: Titles

    def __len__(self) -> int:
        return len(self.asked)


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
    queries: Queries
    ranked: Int[np.ndarray, "Q K"]
    scores: Float[np.ndarray, "Q K"]
    nodes: Int[np.ndarray, "Q K"]
    metrics: dict[str, Any]
    rows_per_second: float


def evaluate(config: ConfigDict, workdir: Workdir, *, name: str, chosen: Axis | None = None) -> dict[str, Any]:
    """Recommend for the rows of `config.eval.split`, score, print the table and write the folder of the evaluation.

    Raises:
      InputError: bad config, no model, a cut-off beyond the number of beams, or a name whose folder is not ours.
    """
    check_name(name, option="--name")
    check_replaceable(folder := workdir.eval(name))
    found = score(config, workdir)
    say(f"\n{config.eval.split} of {config.data.dir}, {found.rows_per_second:.1f} users/s")
    say(evaluation_table(found.metrics))
    vectors = collaborative_vectors(found.run, found.model, found.queries.rows)
    with atomic_folder(folder) as partial:
        write_json(partial / "metrics.json", found.metrics)
        how = {} if chosen is None else {"chosen": chosen._asdict()}
        write_json(partial / "config.json", config_json(config) | how)
        write_predictions(partial / "predictions.jsonl", found)
        if vectors is not None:
            mark = found.run.prepared.meta["fingerprint"]
            save_collaborative(vectors, partial / FILE, fingerprint=mark, split=config.eval.split)
    say(f"\nwritten to {folder}")
    return found.metrics


def score(config: ConfigDict, workdir: Workdir) -> Scored:
    """Recommend for the queries of `config.eval` and compute the metrics; nothing is written.

    Raises:
      InputError: bad config, no model, or a cut-off beyond the number of beams.
    """
    if not 1 <= max(config.eval.ks, default=0) <= config.decode.num_beams:
        raise InputError(
            f"config.eval.ks is {config.eval.ks}, but {config.decode.num_beams} beams give lists of that length; raise "
            "config.decode.num_beams or lower ks"
        )
    if config.eval.protocol not in PROTOCOLS:
        raise InputError(f"config.eval.protocol is {config.eval.protocol!r}; expected {' or '.join(PROTOCOLS)}")
    run = set_up(config, workdir)
    queries = read_queries(run)
    source = collaborative_source(run, split=config.eval.split, n_rows=len(queries.rows))
    if source is not None:
        source = Collaborative(source.users[queries.asked], source.items)
    model = trained_model(run, workdir)
    start = time.monotonic()
    ranked, scores, nodes = rank(run, model, run.examples(queries.rows.take(queries.asked)), source)
    seconds = time.monotonic() - start
    n_invalid = int(((nodes >= 0) & (ranked < 0)).sum())
    metrics = {
        **compute_metrics(run, queries, ranked, n_invalid=n_invalid),
        "protocol": config.eval.protocol,
        "candidates": config.decode.candidates,
    }
    return Scored(run, model, queries, ranked, scores, nodes, metrics, len(queries) / seconds)


def read_queries(run: Run) -> Queries:
    """Rows of `config.eval.split`; by users, users, each at their earliest row with all targets."""
    rows, by_rows = run.rows(run.config.eval.split), run.config.eval.protocol == "rows"
    first, query = np.arange(len(rows)), np.arange(len(rows))
    if not by_rows:
        first, query = user_metrics.group_by_user(rows.user, rows.timestamp)
    chosen = evenly_spaced(len(first), run.config.eval.max_examples, field="eval.max_examples")
    place = np.full(len(first), -1)
    place[chosen] = np.arange(len(chosen))
    order = np.lexsort((rows.timestamp, query))
    order = order[place[query[order]] >= 0]
    start = starts_of(np.bincount(place[query[order]], minlength=len(chosen)))
    return Queries(rows, first[chosen], Ragged(rows.target[order], start), number_titles(run))


def compute_metrics(run: Run, queries: Queries, ranked: Int[np.ndarray, "Q K"], *, n_invalid: int) -> dict[str, Any]:
    """What `metrics` or `user_metrics` says of the results, as `config.eval` asks."""
    catalog, target, ks = run.index.catalog, queries.targets.ids, run.config.eval.ks
    titles = queries.titles
    if run.config.eval.protocol == "rows":
        title = titles.of_item[target]
        return metrics.evaluate(
            ranked,
            targets=metrics.Targets(catalog.row_of_item[target], target, titles.count[title], titles.is_warm[title]),
            candidates=metrics.Candidates(catalog.counts, catalog.item_start, catalog.item),
            ks=ks,
            n_invalid=n_invalid,
        )
    user = np.repeat(np.arange(len(queries)), queries.targets.lengths)
    truth = user_metrics.merge_titles(user, titles.of_item[target], row=titles.row, is_warm=titles.is_warm)
    return user_metrics.evaluate(ranked, truth=truth, count=catalog.counts, ks=ks, n_invalid=n_invalid)


def choose(config: ConfigDict, workdir: Workdir, axis: Axis, *, max_examples: int) -> ConfigDict:
    """The config with the value that ranks best: highest NDCG at the largest k, the first of equals. Says all values.

    Rows are those of valid, whatever `config.eval.split` is. A source of collaborative scores that is named after that
    split, ``RUN/eval/test``, gives way to its sibling ``RUN/eval/valid``.

    Args:
      max_examples: rows, or users, of valid that are ranked, evenly spread; 0 = all.

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
        say(
            f"{axis.field}={value}: {metric} {values[-1]:.4f} on {found.metrics['n']:,} "
            f"{config.eval.protocol} of {CHOSEN_ON}"
        )
    best = axis.values[int(np.argmax(values))]
    told = ", ".join(f"{value}: {number:.4f}" for value, number in zip(axis.values, values, strict=True))
    say(f"chosen {axis.field}={best} by {metric} of {CHOSEN_ON} ({told})\n")
    return changed(config, {axis.field: best})


def number_titles(run: Run) -> Titles:
    """The titles of all items."""
    numbers: dict[str, int] = {}
    of_item = np.array([numbers.setdefault(title, len(numbers)) for title in run.index.titles])
    row = np.full(len(numbers), -1)
    np.maximum.at(row, of_item, run.index.catalog.row_of_item)
    counts, seen = (np.bincount(of_item, weights=each) for each in (run.counts, run.seen))
    return Titles(of_item, row, counts.astype(np.int64), seen > 0)


def write_predictions(path: Path, found: Scored) -> None:
    """One JSON line a query, in order, with its row in the split; a title that was cut before its end has no items.

    The target has one item for each title that was right, and says which of them are warm: seen in training.
    """
    run, rows, titles = found.run, found.queries.rows, found.queries.titles
    merged, is_warm = user_metrics.number_merged(titles.row)[titles.of_item], titles.is_warm[titles.of_item]
    with path.open("w", encoding="utf-8") as file:
        for q, r in enumerate(found.queries.asked.tolist()):
            targets = found.queries.targets[q]
            target = targets[np.sort(np.unique(merged[targets], return_index=True)[1])]
            line = {
                "row": r,
                "user": rows.user[r],
                "target": {
                    "items": [run.prepared.item_ids[item] for item in target],
                    "title": run.index.titles[target[0]],
                    "warm": is_warm[target].tolist(),
                },
                "ranked": describe_results(run, found.ranked[q], found.scores[q], found.nodes[q]),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string("split", None, "Rows to rank: test, valid or train; default config.eval.split.")
    flags.DEFINE_string("name", None, "Name of the evaluation; default the split.")
    flags.DEFINE_string("choose", None, "FIELD=VALUE,VALUE: take the value that ranks valid best.")
    flags.DEFINE_integer("choose_examples", 0, "Rows, or users, of valid that --choose ranks, evenly spread; 0 = all.")
    define_decode_as_flag()
    define_config_flag()


def main() -> None:
    """Entry point."""
    workdir = Workdir(flags.FLAGS.workdir)
    config = load_config(flags.FLAGS.config, workdir)
    if flags.FLAGS.split:
        config.eval.split = flags.FLAGS.split
    axis = None
    if flags.FLAGS.choose is not None:
        axis = parse_axis(flags.FLAGS.choose, config, option="--choose", under=VARIED)
        config = choose(config, workdir, axis, max_examples=flags.FLAGS.choose_examples)
    evaluate(config, workdir, name=flags.FLAGS.name or config.eval.split, chosen=axis)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
