"""Rank the rows of a split with a trained run, or with a Hugging Face folder as it is.

    python -m igd_jax.evaluate --workdir=RUN [--split=test] [--name=NAME] [--config.decode.alpha=0.2]
    python -m igd_jax.evaluate --config=igd --config.data.dir=DATA --config.model.path=HF_DIR --workdir=RUN
    python -m igd_jax.evaluate --workdir=RUN --choose=decode.alpha=0,0.1,0.2,0.4 [--choose_examples=500]
    python -m igd_jax.evaluate --workdir=RUN --beam_misses=200
    python -m igd_jax.evaluate --workdir=RUN --config.eval.protocol=users [--config.decode.candidates=warm|cold]

Writes RUN/eval/NAME/{metrics.json, predictions.jsonl, config.json, env.json} atomically. If it is interrupted, the same
command goes on where it was, with the same result; SIGTERM and Ctrl-C exit with code 143 or 130.

With --choose, the field is first set to the value that ranks the rows of valid best, and the split is ranked with that
value; --choose_per_metric adds per_metric.json, in which each metric has a value of its own (docs/methods/bigrec.md,
BIGRec grounding). With the protocol users, there is one query per user of the split, whose targets are all items that
the user took in it.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from igd_jax.core import errors, meeting
from igd_jax.core.environment import environment
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, atomic_folder, check_name, check_replaceable, owned, read_json, write_json
from igd_jax.core.log import say
from igd_jax.core.run_folder import check_takes_run
from igd_jax.core.signals import stoppable
from igd_jax.evaluation.choice import CHOSEN_ON, Choice, means_of_largest_ndcg
from igd_jax.evaluation.evaluations import CONFIG, METRICS, PREDICTIONS, RECORD
from igd_jax.evaluation.per_metric import best_by_metric, figures_of, table_of
from igd_jax.evaluation.predictions import write_predictions
from igd_jax.evaluation.record import CheckpointRecord, EvaluationRecord, write_record
from igd_jax.evaluation.tables import evaluation_table
from igd_jax.session.beam_misses import has_beam
from igd_jax.session.evaluating import examples_of, predictions_of, score
from igd_jax.session.unfinished import remove
from igd_jax.session.weights import Trained
from igd_jax.settings.config_flags import config_json, define_config_flag, define_decode_as_flag, load_config
from igd_jax.settings.config_grid import Axis, changed, check_comparable, check_decodes, parse_axis
from igd_jax.settings.settings import settings_from


def evaluate(
    config: ConfigDict,
    workdir: Workdir,
    *,
    name: str,
    choice: Choice | None = None,
    per_metric: Mapping[str, Any] | None = None,
    trained: Trained | None = None,
    exact_queries: int | None = None,
) -> dict[str, Any]:
    """Recommend for the queries of `config.eval`, compute and print the metrics, and write the evaluation's folder.

    Args:
      config: the config.
      workdir: folder of the run.
      name: name of the evaluation.
      choice: how values of the config were chosen, which is recorded.
      per_metric: content of per_metric.json, if there is one; see `evaluation.per_metric.figures_of`.
      trained: weights of the run, where they are loaded already.
      exact_queries: queries that are also ranked exactly, for ``beam_misses`` in the metrics; 0 = all, None = none.

    Raises:
      InputError: the config is bad, there is no model, the workdir is no place for a run (see `check_takes_run`), or
        the folder exists but was not written by this program.
    """
    folder = _place(workdir, name)
    commit = _trained_commit(workdir)
    unfinished = workdir.unfinished(name)
    scored = score(config, workdir, trained=trained, exact_queries=exact_queries, unfinished=unfinished)
    step = scored.ranker.trained.step
    checkpoint = None if step is None else CheckpointRecord(step, commit)
    data = scored.ranker.session.prepared.meta["fingerprint"]
    with atomic_folder(folder) as partial:
        write_json(partial / METRICS, scored.metrics)
        write_json(partial / CONFIG, config_record(config, choice))
        if per_metric is not None:
            write_json(partial / "per_metric.json", per_metric)
        write_record(partial / RECORD, EvaluationRecord(checkpoint, data, environment()))
        write_predictions(partial / PREDICTIONS, predictions_of(scored))
    remove(unfinished)
    say(f"\n{config.eval.split} of {config.data.dir}, {scored.users_per_second:.1f} users/s")
    n_candidates = int(scored.catalogue.is_candidate.sum())
    say(evaluation_table(scored.metrics, has_beam=has_beam(scored.ranker), n_candidates=n_candidates))
    say("\n".join(["", *examples_of(scored)]))
    say(f"\nall metrics and lists written to {folder}")
    return scored.metrics


def _place(workdir: Workdir, name: str) -> Path:
    """The folder of an evaluation; raises `InputError` unless it can be written, in the folder of a run."""
    check_name(name, option="--name")
    check_takes_run(workdir)
    check_replaceable(folder := workdir.eval(name))
    return folder


def config_record(config: ConfigDict, choice: Choice | None) -> dict[str, Any]:
    """Content of the config.json of an evaluation: the config and, if values were chosen, how (``chosen``)."""
    record: dict[str, Any] = config_json(config)
    return record if choice is None else record | {"chosen": asdict(choice)}


def _trained_commit(workdir: Workdir) -> str | None:
    """The commit of the program that trained a run, None if that is not known; raises `InputError` for a bad file."""
    if not workdir.env.is_file():
        return None
    told = read_json(workdir.env)
    if not isinstance(told, dict):
        raise InputError(f"{workdir.env} is no JSON object; put back the file of the run, or remove it")
    return told.get("commit")


class Chosen(NamedTuple):
    """What `evaluate` takes from `choose`, under the same names; None where nothing was chosen or asked for."""

    config: ConfigDict
    choice: Choice | None = None
    per_metric: dict[str, Any] | None = None
    trained: Trained | None = None


def choose(
    config: ConfigDict,
    workdir: Workdir,
    axis: Axis,
    *,
    max_examples: int,
    per_metric: bool = False,
    unfinished: Path | None = None,
) -> Chosen:
    """Set a field to the value with the highest NDCG at the largest k on valid, the first one in case of ties.

    Args:
      config: the config; values are chosen on valid, whatever its `eval.split`.
      workdir: folder of the run.
      axis: field and its values.
      max_examples: number of rows, or users, of valid that are ranked, evenly spread; 0 = all.
      per_metric: whether `config.eval` is also ranked with each value that is best for some metric with a cut-off.
      unfinished: see `score`.

    Raises:
      InputError: see `score`, `check_decodes` and `check_comparable`.
    """
    check_decodes(axis, config, option="--choose")
    check_comparable(axis, config, option="--choose")
    (tried, trained), figures = _tried(config, workdir, axis, max_examples=max_examples, unfinished=unfinished), None
    if per_metric:
        best_places = sorted(set(best_by_metric(tried).values()))
        trials = {place: changed(config, {axis.field: axis.values[place]}) for place in best_places}
        ranked = {
            place: score(trial, workdir, trained=trained, unfinished=unfinished).metrics
            for place, trial in trials.items()
        }
        figures = figures_of(axis.values, tried, ranked)
        say(f"\n{table_of(figures, field=axis.field, split=config.eval.split)}\n")
    metric, means = means_of_largest_ndcg([[metrics] for metrics in tried])
    best = axis.values[int(np.argmax(means))]
    told = ", ".join(f"{value}: {mean:.4f}" for value, mean in zip(axis.values, means, strict=True))
    say(f"chosen {axis.field}={best} by {metric} of {CHOSEN_ON} ({told})\n")
    choice = Choice({axis.field: axis.values}, metric, CHOSEN_ON, tried[0]["protocol"], tried[0]["n"])
    return Chosen(changed(config, {axis.field: best}), choice, figures, trained)


def _tried(
    config: ConfigDict, workdir: Workdir, axis: Axis, *, max_examples: int, unfinished: Path | None
) -> tuple[list[dict[str, Any]], Trained | None]:
    """Metrics of the rows of valid with each value of a field, whose NDCG is printed, and the weights; see `choose`."""
    check_lists_fit_valid(config)
    on_valid: dict[str, Any] = {"eval.split": CHOSEN_ON, "eval.max_examples": max_examples}
    trials = [changed(config, {**on_valid, axis.field: value}) for value in axis.values]
    for trial in trials:  # bad values fail before good ones take their time
        settings_from(trial, needs=())
    tried, trained = [], None
    for value, trial in zip(axis.values, trials, strict=True):
        scored = score(trial, workdir, trained=trained, unfinished=unfinished)
        tried.append(metrics := scored.metrics)
        trained = scored.ranker.trained  # which may be large, and is the same for all values
        metric, (mean,) = means_of_largest_ndcg([[metrics]])
        say(f"{axis.field}={value}: {metric} {mean:.4f} on {metrics['n']:,} {metrics['protocol']} of {CHOSEN_ON}")
    return tried, trained


def check_lists_fit_valid(config: ConfigDict) -> None:
    """Raise `InputError` if `config.decode.allowed` has lists for the rows of a split that values are not chosen on."""
    if config.decode.allowed and config.eval.split != CHOSEN_ON:
        raise InputError(
            f"config.decode.allowed is {config.decode.allowed!r}, with a list for each row of {config.eval.split}, but "
            f"values are chosen on {CHOSEN_ON}; choose with config.eval.split={CHOSEN_ON} and its lists, then give the "
            "chosen value"
        )


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string("split", None, "Rows to rank: test, valid or train; default config.eval.split.")
    flags.DEFINE_string("name", None, "Name of the evaluation; default the split.")
    flags.DEFINE_string("choose", None, "FIELD=VALUE,VALUE of decode or method.args: what ranks valid best.")
    flags.DEFINE_integer(
        "choose_examples", 0, "Rows, or users, of valid that --choose ranks, evenly spread; 0 = all.", lower_bound=0
    )
    flags.DEFINE_bool("choose_per_metric", False, "With --choose: also report each metric with its own best value.")
    flags.DEFINE_integer(
        "beam_misses", None, "Queries, evenly spread, ranked exactly beside the beam; 0 = all.", lower_bound=0
    )
    define_decode_as_flag()
    define_config_flag()
    meeting.define_flags()


def main() -> None:
    """Entry point."""
    with meeting.together(), stoppable():
        _main()


def _main() -> None:
    workdir = Workdir(flags.FLAGS.workdir)
    config = load_config(flags.FLAGS.config, workdir)
    if flags.FLAGS.split:
        config.eval.split = flags.FLAGS.split
    name, chosen = flags.FLAGS.name or config.eval.split, Chosen(config)
    if flags.FLAGS.choose_per_metric and flags.FLAGS.choose is None:
        raise InputError("--choose_per_metric has nothing to choose from; give --choose=FIELD=VALUE,VALUE with it")
    folder = _place(workdir, name)  # before values are chosen, too
    # A start that fails on bad input must not create a folder, not even one for a lock.
    with owned(folder) if workdir.path.is_dir() else nullcontext():
        if flags.FLAGS.choose is not None:
            axis = parse_axis(flags.FLAGS.choose, config, option="--choose")
            chosen = choose(
                config,
                workdir,
                axis,
                max_examples=flags.FLAGS.choose_examples,
                per_metric=flags.FLAGS.choose_per_metric,
                unfinished=workdir.unfinished(name),
            )
        evaluate(
            chosen.config,
            workdir,
            name=name,
            choice=chosen.choice,
            per_metric=chosen.per_metric,
            trained=chosen.trained,
            exact_queries=flags.FLAGS.beam_misses,
        )
    say(f"as a page: python -m igd_jax.report --workdir={workdir.path} --name={name}")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
