"""The page as one file of HTML: templates, style, scripts and data within it, and nothing from elsewhere."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

import igd_jax
from igd_jax.evaluation.groups import Columns
from igd_jax.evaluation.tables import ENOUGH, cautions, cell, too_few
from igd_jax.page.beams import Node
from igd_jax.page.build import Page, Panel
from igd_jax.page.texts import HOW_TO_READ


def chart_script() -> str:
    """The script that draws the charts: Vega, Vega-Lite and Vega-Embed, as Vega-Altair inlines them."""
    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub does not know the default


def render(page: Page, script: str) -> str:
    """The page in HTML.

    Args:
      page: its content.
      script: the result of `chart_script`.
    """
    environment = Environment(
        loader=PackageLoader("igd_jax.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": partial(cell, none="–"), "beam": as_json, "rows": rows, "signed": signed}
    environment.filters["cautions"] = lambda comparison: [*cautions(comparison), *too_few(comparison)]
    return environment.get_template("page.html").render(
        page=page,
        specs=_specs(page),
        version=igd_jax.__version__,
        how_to_read=HOW_TO_READ,
        enough=ENOUGH,
        slice_names=[f"ndcg@{page.runs[0].k}"]
        if len(page.beside) > 1
        else [page.runs[0].hit, f"ndcg@{page.runs[0].k}"],
        script=script.replace("</script", "<\\/script").replace("<!--", "<\\!--"),
    )


def _specs(page: Page) -> dict[str, Any]:
    """The specification of each chart by the id of its place."""
    specs = {"metrics": page.metrics, "slices": page.slices}
    for number, run in enumerate(page.runs):
        panels: list[Panel] = [*run.training, *run.analyses, *run.lists]
        specs |= {f"{panel.name}-{number}": panel.spec for panel in panels if panel.spec}
    return {name: {key: value for key, value in spec.items() if key != "$schema"} for name, spec in specs.items()}


def signed(value: float) -> str:
    """A score with two digits and a sign of its own."""
    return f"{value:.2f}".replace("-", "−")


def rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Lines of a table."""
    return zip(*columns.values(), strict=True)


def as_json(node: Node) -> dict[str, Any]:
    """A tree of beams in JSON values."""
    return dataclasses.asdict(node)
