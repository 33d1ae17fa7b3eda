"""Rank the rows of a split with a trained run, or with a Hugging Face folder as it is.

    python -m igd_jax.evaluate --workdir=RUN [--split=test] [--name=NAME] [--config.decode.alpha=0.2]
    python -m igd_jax.evaluate --config=igd --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.evaluate --workdir=RUN --choose=decode.alpha=0,0.1,0.2,0.4 [--choose_examples=500]
    python -m igd_jax.evaluate --workdir=RUN --beam_misses=200
    python -m igd_jax.evaluate --workdir=RUN --config.eval.protocol=users [--config.decode.candidates=warm|cold]

Writes RUN/eval/NAME/{metrics.json, predictions.jsonl, config.json, env.json} atomically. With --choose, the field is
first set to the value that ranks the rows of valid best, and the split is ranked with that value; --choose_per_metric
adds per_metric.json, in which each metric has a value of its own (docs/methods.md, BIGRec grounding). With the
protocol users, there is one query per user of the split, whose targets are all items that the user took in it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors, hosts
from igd_jax.core.environment import environment
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, atomic_folder, check_name, check_replaceable, owned, read_json, write_json
from igd_jax.core.log import say
from igd_jax.core.types import Recommendations
from igd_jax.data.prepared import Rows
from igd_jax.evaluation.choice import CHOSEN_ON, Choice, means_of_largest_ndcg
from igd_jax.evaluation.metrics import CatalogueRows
from igd_jax.evaluation.metrics_json import metrics_of
from igd_jax.evaluation.per_metric import best_by_metric, figures_of, table_of
from igd_jax.evaluation.predictions import Prediction, write_predictions
from igd_jax.evaluation.queries import Queries, describe_targets, make_queries
from igd_jax.evaluation.record import CheckpointRecord, EvaluationRecord, write_record
from igd_jax.evaluation.tables import evaluation_table
from igd_jax.session.beam_misses import beam_misses, beam_of
from igd_jax.session.collaborative import collaborative_source
from igd_jax.session.config_flags import config_json, define_config_flag, define_decode_as_flag, load_config
from igd_jax.session.config_grid import Axis, changed, parse_axis
from igd_jax.session.recommender import Recommender
from igd_jax.session.session import set_up_to_decode

VARIED = ("decode.", "method.args.")
"""Beginnings of the fields that --choose, and --evaluate of a sweep, may vary: how a trained model is decoded."""


@dataclass(frozen=True)
class Scored:
    """Recommendations for the queries of a split, and their metrics.

    Attributes:
      recommender: recommender of the run.
      rows: all rows of the split.
      queries: queries and their targets.
      catalogue: properties of the catalogue that metrics use.
      found: lists, as NumPy arrays.
      metrics: content of metrics.json.
      users_per_second: speed of ranking, compilation included.
    """

    recommender: Recommender
    rows: Rows
    queries: Queries
    catalogue: CatalogueRows
    found: Recommendations
    metrics: dict[str, Any]
    users_per_second: float


def evaluate(
    config: ConfigDict,
    workdir: Workdir,
    *,
    name: str,
    choice: Choice | None = None,
    per_metric: Mapping[str, Any] | None = None,
    exact_queries: int | None = None,
) -> dict[str, Any]:
    """Recommend for the queries of `config.eval`, compute and print the metrics, and write the evaluation's folder.

    Args:
      config: the config.
      workdir: folder of the run.
      name: name of the evaluation.
      choice: how values of the config were chosen, which is recorded.
      per_metric: content of per_metric.json, if there is one; see `evaluation.per_metric.figures_of`.
      exact_queries: queries that are also ranked exactly, for ``beam_misses`` in the metrics; 0 = all, None = none.

    Raises:
      InputError: the config is bad, there is no model, or the folder exists but was not written by this program.
    """
    check_name(name, option="--name")
    check_replaceable(folder := workdir.eval(name))
    scored = score(config, workdir, exact_queries=exact_queries)
    with atomic_folder(folder) as partial:
        write_json(partial / "metrics.json", scored.metrics)
        write_json(partial / "config.json", config_record(config, choice))
        if per_metric is not None:
            write_json(partial / "per_metric.json", per_metric)
        write_record(partial / "env.json", EvaluationRecord(_checkpoint(scored, workdir), environment()))
        write_predictions(partial / "predictions.jsonl", predictions_of(scored))
    say(f"\n{config.eval.split} of {config.data.dir}, {scored.users_per_second:.1f} users/s")
    say(evaluation_table(scored.metrics))
    say(f"\nwritten to {folder}")
    return scored.metrics


def config_record(config: ConfigDict, choice: Choice | None) -> dict[str, Any]:
    """Content of the config.json of an evaluation: the config and, if values were chosen, how (``chosen``)."""
    record: dict[str, Any] = config_json(config)
    return record if choice is None else record | {"chosen": asdict(choice)}


def score(config: ConfigDict, workdir: Workdir, *, exact_queries: int | None = None) -> Scored:
    """Recommend for the queries of `config.eval` and compute the metrics, without writing anything.

    Args:
      config, workdir, exact_queries: see `evaluate`.

    Raises:
      InputError: the config is bad, or there is no model, or no beam to compare with an exact ranking.
    """
    session = set_up_to_decode(config, workdir)
    settings = session.settings
    rows = session.rows(settings.eval.split)
    queries = make_queries(
        settings.eval.protocol,
        user=rows.user,
        timestamp=rows.timestamp,
        target=rows.target,
        max_examples=settings.eval.max_examples,
    )
    source = collaborative_source(session, split=settings.eval.split, n_rows=len(rows))
    recommender = Recommender(session, workdir)
    if exact_queries is not None:
        beam_of(recommender)
    examples = recommender.examples(rows.take(queries.row))
    start = time.monotonic()
    found = recommender.rank(
        examples,
        collaborative=None if source is None else source.take(queries.row),
        allowed=recommender.allowed(rows, queries.row),
    )
    seconds = time.monotonic() - start
    index = recommender.index
    catalogue = CatalogueRows.of_items(
        index.catalog.row_of_item, candidates=index.candidates, counts=session.counts, seen=session.seen
    )
    metrics = metrics_of(
        queries,
        ranked=np.asarray(found.rows),
        scores=np.asarray(found.scores),
        catalogue=catalogue,
        ks=settings.eval.ks,
        candidates=settings.decode.candidates,
    )
    if exact_queries is not None:
        metrics["beam_misses"] = misses = beam_misses(
            recommender, queries.row, np.asarray(found.rows), ks=settings.eval.ks, n_queries=exact_queries
        )
        say(f"the beam beside an exact ranking: {misses}")
    return Scored(recommender, rows, queries, catalogue, found, metrics, len(queries) / seconds)


def predictions_of(scored: Scored) -> Iterator[Prediction]:
    """Content of predictions.jsonl."""
    session, found = scored.recommender.session, scored.found
    targets = describe_targets(
        scored.queries,
        scored.catalogue,
        item_ids=session.prepared.item_ids,
        titles=session.prepared.titles,
    )
    for q, (row, target) in enumerate(zip(scored.queries.row.tolist(), targets, strict=True)):
        ranked = scored.recommender.results(found, q)
        yield Prediction(row, scored.rows.user[row], target, ranked)


def _checkpoint(scored: Scored, workdir: Workdir) -> CheckpointRecord | None:
    """The checkpoint that was evaluated; None for untrained weights."""
    if scored.recommender.step is None:
        return None
    return CheckpointRecord(scored.recommender.step, read_json(workdir.env)["commit"])


def try_values(config: ConfigDict, workdir: Workdir, axis: Axis, *, max_examples: int) -> list[dict[str, Any]]:
    """Rank rows of valid, regardless of `config.eval.split`, with each value of a field; prints the NDCG of each.

    Args:
      config: the config.
      workdir: folder of the run.
      axis: field and its values.
      max_examples: number of rows, or users, of valid that are ranked, evenly spread; 0 = all.

    Returns:
      The metrics of each value, as in metrics.json.

    Raises:
      InputError: see `score`.
    """
    on_valid: dict[str, Any] = {"eval.split": CHOSEN_ON, "eval.max_examples": max_examples}
    tried = []
    for value in axis.values:
        tried.append(metrics := score(changed(config, {**on_valid, axis.field: value}), workdir).metrics)
        metric, (mean,) = means_of_largest_ndcg([[metrics]])
        say(f"{axis.field}={value}: {metric} {mean:.4f} on {metrics['n']:,} {metrics['protocol']} of {CHOSEN_ON}")
    return tried


def choose(config: ConfigDict, workdir: Workdir, axis: Axis, *, max_examples: int) -> tuple[ConfigDict, Choice]:
    """Set a field to the value with the highest NDCG at the largest k on valid, the first one in case of ties.

    Args:
      config, workdir, axis, max_examples: see `try_values`.

    Returns:
      The config with the chosen value, and how it was chosen, both for `evaluate`.

    Raises:
      InputError: see `score`.
    """
    return _best(config, axis, try_values(config, workdir, axis, max_examples=max_examples))


def choose_per_metric(
    config: ConfigDict, workdir: Workdir, axis: Axis, *, max_examples: int
) -> tuple[ConfigDict, Choice, dict[str, Any]]:
    """As `choose`; and rank `config.eval` with each value that is best for some metric with a cut-off.

    Args:
      config, workdir, axis, max_examples: see `try_values`.

    Returns:
      What `choose` returns, and the figures of each metric with its own value, which are printed as well.

    Raises:
      InputError: see `score`.
    """
    tried = try_values(config, workdir, axis, max_examples=max_examples)
    best = sorted(set(best_by_metric(tried).values()))
    ranked = {place: score(changed(config, {axis.field: axis.values[place]}), workdir).metrics for place in best}
    figures = figures_of(axis.values, tried, ranked)
    say(f"\n{table_of(figures, field=axis.field, split=config.eval.split)}\n")
    return *_best(config, axis, tried), figures


def _best(config: ConfigDict, axis: Axis, tried: list[dict[str, Any]]) -> tuple[ConfigDict, Choice]:
    metric, means = means_of_largest_ndcg([[metrics] for metrics in tried])
    best = axis.values[int(np.argmax(means))]
    told = ", ".join(f"{value}: {mean:.4f}" for value, mean in zip(axis.values, means, strict=True))
    say(f"chosen {axis.field}={best} by {metric} of {CHOSEN_ON} ({told})\n")
    choice = Choice({axis.field: axis.values}, metric, CHOSEN_ON, tried[0]["protocol"], tried[0]["n"])
    return changed(config, {axis.field: best}), choice


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string("split", None, "Rows to rank: test, valid or train; default config.eval.split.")
    flags.DEFINE_string("name", None, "Name of the evaluation; default the split.")
    flags.DEFINE_string("choose", None, "FIELD=VALUE,VALUE: take the value that ranks valid best.")
    flags.DEFINE_integer("choose_examples", 0, "Rows, or users, of valid that --choose ranks, evenly spread; 0 = all.")
    flags.DEFINE_bool("choose_per_metric", False, "With --choose: also report each metric with its own best value.")
    flags.DEFINE_integer("beam_misses", None, "Queries, evenly spread, ranked exactly beside the beam; 0 = all.")
    define_decode_as_flag()
    define_config_flag()
    hosts.define_flags()


def main() -> None:
    """Entry point."""
    with hosts.together():
        _main()


def _main() -> None:
    workdir = Workdir(flags.FLAGS.workdir)
    config = load_config(flags.FLAGS.config, workdir)
    if flags.FLAGS.split:
        config.eval.split = flags.FLAGS.split
    name, choice, per_metric = flags.FLAGS.name or config.eval.split, None, None
    check_name(name, option="--name")
    if flags.FLAGS.choose_per_metric and flags.FLAGS.choose is None:
        raise InputError("--choose_per_metric has nothing to choose from; give --choose=FIELD=VALUE,VALUE with it")
    # A start that fails on bad input must not create a folder, not even one for a lock.
    with owned(workdir.eval(name)) if workdir.path.is_dir() else nullcontext():
        if flags.FLAGS.choose is not None:
            axis = parse_axis(flags.FLAGS.choose, config, option="--choose", under=VARIED)
            if flags.FLAGS.choose_per_metric:
                config, choice, per_metric = choose_per_metric(
                    config, workdir, axis, max_examples=flags.FLAGS.choose_examples
                )
            else:
                config, choice = choose(config, workdir, axis, max_examples=flags.FLAGS.choose_examples)
        evaluate(
            config, workdir, name=name, choice=choice, per_metric=per_metric, exact_queries=flags.FLAGS.beam_misses
        )
    say(f"as a page: python -m igd_jax.report --workdir={workdir.path} --name={name}")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
