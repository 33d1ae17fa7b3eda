"""Figures as files: a CSV each, and a picture if matplotlib is installed."""

import csv
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from igd_jax.core.io import atomic_file
from igd_jax.evaluation.groups import Columns
from igd_jax.evaluation.tables import cell, markdown_table


@dataclass(frozen=True)
class Figure:
    """A table, and how it is drawn.

    Attributes:
      name: name of its files, without ending.
      title: one line for people.
      columns: its columns; the first one is the horizontal axis.
      drawn: columns that are drawn, each as a line, or as bars if the first column holds texts; empty = no picture.
      unit: unit of those columns.
    """

    name: str
    title: str
    columns: Columns
    drawn: tuple[str, ...] = ()
    unit: str = ""


def figure_table(figure: Figure) -> str:
    """The columns as a Markdown table, with numbers as in `tables.cell`."""
    rows = zip(*figure.columns.values(), strict=True)
    return markdown_table(list(figure.columns), [list(map(cell, row)) for row in rows])


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_figure(folder: Path, figure: Figure) -> None:
    """Write NAME.csv, and NAME.png if there is something to draw and matplotlib is installed."""
    with atomic_file(folder / f"{figure.name}.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(figure.columns)
        table.writerows(zip(*figure.columns.values(), strict=True))
    if figure.drawn:
        _draw(folder / f"{figure.name}.png", figure)


def _draw(picture: Path, figure: Figure) -> None:
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        return
    first, at = next(iter(figure.columns.items()))
    axes = (canvas := Canvas(layout="constrained")).add_subplot(xlabel=first, ylabel=figure.unit, title=figure.title)
    are_names, width = isinstance(at[0], str), 0.8 / len(figure.drawn)
    for number, name in enumerate(figure.drawn):
        known = [place for place, value in enumerate(figure.columns[name]) if value is not None]
        values = [figure.columns[name][place] for place in known]
        if are_names:
            axes.bar([place + number * width for place in known], values, width, label=name)
        else:
            axes.plot([at[place] for place in known], values, label=name, marker=".")
    if are_names:
        axes.set_xticks([place + 0.4 - width / 2 for place in range(len(at))], at, rotation=45)
    axes.legend(fontsize="small")
    with atomic_file(picture) as partial:
        canvas.savefig(partial, format="png")
