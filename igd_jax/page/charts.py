"""Charts of the page as Vega-Lite specifications, drawn by Vega-Altair.

Colours are CSS variables of the page (templates/page.css), which follow the light or dark scheme and print without
being drawn again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from igd_jax.core.metrics_log import LOSSES_BY_GAIN
from igd_jax.evaluation.figures import Figure
from igd_jax.evaluation.metrics import POPULARITY_THIRDS
from igd_jax.evaluation.predictions import is_finite

Spec = dict[str, Any]

HEIGHT = 240
SLICES = [*POPULARITY_THIRDS, "warm", "cold"]
SERIES = [f"var(--series-{number})" for number in range(1, 7)]


def figure_chart(figure: Figure) -> Spec:
    """A figure of `igd_jax.analyse`: lines if its first column holds numbers, else bars."""
    first, at = next(iter(figure.columns.items()))
    values = [
        {"x": x, "y": value, "of": _words(name)}
        for name in figure.drawn
        for x, value in zip(at, figure.columns[name], strict=True)
        if is_finite(value)
    ]
    y = alt.Y("y:Q", title=figure.unit)
    if at and isinstance(at[0], str):
        x = alt.X("x:N", title=None, scale=alt.Scale(domain=at), axis=alt.Axis(labelAngle=-30 if len(at) > 4 else 0))
        return _spec(alt.Chart(alt.Data(values=values)).mark_bar().encode(x, y, _color(), xOffset=_offset()))
    x = alt.X("x:Q", title=_words(first), axis=alt.Axis(tickMinStep=1, grid=False))
    return _spec(alt.Chart(alt.Data(values=values)).mark_line(point={"size": 20}).encode(x, y, _color()))


def loss_figures(figure: Figure) -> list[Figure]:
    """The losses of a run: ``losses``, and ``by_gain``, those of forced and of deciding tokens, if there are any."""
    step, losses = figure.columns["step"], [name for name in figure.columns if name != "step"]
    of_gain = [name for name in losses if name.endswith(LOSSES_BY_GAIN)]
    found = []
    for name, title, drawn in (
        ("losses", "Losses", [each for each in losses if each not in of_gain]),
        ("by_gain", "Losses of forced and of deciding tokens", of_gain),
    ):
        if drawn:
            columns = {"step": step} | {each: figure.columns[each] for each in drawn}
            found.append(Figure(name, title, columns, tuple(drawn), figure.unit))
    return found


def loss_chart(figure: Figure) -> Spec:
    """A figure of `loss_figures`, the losses on valid dashed."""
    values = [
        {"x": step, "y": value, "of": _part(name), "split": "valid" if name.startswith("valid_") else "train"}
        for name in figure.drawn
        for step, value in zip(figure.columns["step"], figure.columns[name], strict=True)
        if is_finite(value)
    ]
    legend = alt.Legend(symbolType="stroke", symbolStrokeColor="var(--ink)", symbolFillColor="transparent")
    dash = alt.Scale(domain=["train", "valid"], range=[[1, 0], [5, 3]])
    x = alt.X("x:Q", title="step", axis=alt.Axis(tickMinStep=1, grid=False))
    y = alt.Y("y:Q", title=figure.unit, scale=alt.Scale(zero=False))
    chart = alt.Chart(alt.Data(values=values))
    lines = chart.mark_line().encode(x, y, _color(), alt.StrokeDash("split:N", title=None, scale=dash, legend=legend))
    points = chart.transform_filter("datum.split == 'valid'").mark_point(filled=True, size=28, opacity=1)
    return _spec(alt.layer(lines, points.encode(x, y, _color())))


def _part(name: str) -> str:
    """``all tokens`` for loss and valid_loss, ``forced`` for loss_forced, and so on."""
    return _words(name.removeprefix("valid_").removeprefix("loss").strip("_")) or "all tokens"


def metric_chart(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Metrics as points with intervals.

    Args:
      rows: ``metric``, ``of`` (an evaluation, or popularity), ``value``, and ``low`` and ``high`` of an interval.
    """
    chart = alt.Chart(alt.Data(values=list(rows)))
    y = alt.Y("metric:N", title=None, sort=None)
    offset = alt.YOffset("of:N", sort=None)
    value = alt.X("value:Q", title=None, axis=alt.Axis(tickCount=6))
    points = chart.mark_point(filled=True, size=50, opacity=1).encode(value, y, _color(), yOffset=offset)
    bounds = chart.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2)
    bounds = bounds.encode(alt.X("low:Q", title=None), alt.X2("high:Q"), y, _color(), yOffset=offset)
    n_series = len({row["of"] for row in rows})
    height = 40 + len({row["metric"] for row in rows}) * (14 + 9 * n_series)
    return _spec(alt.layer(bounds, points), height=height)


def slice_chart(rows: Sequence[Mapping[str, Any]], metric: str) -> Spec:
    """One metric by slice; bars of few queries are pale.

    Args:
      rows: ``x``, the slice; ``of``, an evaluation; ``y``, the metric; ``few``, whether it is of few queries.
      metric: its name.
    """
    chart = alt.Chart(alt.Data(values=list(rows))).mark_bar()
    x = alt.X("x:N", title=None, scale=alt.Scale(domain=SLICES), axis=alt.Axis(labelAngle=0))
    pale = alt.condition("datum.few", alt.value(0.35), alt.value(1))
    return _spec(chart.encode(x, alt.Y("y:Q", title=metric), _color(), xOffset=_offset(), opacity=pale))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _color() -> alt.Color:
    return alt.Color("of:N", title=None, sort=None, scale=alt.Scale(range=SERIES))


def _offset() -> alt.XOffset:
    return alt.XOffset("of:N", sort=None)


def _spec(chart: Any, *, height: int = HEIGHT) -> Spec:
    """The specification of a chart in the style of the page, as wide as its place."""
    ink, soft, line = "var(--ink)", "var(--soft)", "var(--line)"
    styled = (
        chart.properties(width="container", height=height)
        .configure(background="transparent", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=soft,
            titleColor=soft,
            gridColor=line,
            domainColor=line,
            tickColor=line,
            titleFontWeight="normal",
            labelFontSize=12,
            titleFontSize=12,
            labelLimit=200,
        )
        .configure_legend(labelColor=ink, orient="top", labelFontSize=12, labelLimit=260, columns=3)
    )
    return styled.to_dict()
