"""Train and evaluate every combination of values of some fields, then compare them. Started again, a sweep resumes.

    python -m igd_jax.sweep --config=configs/igd.py --config.data.dir=DATA --output=ROOT \\
        --grid=method.args.beta=0.1,0.5 --grid=train.seed=1,2 [--evaluate=decode.alpha=0,0.2] [--config.FIELD=VALUE ...]

Each run is a folder under ROOT, the --workdir of train and evaluate, named after its values: ROOT/beta=0.1,seed=1, with
evaluations under eval/alpha=0.2. Without --evaluate there is one evaluation, named after the split. Existing
evaluations with the same config are not repeated.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from igd_jax.compare import compare_folders
from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, check_name, local_path, read_json
from igd_jax.core.locks import locked
from igd_jax.core.log import say
from igd_jax.evaluate import evaluate
from igd_jax.evaluation.tables import comparison_table
from igd_jax.session.config_flags import FREE_TO_RESUME, check_workdir, config_json, define_config_flag
from igd_jax.session.config_grid import Axis, changed, name_of, parse_axis, points
from igd_jax.session.settings import TO_TRAIN, settings_from
from igd_jax.train import train

DECODING = ("decode.", "eval.", "method.args.")
"""Beginnings of the fields that --evaluate may vary, which concern decoding."""


def sweep(config: ConfigDict, output: Path, *, grid: Sequence[Axis], evaluations: Sequence[Axis]) -> list[Path]:
    """Train every point of `grid`, evaluate it at every point of `evaluations`; returns the evaluations' folders.

    Args:
      config: the config.
      output: folder of the sweep.
      grid: fields and values to train with.
      evaluations: fields and values to decode every run with.

    Raises:
      InputError: `train` or `evaluate` failed, which ends the sweep but keeps finished runs; or another process is
        sweeping in the folder.
    """
    runs, folders = list(points(grid)), []
    for point in (*runs, *filter(None, points(evaluations))):
        check_name(name_of(point), option="the name of a run or evaluation")
    for point, decoding in itertools.product(runs, points(evaluations)):  # bad values fail before hours are spent
        settings_from(changed(config, point | decoding), needs=TO_TRAIN)
    with locked(output):
        for number, point in enumerate(runs, start=1):
            run_config, workdir = changed(config, point), Workdir(str(output / name_of(point)))
            check_workdir(run_config, workdir, free=FREE_TO_RESUME)
            todo = {}
            for decoding in points(evaluations):
                name, trial = name_of(decoding) or run_config.eval.split, changed(run_config, decoding)
                folders.append(workdir.eval(name))
                if not is_finished(folders[-1], trial):
                    todo[name] = trial
            say(f"run {number} of {len(runs)}: {name_of(point)}, evaluations to make: {', '.join(todo) or 'none'}")
            if todo:
                train(run_config, workdir)
            for name, trial in todo.items():
                evaluate(trial, workdir, name=name)
    return folders


def is_finished(folder: Path, config: ConfigDict) -> bool:
    """Whether the folder holds an evaluation with this config; such folders are written atomically."""
    made = all((folder / name).is_file() for name in ("metrics.json", "config.json", "env.json"))
    return made and read_json(folder / "config.json") == config_json(config)


def define_flags() -> None:
    """Define ``--config``, ``--output``, and the fields to vary."""
    flags.DEFINE_string("output", None, "Folder of the sweep; one folder per run.", required=True)
    flags.DEFINE_multi_string("grid", [], "FIELD=VALUE,VALUE: train with each; repeat for more fields.")
    flags.DEFINE_multi_string("evaluate", [], "FIELD=VALUE,VALUE: decode every run with each; repeat for more fields.")
    define_config_flag()


def main() -> None:
    """Entry point."""
    config = flags.FLAGS.config
    if not config:
        raise InputError("--config is not set; start with --config=configs/igd.py or --config=configs/quickstart.py")
    if not flags.FLAGS.grid:
        raise InputError("--grid is not set; give the fields to vary, such as --grid=train.seed=1,2")
    grid = [parse_axis(text, config, option="--grid") for text in flags.FLAGS.grid]
    evaluations = [parse_axis(text, config, option="--evaluate", under=DECODING) for text in flags.FLAGS.evaluate]
    output = local_path(flags.FLAGS.output, option="--output")
    folders = sweep(config, output, grid=grid, evaluations=evaluations)
    say(f"\n{comparison_table(compare_folders(folders))}")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
