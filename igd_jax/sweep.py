"""Train and evaluate every combination of values of some fields, then compare. Started again, a sweep resumes.

    python -m igd_jax.sweep --config=igd --config.data.dir=DATA --output=ROOT --grid=train.seed=1,2,3
    python -m igd_jax.sweep --config=igd --config.data.dir=DATA --output=ROOT --grid=method.args.beta=0.1,0.5 \\
        --grid=train.seed=1,2 --choose_seeds=1
    python -m igd_jax.sweep --config=sft --config.data.dir=DATA --output=ROOT --evaluate=decode.alpha=0,0.2 ...

If only seeds vary, all runs are evaluated on `config.eval.split`, test by default. If anything else varies, all are
evaluated on valid, the combination with the highest NDCG there (at the largest k, mean over seeds) is chosen, and that
one alone is evaluated on `config.eval.split`, unless that is valid. With --choose_seeds=1, combinations are tried with
the first seed only, and the chosen one is then trained with all of them.

A table of each split is printed, with columns named by their values, and written as `compare` writes it: that of
`config.eval.split` to ROOT/compare.md and ROOT/compare.json, that of all combinations on valid to ROOT/compare_valid.md
and ROOT/compare_valid.json. The last lines name the best runs and the next command.

Each run is a folder under ROOT, the --workdir of train and evaluate, named after its values: ROOT/beta=0.1,seed=1, with
evaluations under eval/valid,alpha=0.2 and eval/test,alpha=0.2; without --evaluate under eval/valid and eval/test.
Existing evaluations with the same config are not repeated.
"""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from igd_jax.compare import compare_folders, files_in, write_comparison
from igd_jax.core import errors
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, check_name, local_path, owned, read_json
from igd_jax.core.locks import locked
from igd_jax.core.log import say
from igd_jax.core.run_folder import check_takes_sweep
from igd_jax.data.prepared import read_meta
from igd_jax.evaluate import check_lists_fit_valid, config_record, evaluate
from igd_jax.evaluation.choice import CHOSEN_ON, Choice, means_of_largest_ndcg
from igd_jax.evaluation.evaluations import CONFIG, METRICS, RECORD
from igd_jax.evaluation.record import read_record
from igd_jax.evaluation.tables import comparison_table
from igd_jax.settings.config_flags import FREE_TO_RESUME, check_workdir, define_config_flag, required_config
from igd_jax.settings.config_grid import (
    Axis,
    changed,
    check_comparable,
    check_decodes,
    decodes,
    name_of,
    parse_axis,
    points,
)
from igd_jax.settings.settings import TO_DECODE, settings_from
from igd_jax.train import train

SEED = "train.seed"
"""The one field whose values are repetitions of a method, and not to be chosen among."""


class Swept(NamedTuple):
    """Evaluations that a sweep ends with.

    Attributes:
      folders: folders of all on `config.eval.split`: of all runs if only seeds vary, else of the chosen combination,
        or, if that split is valid, of all combinations.
      chosen: those of the chosen combination, one per seed; empty where only seeds vary.
    """

    folders: list[Path]
    chosen: list[Path]


class Made(NamedTuple):
    """An evaluation of a sweep: its folder, and the values it was made with, apart from the seed."""

    point: dict[str, Any]
    folder: Path


def sweep(
    config: ConfigDict, output: Path, *, grid: Sequence[Axis], evaluations: Sequence[Axis], choose_seeds: int = 0
) -> Swept:
    """Train every point of `grid`, and evaluate it at every point of `evaluations`: on valid if there is a choice.

    Prints the table of valid, if there is one, and the combination that is chosen by it.

    Args:
      config: the config.
      output: folder of the sweep.
      grid: fields and values to train with.
      evaluations: fields and values to decode every run with.
      choose_seeds: number of seeds of `grid`, its first ones, with which combinations are tried; 0 = all.

    Raises:
      InputError: a field is varied twice, metrics of its values cannot be compared, or training does not use it; there
        are fewer seeds than `choose_seeds`; the folder has something else (see `check_takes_sweep`); `train` or
        `evaluate` failed, which ends the sweep but keeps finished runs; or another process is sweeping in the folder.
    """
    check_takes_sweep(output)
    for option, axes in (("--grid", grid), ("--evaluate", evaluations)):
        for axis in axes:
            check_comparable(axis, config, option=option)
    _check_grid(grid, config, choose_seeds)
    for axis in evaluations:
        check_decodes(axis, config, option="--evaluate")
    for point in points([*grid, *evaluations]):  # bad values fail before hours are spent
        settings_from(changed(config, point), needs=TO_DECODE)
    names = (*map(name_of, points(grid)), *(evaluation_name(CHOSEN_ON, point) for point in points(evaluations)))
    for name in names:
        check_name(name, option="the name of a run or evaluation")
        if names.count(name) > 1:
            raise InputError(f"two combinations would have one folder, {name}; let them differ in a letter or a digit")
    varied = [axis for axis in (*grid, *evaluations) if axis.field != SEED and len(axis.values) > 1]
    if varied:
        check_lists_fit_valid(config)
    with locked(output):
        if not varied:
            made = _make(config, output, grid, evaluations, split=config.eval.split)
            return Swept([each.folder for each in made], [])
        few = [Axis(axis.field, axis.values[: choose_seeds or None]) if axis.field == SEED else axis for axis in grid]
        tried = _make(config, output, few, evaluations, split=CHOSEN_ON)
        chosen, choice = _choose(tried, varied)
        trained = {name_of(point) for point in points(few)}
        folders = [made.folder for made in tried]
        best = [[_at(axis, chosen) for axis in axes] for axes in (grid, evaluations)]
        if config.eval.split == CHOSEN_ON:
            made = _make(config, output, *best, split=CHOSEN_ON, trained=trained)
            best_folders = [each.folder for each in made]
            return Swept(list(dict.fromkeys([*folders, *best_folders])), best_folders)
        say(f"\nall combinations, on {CHOSEN_ON}:")
        _tell(folders, files_in(output, name=f"compare_{CHOSEN_ON}"))
        say(f"\nevaluating {name_of(chosen)} on {config.eval.split}")
        made = _make(config, output, *best, split=config.eval.split, choice=choice, trained=trained)
        return Swept(folders := [each.folder for each in made], folders)


def _check_grid(grid: Sequence[Axis], config: ConfigDict, choose_seeds: int) -> None:
    """Raise `InputError` for a field that changes nothing in training, or fewer seeds than are to be chosen with."""
    for axis in grid:
        if decodes(axis.field, config):
            raise InputError(
                f"--grid names {axis.field}, which training does not use; give it to --evaluate, which trains once"
            )
    n_seeds = sum(len(axis.values) for axis in grid if axis.field == SEED)
    if choose_seeds > n_seeds:
        raise InputError(
            f"--choose_seeds is {choose_seeds}, but --grid has {n_seeds} values of {SEED}; give at least that many, "
            f"such as --grid={SEED}=1,2,3, or leave the option out"
        )


def _tell(folders: Sequence[Path], files: tuple[Path, Path]) -> None:
    """Write and print the comparison of some evaluations, each under the values it was made with."""
    comparison = compare_folders(folders, labels=[_label(folder) for folder in folders])
    write_comparison(comparison, files)
    say(comparison_table(comparison))


def _label(folder: Path) -> str:
    """The values of an evaluation by the names of its folders: ``beta=0.1,seed=1,alpha=0.2``."""
    decoding = folder.name.partition(",")[2]
    return ",".join([folder.parents[1].name] + [decoding] * bool(decoding))


def _tell_next(swept: Swept) -> None:
    """Print the folders of the best runs, or of all where nothing was chosen, and the command that comes next."""
    folders = swept.chosen or swept.folders
    runs = [str(folder.parents[1]) for folder in folders]
    say(f"\n{'best ' * bool(swept.chosen)}run{'s' * (len(runs) > 1)}: {', '.join(runs)}")
    say(f"next: python -m igd_jax.report --workdir={shlex.quote(runs[0])} --name={folders[0].name}")


def _make(
    config: ConfigDict,
    output: Path,
    grid: Sequence[Axis],
    evaluations: Sequence[Axis],
    *,
    split: str,
    choice: Choice | None = None,
    trained: Collection[str] = (),
) -> list[Made]:
    """Evaluate all points on `split`, and train those that are not in `trained`, by the names of runs.

    What is finished is left as it is. The configs of runs keep the split of `config`, which later evaluations follow.
    """
    runs, made = list(points(grid)), []
    for number, point in enumerate(runs, start=1):
        run_config, workdir = changed(config, point), Workdir(str(output / name_of(point)))
        check_workdir(run_config, workdir, free=FREE_TO_RESUME)
        data, todo = settings_from(run_config, needs=TO_DECODE).data.dir, {}
        for decoding in points(evaluations):
            trial = changed(run_config, {**decoding, "eval.split": split})
            name = evaluation_name(split, decoding)
            values = point | decoding
            values.pop(SEED, None)
            made.append(Made(values, workdir.eval(name)))
            if not is_finished(made[-1].folder, config_record(trial, choice)):
                todo[name] = trial
            else:
                check_same_data(made[-1].folder, data)
        say(f"run {number} of {len(runs)}: {name_of(point)}, evaluations to make: {', '.join(todo) or 'none'}")
        if todo and name_of(point) not in trained:
            train(run_config, workdir)
        for name, trial in todo.items():
            with owned(workdir.eval(name)):
                evaluate(trial, workdir, name=name, choice=choice)
    return made


def _choose(tried: Sequence[Made], varied: Sequence[Axis]) -> tuple[dict[str, Any], Choice]:
    """The combination with the highest mean over seeds, the first one in case of ties, and how it was chosen."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    for made in tried:
        metrics.setdefault(name_of(made.point), []).append(read_json(made.folder / METRICS))
    metric, means = means_of_largest_ndcg(list(metrics.values()))
    mean_of = dict(zip(metrics, means, strict=True))
    best = max(tried, key=lambda made: mean_of[name_of(made.point)]).point
    first, *others = metrics[name_of(best)]
    choice = Choice({axis.field: axis.values for axis in varied}, metric, CHOSEN_ON, first["protocol"], first["n"])
    told = ", ".join(f"{name}: {mean:.4f}" for name, mean in mean_of.items())
    seeds = f", mean of {len(others) + 1} seeds" if others else ""
    say(f"\nchosen {name_of(best)} by {metric} on {choice.n:,} {choice.protocol} of {CHOSEN_ON}{seeds} ({told})")
    return best, choice


def _at(axis: Axis, chosen: dict[str, Any]) -> Axis:
    """The axis with the chosen value alone; seeds stay as they are."""
    return axis if axis.field == SEED else Axis(axis.field, [chosen[axis.field]])


def evaluation_name(split: str, decoding: dict[str, Any]) -> str:
    """Name of an evaluation: ``test``, or with fields of --evaluate ``test,alpha=0.2``."""
    return f"{split},{name_of(decoding)}" if decoding else split


def is_finished(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds an evaluation with this config.json; such folders are written atomically."""
    made = all((folder / name).is_file() for name in (METRICS, CONFIG, RECORD))
    return made and read_json(folder / CONFIG) == record


def check_same_data(folder: Path, data: str) -> None:
    """Raise `InputError` if an evaluation was made on other data than the folder `data` holds now."""
    made_on = read_record(folder / RECORD).data_fingerprint
    if made_on is not None and made_on != read_meta(Path(data))["fingerprint"]:
        raise InputError(
            f"{folder} was made on other data than {data} holds now; use the data it was made on, or another --output"
        )


def define_flags() -> None:
    """Define ``--config``, ``--output``, and the fields to vary."""
    flags.DEFINE_string("output", None, "Folder of the sweep; one folder per run.", required=True)
    flags.DEFINE_multi_string("grid", [], "FIELD=VALUE,VALUE: train with each; repeat for more fields.")
    flags.DEFINE_multi_string("evaluate", [], "FIELD=VALUE,VALUE: decode every run with each; repeat for more fields.")
    flags.DEFINE_integer("choose_seeds", 0, "First seeds of the grid with which to try combinations; 0 = all.", 0)
    define_config_flag()


def main() -> None:
    """Entry point."""
    config = required_config()
    if not flags.FLAGS.grid:
        raise InputError("--grid is not set; give the fields to vary, such as --grid=train.seed=1,2")
    not_how_to_measure = [f"{section}." for section in config if section != "eval"]
    grid = [parse_axis(text, config, option="--grid", under=not_how_to_measure) for text in flags.FLAGS.grid]
    evaluations = [parse_axis(text, config, option="--evaluate") for text in flags.FLAGS.evaluate]
    output = local_path(flags.FLAGS.output, option="--output")
    files, _ = files_in(output), files_in(output, name=f"compare_{CHOSEN_ON}")
    swept = sweep(config, output, grid=grid, evaluations=evaluations, choose_seeds=flags.FLAGS.choose_seeds)
    say("")
    _tell(swept.folders, files)
    _tell_next(swept)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
