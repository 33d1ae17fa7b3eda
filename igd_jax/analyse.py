"""Figures of the papers about one evaluation of a run: data, trie, model and lists, as JSON, CSV and pictures.

    python -m igd_jax.analyse --workdir=RUN
    python -m igd_jax.analyse --workdir=RUN --name=NAME --max_examples=0
    python -m igd_jax.analyse --workdir=RUN --split=valid --exact_examples=100

Reads RUN/eval/NAME, runs the model on some of its queries, and writes RUN/analysis/NAME atomically: analysis.json, a
CSV per figure, and a picture of each but `data` if matplotlib is installed.
"""

from pathlib import Path
from typing import Any

from absl import flags

from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, atomic_folder, check_name, check_replaceable, write_json
from igd_jax.core.log import say
from igd_jax.data.prepared import SPLITS
from igd_jax.evaluation.evaluations import PREDICTIONS, read_evaluation
from igd_jax.evaluation.figures import can_draw, figure_table, write_figure
from igd_jax.session.analysis import Analysis, Evaluated, add_groups, add_lists, read_evaluated
from igd_jax.session.analysis_data import data_facts, data_figure, gain_figure, training_figure
from igd_jax.session.analysis_model import SIDES, add_exact, add_tokens

TOLD = ("data", "lists", "users", "items", "exact")
"""Figures that are printed as tables."""


def analyse(workdir: Workdir, name: str, *, max_examples: int, exact_examples: int | None) -> Analysis:
    """Make all figures about an evaluation, and write and print them.

    Args:
      workdir: folder of the run.
      name: name of the evaluation.
      max_examples: most queries on which the model is run, evenly spread; 0 = all.
      exact_examples: queries whose candidates are all ranked; None = as many as take little time, 0 = none.

    Raises:
      InputError: there is no such evaluation, or it does not belong to the data and model as they are.
    """
    check_replaceable(output := workdir.analysis(name))
    folder = workdir.eval(name)
    if not (folder / PREDICTIONS).is_file():
        raise InputError(
            f"{folder} holds no evaluation; run python -m igd_jax.evaluate --workdir={workdir.path} first, or --name "
            "another"
        )
    read_evaluation(name, folder)  # its files have to agree
    evaluated, found = read_evaluated(workdir, name), Analysis()
    session = evaluated.session
    found.facts |= {"evaluation": name, **_setting(evaluated), "data": data_facts(session)}
    found.figures += [data_figure(session, evaluated.walk), gain_figure(session, evaluated.walk)]
    if (training := training_figure(workdir.metrics)) is not None:
        found.figures.append(training)
    else:
        found.left_out.append("training: the folder holds no losses of a run")
    add_lists(found, evaluated)
    add_groups(found, evaluated)
    add_tokens(found, evaluated, max_examples=max_examples)
    add_exact(found, evaluated, n_queries=exact_examples)
    _write(found, output)
    _tell(found, output)
    return found


def _setting(evaluated: Evaluated) -> dict[str, Any]:
    """How the evaluation was made."""
    settings = evaluated.session.settings
    return {
        "method": settings.method.name,
        "split": settings.eval.split,
        "protocol": settings.eval.protocol,
        "candidates": settings.decode.candidates,
        "step": evaluated.ranker.trained.step,
        "queries": len(evaluated.lists),
    }


def _write(found: Analysis, folder: Path) -> None:
    figures = {figure.name: {"title": figure.title, "columns": figure.columns} for figure in found.figures}
    with atomic_folder(folder) as partial:
        write_json(partial / "analysis.json", found.facts | {"figures": figures, "left_out": found.left_out})
        for figure in found.figures:
            write_figure(partial, figure)


def _tell(found: Analysis, folder: Path) -> None:
    """Print the most telling tables, what was left out, and where the rest is."""
    for figure in found.figures:
        if figure.name in TOLD:
            say(f"\n{figure.title}\n\n{figure_table(figure)}")
    for side in SIDES if "tokens" in found.facts else ():
        say(f"\n{side}: {_told(found.facts['tokens'], side)}")
    for sentence in found.left_out:
        say(f"left out: {sentence}")
    if not can_draw():
        say("no pictures: they need matplotlib (pip install matplotlib)")
    say(f"\nwritten to {folder}: {', '.join(figure.name for figure in found.figures)}")


def _told(tokens: dict[str, Any], side: str) -> str:
    """The titles of one side in a sentence."""
    of, n_off = tokens[side], tokens[side]["titles_off_trie"]
    forced = "" if of["forced"] is None else f"{of['forced']:.1f} without gain, "
    off = f"; {n_off:,} of {tokens['queries']:,} titles are off the trie, and in no figure of gain" if n_off else ""
    return (
        f"{of['tokens']:.1f} tokens per title, {forced}{of['ghosts']:.1f} of probability above {tokens['ghost']}; "
        f"{of['logp']:.2f} nats per title, {of['history']:+.2f} by the history{off}"
    )


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_enum("split", "test", SPLITS, "Split whose evaluation is analysed, unless --name is given.")
    flags.DEFINE_string("name", None, "Name of the evaluation; default the split.")
    flags.DEFINE_integer("max_examples", 512, "Most queries on which the model is run, evenly spread; 0 = all.")
    flags.DEFINE_integer("exact_examples", None, "Queries whose candidates are all ranked; default by their cost.")


def main() -> None:
    """Entry point."""
    given = flags.FLAGS
    for name in ("max_examples", "exact_examples"):
        if (given[name].value or 0) < 0:
            raise InputError(f"--{name} is {given[name].value}; expected a number of queries, at least 0")
    name = given.name or given.split
    check_name(name, option="--name")
    workdir = Workdir(given.workdir)
    analyse(workdir, name, max_examples=given.max_examples, exact_examples=given.exact_examples)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
