"""Plain-text tables of metrics: Markdown that also reads well in a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table: first column left-aligned, the others right-aligned; ``|`` in cells is escaped."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(aligned)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])


def _cell(value: int | float | None) -> str:
    """Text of a cell: counts in full, metrics with four digits, ``-`` for None."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _columns(columns: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    rows = [[name, *(_cell(column.get(name)) for column in columns.values())] for name in names]
    return markdown_table(["metric", *columns], rows)


def evaluation_table(metrics: Mapping[str, Any]) -> str:
    """Table of a metrics.json, by rows or by users: counts, model and popularity baseline, slices."""
    n, absent, main = metrics["n"], metrics["target_absent"], {"model": metrics}
    if "ground_truth" in metrics:
        size = metrics["ground_truth"]
        counts = f"{n:,} users, {size['mean']:.2f} titles each to find, at most {size['max']:,}; "
        counts += f"{absent:,} titles that are no candidate; "
    else:
        counts = f"{n:,} rows, {absent:,} with a target that is no candidate; "
        main["model, id-exact"] = metrics["id_exact"]
    counts += f"{metrics['invalid']:,} invalid results"
    if metrics["ks_skipped"]:
        counts += f"; k = {', '.join(map(str, metrics['ks_skipped']))} left out: not from 1 to the results per row"
    main["popularity"] = metrics["popularity_baseline"]
    slices = metrics["slices"]
    return "\n\n".join([counts, _columns(main, list(main["popularity"])), _columns(slices, list(slices["warm"]))])


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Table of the result of `compare.compare`: a row per metric; methods after the first with differences to it."""
    header, rows = ["metric"], [[name] for name in comparison["popularity"]]
    for label, metrics in comparison["runs"].items():
        n_seeds = len(comparison["evaluations"][label])
        header.append(f"{label} ({n_seeds} seeds)" if n_seeds > 1 else label)
        is_reference = label == comparison["reference"]
        header += [] if is_reference else ["difference"]
        for row in rows:
            metric = metrics[row[0]]
            row.append(_value(metric, wins=comparison["winner"][row[0]] == label))
            if not is_reference:
                mark = "*" if metric["significant"] else " "
                row.append(f"{metric['difference']:+.4f} [{metric['low']:+.4f}, {metric['high']:+.4f}] {mark}")
    header.append("popularity")
    for row in rows:
        row.append(_cell(comparison["popularity"][row[0]]))
    return f"{markdown_table(header, rows)}\n\n{_legend(comparison)}"


def _value(metric: Mapping[str, Any], *, wins: bool) -> str:
    """Mean and, for several seeds, their standard deviation; bold if the method wins."""
    text = _cell(metric["value"]) + (f" ± {metric['spread']:.4f}" if "spread" in metric else "")
    return f"**{text}**" if wins else text


def _chosen(choice: Mapping[str, Any]) -> str:
    """``decode.alpha chosen from 0.0, 0.2 (0.2, 0.0) by ndcg@10 on 500 rows of valid``, one value per evaluation."""

    def listed(values: Iterable[Any]) -> str:
        return ", ".join(map(str, values))

    tried = choice["tried"].items()
    fields = [
        f"{field} chosen from {listed(values)} ({listed(found[field] for found in choice['chosen'])})"
        for field, values in tried
    ]
    return f"{'; '.join(fields)} by {choice['metric']} on {choice['n']:,} {choice['protocol']} of {choice['split']}"


def _legend(comparison: Mapping[str, Any]) -> str:
    confidence, several = comparison["confidence"], any(len(e) > 1 for e in comparison["evaluations"].values())
    split = comparison["split"] or "a split that no config.json names"
    parts = [f"{comparison['n']:,} {comparison['protocol']} of {split}, {comparison['targets']} targets."]
    parts += [f"{label}: {_chosen(choice)}." for label, choice in comparison["choices"].items()]
    if len(comparison["runs"]) == 1:
        parts.append("There is one method only, so nothing to compare: name an evaluation of another config.")
    else:
        parts.append(
            f"Difference to the first with its {confidence:.0%} interval (bootstrap over users, "
            f"{comparison['n_resamples']:,} resamples); * = differs from the first, bold = beats the second best, "
            f"both at {1 - confidence:.0%} after correction for all {comparison['n_comparisons']:,} comparisons (pairs "
            "of methods times metrics, step-down maximum)."
        )
    if several:
        parts.append(
            "± = standard deviation over seeds; differences are of means over seeds, and users are resampled, seeds "
            "are not."
        )
    if comparison["ks_skipped"]:
        parts.append(f"k = {', '.join(map(str, comparison['ks_skipped']))} left out: not in every evaluation.")
    return " ".join(parts)
