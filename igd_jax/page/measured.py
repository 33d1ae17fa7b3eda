"""Evaluations that the page is about, their metrics and the intervals of these."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.evaluation.evaluations import (
    METRICS,
    Evaluation,
    check_same_rows,
    find_evaluations,
    read_evaluation,
    short_labels,
)
from igd_jax.evaluation.predictions import AGAIN, is_finite


@dataclass(frozen=True)
class Measured:
    """An evaluation and its metrics.

    Attributes:
      folder: its folder.
      evaluation: what was read from it.
      metrics: content of its metrics.json.
      intervals: interval over users of each metric, as its metrics.json tells; older files do not.
    """

    folder: Path
    evaluation: Evaluation
    metrics: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]

    @property
    def label(self) -> str:
        """Its name, unique in the page."""
        return self.evaluation.label

    @property
    def workdir(self) -> Workdir:
        """Folder of its run."""
        return Workdir(str(self.evaluation.run))


@dataclass(frozen=True)
class Chosen:
    """Evaluations of some runs.

    Attributes:
      main: the evaluation of each run that the page is about.
      beside: all evaluations that answer the same queries as the first of `main`, which is the first of them.
      apart: a sentence for each evaluation that does not.
    """

    main: Sequence[Measured]
    beside: Sequence[Measured]
    apart: Sequence[str]


def read_measured(runs: Sequence[str], name: str | None) -> Chosen:
    """Read the evaluations of some runs.

    Args:
      runs: folders of the runs, or of single evaluations of them; one that is named twice is read once.
      name: name of the evaluation of each run that the page is about; None = test, or the first one without one.

    Raises:
      InputError: a run holds no such evaluation, or its files are missing, malformed, or disagree.
    """
    main: list[Path] = []
    others: list[Path] = []
    for run in runs:
        by_name = {path.name: path for path in map(_absolute, find_evaluations(run))}
        wanted = name or ("test" if "test" in by_name else next(iter(by_name)))
        if wanted not in by_name:
            raise InputError(f"{run} holds no evaluation {wanted!r}; expected one of {', '.join(by_name)}")
        main.append(by_name.pop(wanted))
        others += by_name.values()
    n_main, folders = len(dict.fromkeys(main)), list(dict.fromkeys([*main, *others]))
    labels = short_labels(folders) if len(folders) > 1 else [""]
    read = [_measured(label, folder) for label, folder in zip(labels, folders, strict=True)]
    beside, apart, ks = read[:1], [], read[0].evaluation.ks
    for other in read[1:]:
        try:
            check_same_rows([read[0].evaluation, other.evaluation])
            if not ks & other.evaluation.ks:
                raise InputError(f"it has metrics at {sorted(other.evaluation.ks)}, others at {sorted(ks)}")
            ks = ks & other.evaluation.ks
            beside.append(other)
        except InputError as error:
            apart.append(f"{other.label} is left out: {error}.")
    return Chosen(read[:n_main], beside, apart)


def _measured(label: str, folder: Path) -> Measured:
    """An evaluation; without a label it has the name of its run."""
    evaluation, path = read_evaluation(label, folder), folder / METRICS
    metrics = read_json(path)
    told = metrics.get("intervals", {})
    if not isinstance(told, dict) or not all(map(_is_interval, told.values())):
        raise InputError(f"{path} has no pairs of finite numbers as intervals; {AGAIN}")
    intervals = {name: (low, high) for name, (low, high) in told.items()}
    return Measured(folder, replace(evaluation, label=label or evaluation.run.name), metrics, intervals)


def _is_interval(told: Any) -> bool:
    return isinstance(told, list) and len(told) == 2 and all(map(is_finite, told))


def _absolute(folder: Path) -> Path:
    return Path(os.path.abspath(folder))
