"""Whether a folder may be that of a run, or of the runs of a sweep: it is not if other things are kept there."""

import os
import sys
from pathlib import Path

from igd_jax.core.errors import InputError
from igd_jax.core.io import MARK, Workdir

OF_OTHER_COMMANDS = ("meta.json", MARK)
"""Files in folders that other commands write as a whole, such as `prepare` and `export`, and no run has."""
BESIDE_A_RUN = ("analysis", "log", "lost+found", "report.html", "wandb")
"""Further names in the folder of a run that is about to start, which may be the root of a disk."""
LOGS = (".err", ".log", ".out", ".txt")
"""Endings of files to which what a command prints is redirected."""


def check_takes_run(workdir: Workdir) -> None:
    """Raise `InputError` unless a folder is new or empty, or has a run, evaluations, or what an early stop leaves."""
    _check_written_by_no_other(workdir.path, option="--workdir", what="the run")
    has_run = any(path.exists() for path in (workdir.config, workdir.metrics, workdir.checkpoints, workdir.evaluations))
    if has_run or not workdir.path.is_dir():
        return
    own = {*BESIDE_A_RUN, *(path.name for path in vars(workdir).values() if path.parent == workdir.path)}
    others = [path.name for path in workdir.path.iterdir() if path.name not in own and not _may_stand_anywhere(path)]
    if others:
        raise InputError(
            f"--workdir is {workdir.path}, which has no run (no config.json in it), but {min(others)!r}; name a new "
            "folder, or one inside it"
        )


def check_takes_sweep(output: Path) -> None:
    """Raise `InputError` for a file, for a folder that has a run itself, and for one that another command wrote."""
    _check_written_by_no_other(output, option="--output", what="the runs")
    if (output / "config.json").exists():
        raise InputError(f"--output is {output}, the folder of a run (config.json is in it); name one for many runs")


def _check_written_by_no_other(folder: Path, *, option: str, what: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{option} is {folder}, which is a file; name a folder for {what}, which may be a new one")
    for name in OF_OTHER_COMMANDS:
        if (folder / name).exists():
            raise InputError(
                f"{option} is {folder}, which another command of igd_jax wrote ({name} is in it); name a folder for "
                f"{what} alone"
            )


def _may_stand_anywhere(path: Path) -> bool:
    """Whether it is a hidden file or folder, such as a lock, a log, or a file that the command line names."""
    return path.name.startswith(".") or (path.is_file() and (path.suffix in LOGS or str(path) in _named()))


def _named() -> set[str]:
    """Paths on the command line, such as that of ``--config=FILE.py:ARGUMENT``."""
    given = (word.partition("=")[2] or word for word in sys.argv)
    return {os.path.abspath(value.partition(":")[0]) for value in given}
