"""Whether a folder may be that of a run, or of the runs of a sweep: it is not if other things are kept there."""

from pathlib import Path

from igd_jax.core.errors import InputError
from igd_jax.core.io import MARK, Workdir

OF_OTHER_PROGRAMS = ("meta.json", MARK)
"""Files in folders that `prepare` and `export` write, and no run has."""
BESIDE_A_RUN = ("analysis", "eval", "log", "report.html", "wandb")
"""Further names in the folder of a run, or of evaluations of a model that is not trained."""
LOGS = (".err", ".log", ".out", ".txt")
"""Endings of files to which what a command prints is redirected."""


def check_takes_run(workdir: Workdir) -> None:
    """Raise `InputError` unless a folder is new or empty, has a run, or what a run leaves that was stopped early."""
    _check_written_by_no_other(workdir.path, option="--workdir")
    if workdir.config.is_file() or not workdir.path.is_dir():
        return
    own = {*BESIDE_A_RUN, *(path.name for path in vars(workdir).values() if path.parent == workdir.path)}
    others = [path.name for path in workdir.path.iterdir() if path.name not in own and not _may_stand_anywhere(path)]
    if others:
        raise InputError(
            f"--workdir is {workdir.path}, which has no run (no config.json in it), but {min(others)!r}; name a new "
            "folder, or one inside it"
        )


def check_takes_sweep(output: Path) -> None:
    """Raise `InputError` for a folder that has a run itself, or that `prepare` or `export` wrote."""
    _check_written_by_no_other(output, option="--output")
    if (output / "config.json").exists():
        raise InputError(f"--output is {output}, the folder of a run (config.json is in it); name one for many runs")


def _check_written_by_no_other(folder: Path, *, option: str) -> None:
    for name in OF_OTHER_PROGRAMS:
        if (folder / name).exists():
            raise InputError(
                f"{option} is {folder}, which igd_jax.prepare or igd_jax.export wrote ({name} is in it); name a folder "
                "for the run alone"
            )


def _may_stand_anywhere(path: Path) -> bool:
    """Whether it is a hidden file or folder, such as a lock, or a log."""
    return path.name.startswith(".") or (path.suffix in LOGS and path.is_file())
