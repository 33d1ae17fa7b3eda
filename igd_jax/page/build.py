"""The content of the page: what its template shows, in the order of its sections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from igd_jax.core.errors import InputError, Unreachable
from igd_jax.core.io import read_json
from igd_jax.core.log import say
from igd_jax.evaluation.evaluations import CONFIG
from igd_jax.evaluation.figures import Figure
from igd_jax.evaluation.groups import Columns
from igd_jax.evaluation.queries import PROTOCOLS
from igd_jax.evaluation.tables import ENOUGH
from igd_jax.page.beams import Node, beam_trees
from igd_jax.page.charts import Spec, figure_chart, loss_chart, loss_figures, metric_chart, slice_chart
from igd_jax.page.facts import describe
from igd_jax.page.lists import User, chosen_queries, read_users, searched_items
from igd_jax.page.measured import Chosen, Measured
from igd_jax.page.texts import HOW_TO_READ
from igd_jax.page.tokens import HeatMap, heat_map
from igd_jax.session.analysis import Analysis, Evaluated, add_groups, add_lists, read_evaluated
from igd_jax.session.analysis_data import data_figure, gain_figure, training_figure
from igd_jax.session.analysis_model import add_tokens

T = TypeVar("T")

POPULARITY = "popularity"


@dataclass(frozen=True)
class Panel:
    """A figure with its sentence.

    Attributes:
      name: name of the figure.
      title: heading.
      columns: its numbers.
      spec: its chart; None = a table only.
    """

    name: str
    title: str
    columns: Columns
    spec: Spec | None

    @property
    def how(self) -> str:
        """How it is read."""
        return HOW_TO_READ[self.name]


@dataclass
class RunView:
    """What the page tells of one run.

    Attributes:
      label: name of its evaluation.
      about: the run in sentences, by what they are about.
      metrics: content of the metrics.json.
      k: largest cut-off.
      hit: name of the hit metric.
      command: command that adds ``beam_misses`` to the metrics.
      training, analyses, lists: figures.
      misses: ``beam_misses`` by cut-off; None if the evaluation has none.
      users: queries with their lists.
      queries: their numbers.
      heat: tokens of titles.
      trees: beams of the first of these queries.
      items: items for the search.
      left_out: a sentence for each part that is not there, by its name.
    """

    label: str
    about: Mapping[str, str]
    metrics: Mapping[str, Any]
    k: int
    hit: str
    command: str
    training: Sequence[Panel] = ()
    analyses: Sequence[Panel] = ()
    lists: Sequence[Panel] = ()
    misses: Columns | None = None
    users: Sequence[User] = ()
    queries: Sequence[int] = ()
    heat: HeatMap | None = None
    trees: Sequence[Node] = ()
    items: Mapping[str, Any] | None = None
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """All that the page tells.

    Attributes:
      title: names of the folders of the runs.
      runs: the runs.
      beside: evaluations that answer the same queries.
      names: metrics of their table.
      metrics, slices: charts of these.
      apart: a sentence for each evaluation that answers others.
      comparison: result of `igd_jax.compare` over `beside`; None if there is one only.
    """

    title: str
    runs: Sequence[RunView]
    beside: Sequence[Measured]
    names: Sequence[str]
    metrics: Spec
    slices: Spec
    apart: Sequence[str]
    comparison: Mapping[str, Any] | None


def page_of(chosen: Chosen, comparison: Mapping[str, Any] | None, *, with_model: bool, max_examples: int) -> Page:
    """Put the page together.

    Args:
      chosen: the evaluations.
      comparison: result of `igd_jax.compare` over those that answer the same queries, if there are several.
      with_model: whether models are run, for heat maps, beams and what else needs log-probabilities.
      max_examples: most queries on which they are run, evenly spread; 0 = all.
    """
    popular = chosen.main[0].metrics["popularity_baseline"]
    names = [name for name in popular if all(name in each.metrics for each in chosen.beside)]
    points = [
        {"metric": name, **point}
        for name in names
        if not name.startswith("coverage")  # on another scale
        for point in (*(_point(each, name) for each in chosen.beside), {"of": POPULARITY, "value": popular[name]})
    ]
    ndcg = f"ndcg@{_largest(chosen.main[0])}"
    bars = [
        {"x": name, "of": each.label, "y": values.get(ndcg), "few": values["n"] < ENOUGH}
        for each in chosen.beside
        for name, values in each.metrics["slices"].items()
    ]
    runs = [_run_view(each, with_model=with_model, max_examples=max_examples) for each in chosen.main]
    title = ", ".join(dict.fromkeys(each.workdir.path.name for each in chosen.main))
    charts = metric_chart(points), slice_chart(bars, ndcg)
    return Page(title, runs, chosen.beside, names, *charts, chosen.apart, comparison)


def _point(measured: Measured, name: str) -> dict[str, Any]:
    bounds = dict(zip(("low", "high"), measured.intervals.get(name, ()), strict=False))
    return {"of": measured.label, "value": measured.metrics[name], **bounds}


def _largest(measured: Measured) -> int:
    return max(measured.evaluation.ks)


def _run_view(measured: Measured, *, with_model: bool, max_examples: int) -> RunView:
    config, workdir = read_json(measured.folder / CONFIG), measured.workdir
    metrics, k = measured.metrics, _largest(measured)
    view = RunView(
        measured.label,
        describe(config, metrics, measured.evaluation.record.environment, workdir),
        metrics,
        k,
        f"{PROTOCOLS[metrics['protocol']]}@{k}",
        f"python -m igd_jax.evaluate --workdir={workdir.path} --name={measured.folder.name} --beam_misses=200",
    )
    losses = training_figure(workdir.metrics)
    if losses is not None:
        view.training = [Panel(each.name, each.title, each.columns, loss_chart(each)) for each in loss_figures(losses)]
    else:
        view.left_out["training"] = "the folder holds no losses of a run"
    if "beam_misses" in metrics:
        view.misses = _misses(metrics["beam_misses"])
    n = metrics["n"]
    evaluated = _tried(view, "data", lambda: read_evaluated(workdir, measured.folder.name))
    view.queries, view.users = chosen_queries(n), read_users(measured.folder, n, evaluated)
    if evaluated is not None:
        _add_analyses(view, evaluated)
        view.items = searched_items(evaluated)
        if with_model:
            _add_model(view, evaluated, max_examples=max_examples)
        else:
            view.left_out |= dict.fromkeys(("heat", "beam"), "the model was not run, as --nomodel says")
    return view


def _misses(told: Mapping[str, Any]) -> Columns:
    ks = [int(name.split("@")[1]) for name in told if name.startswith("lists@")]
    return {"k": ks} | {part: [told[f"{part}@{k}"] for k in ks] for part in ("lists", "results")}


def _tried(view: RunView, part: str, make: Callable[[], T]) -> T | None:
    """A part of the page; if it cannot be made, the reason is told in its place."""
    try:
        return make()
    except (InputError, Unreachable) as error:
        view.left_out[part] = str(error)
        say(f"left out: {part}: {error}")
        return None


def _add_analyses(view: RunView, evaluated: Evaluated) -> None:
    session, lists, groups = evaluated.session, Analysis(), Analysis()
    add_lists(lists, evaluated)
    add_groups(groups, evaluated)
    view.lists = [*map(_panel, [*lists.figures, *groups.figures])]
    view.analyses = [_panel(data_figure(session, evaluated.walk)), _panel(gain_figure(session, evaluated.walk))]


def _add_model(view: RunView, evaluated: Evaluated, *, max_examples: int) -> None:
    view.heat = _tried(view, "heat", lambda: heat_map(evaluated, max_examples=max_examples))
    view.trees = _tried(view, "beam", lambda: beam_trees(evaluated)) or ()
    if view.heat is None:
        return
    means = Figure("logp", "Log-probability before and after training", view.heat.by_gain, ("before", "after"), "nats")
    tokens = Analysis()
    add_tokens(tokens, evaluated, max_examples=max_examples)
    if tokens.left_out:
        view.left_out["figures"] = "; ".join(tokens.left_out)
        say(f"left out: {view.left_out['figures']}")
    view.analyses = [*view.analyses, *map(_panel, [means, *tokens.figures])]


def _panel(figure: Figure) -> Panel:
    return Panel(figure.name, figure.title, figure.columns, figure_chart(figure) if figure.drawn else None)
