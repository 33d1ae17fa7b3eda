"""One page about a run, or several, to be opened in a browser: no file beside it, and no network.

    python -m igd_jax.report --workdir=RUN
    python -m igd_jax.report --workdir=RUN --name=NAME --max_examples=512
    python -m igd_jax.report RUN_A RUN_B --output=FILE.html --nomodel

Reads the evaluations in RUN/eval and writes RUN/report.html: losses, metrics with intervals beside popularity and the
other runs, tokens as a heat map, beams as trees, users with their lists (docs/report.md). RUN/eval/NAME in place of RUN
names one evaluation. The trained model is run for heat map, beams and log-probabilities only; without its weights, or
with --nomodel, these are left out.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from igd_jax.compare import compare
from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import check_name, local_path, write_text
from igd_jax.core.locks import locked
from igd_jax.core.log import say
from igd_jax.page.measured import read_measured


def report(
    runs: Sequence[str], output: Path | None, *, name: str | None = None, with_model: bool, max_examples: int
) -> None:
    """Write the page about some runs.

    Args:
      runs: folders of the runs, or of single evaluations of them.
      output: the file, which is replaced; None = report.html in the folder of the first run.
      name: name of the evaluation of each run that it is about; None = test, or the first one where there is none.
      with_model: whether models are run.
      max_examples: most queries on which they are run, evenly spread; 0 = all.

    Raises:
      InputError: a run holds no such evaluation, or its files are malformed or disagree.
    """
    chosen = read_measured(runs, name)
    # Not in the folder of an evaluation, which evaluating again replaces as a whole.
    output = output or chosen.main[0].workdir.path / "report.html"
    if output.is_dir() or not output.parent.is_dir():
        raise InputError(f"--output is {output}; expected a file in a folder that exists")
    # JAX and the charts, which these import, take seconds; what is given is checked before.
    from igd_jax.page.build import page_of
    from igd_jax.page.render import chart_script, render

    with locked(output):  # before the model is run: where no lock can be, no page can
        comparison = compare([each.evaluation for each in chosen.beside]) if len(chosen.beside) > 1 else None
        page = page_of(chosen, comparison, with_model=with_model, max_examples=max_examples)
        write_text(output, render(page, chart_script()))
    say(f"open in a browser: {output} ({output.stat().st_size / 1e6:.1f} MB)")


def define_flags() -> None:
    """Flags of the command line."""
    flags.DEFINE_string("workdir", None, "Folder of the run; several runs are named without an option.")
    flags.DEFINE_string("output", None, "File to write; default report.html in the folder of the only run.")
    flags.DEFINE_string("name", None, "Name of the evaluation; default test, or the first one.")
    flags.DEFINE_bool("model", True, "Run the model for heat map, beams and log-probabilities.")
    flags.DEFINE_integer("max_examples", 64, "Most queries on which the model is run, evenly spread; 0 = all.")


def main(runs: Sequence[str]) -> None:
    """Write the page about `runs` and ``--workdir``."""
    given = flags.FLAGS
    runs = [*([given.workdir] if given.workdir else []), *runs]
    if not runs:
        raise InputError("no run is named; give --workdir=RUN, or several runs and --output=FILE.html")
    if len(runs) > 1 and given.output is None:
        raise InputError(f"{len(runs)} runs are named, so no folder is that of the page; give --output=FILE.html")
    if given.max_examples < 0:
        raise InputError(f"--max_examples is {given.max_examples}; expected a number of queries, at least 0")
    if given.name is not None:
        check_name(given.name, option="--name")
    output = local_path(given.output, option="--output") if given.output else None
    report(runs, output, name=given.name, with_model=given.model, max_examples=given.max_examples)


if __name__ == "__main__":
    define_flags()
    errors.run(main, positional=True)
