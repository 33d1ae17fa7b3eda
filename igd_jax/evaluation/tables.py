"""Plain-text tables of metrics: Markdown that also reads well in a terminal."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from igd_jax.core.shown import shortened
from igd_jax.evaluation.origin import DECODING
from igd_jax.evaluation.queries import PROTOCOLS
from igd_jax.evaluation.significance import CONFIDENCE, MIN_USERS

ENOUGH = 50
"""Queries from which on the mean of a slice is told."""
BEAM = "; --beam_misses=N or, for small catalogues, --config.decode.search=exact shows whether the beam misses items"
"""What is told of a beam whose lists are no better than popularity."""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table: first column left-aligned, the others right-aligned; ``|`` in cells is escaped."""
    lines = [[text.replace("|", "\\|") for text in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(aligned)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])


def cell(value: str | int | float | None, *, none: str = "-") -> str:
    """Text of a cell: whole numbers in full, others with four digits, `none` for None, and texts as they are."""
    if value is None:
        return none
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else value


def evaluation_table(metrics: Mapping[str, Any], *, has_beam: bool, n_candidates: int) -> str:
    """What matters of a metrics.json in some ten lines: counts, metrics with intervals, slices, and how to read it.

    The metrics are hits at the smallest and the largest cut-off, and NDCG at the latter; the others stay in the file.

    Args:
      metrics: content of the metrics.json.
      has_beam: whether the lists come from a beam over the trie, which may miss what an exact ranking finds.
      n_candidates: number of distinct candidates.
    """
    hit = PROTOCOLS[metrics["protocol"]]
    ks = sorted(int(name.split("@")[1]) for name in metrics if name.startswith(f"{hit}@"))
    names = list(dict.fromkeys([f"{hit}@{ks[0]}", f"{hit}@{ks[-1]}", f"ndcg@{ks[-1]}"]))
    columns = {"popularity": metrics["popularity_baseline"]}
    if "id_exact" in metrics:
        columns = {"id-exact": metrics["id_exact"], **columns}
    rows = []
    for name in names:
        low, high = metrics["intervals"][name]
        interval = f"[{low:.4f}, {high:.4f}]"
        rows.append([name, cell(metrics[name]), interval, *(cell(column[name]) for column in columns.values())])
    table = markdown_table(["metric", "model", f"{CONFIDENCE:.0%} interval", *columns], rows)
    told = [f"{_slices(metrics, names[-1])}\n{_reading(metrics)}"]
    if metrics[names[-1]] <= metrics["popularity_baseline"][names[-1]]:
        advice = _advice(metrics, ks[-1], has_beam=has_beam, n_candidates=n_candidates)
        told.append(f"the model ranks no better than popularity: {advice}")
    return "\n\n".join([_counts(metrics), table, *told])


def _advice(metrics: Mapping[str, Any], k: int, *, has_beam: bool, n_candidates: int) -> str:
    """What to do about lists that are no better than popularity at the largest cut-off, k; what is evident first."""
    advice = []
    if n_invalid := metrics["invalid"]:
        advice.append(f"raise config.decode.max_new_tokens, which cut {n_invalid:,} results (0 = the longest title)")
    if n_candidates <= k:
        advice.append(
            f"a list of {k:,} has room for all {n_candidates:,} candidates, so give a smaller k in config.eval.ks, or "
            "more candidates"
        )
    else:
        longer = "train longer or, from random weights, with a higher config.train.learning_rate"
        advice.append(longer + BEAM * (has_beam and "beam_misses" not in metrics))
    return "; ".join(advice)


def _counts(metrics: Mapping[str, Any]) -> str:
    """What was ranked, and what was not as it should be."""
    n, absent = metrics["n"], metrics["target_absent"]
    if "ground_truth" in metrics:
        size = metrics["ground_truth"]
        counts = f"{n:,} users, {size['mean']:.2f} titles each to find, at most {size['max']:,}; "
        counts += f"{absent:,} titles that are not candidates; "
    else:
        counts = f"{n:,} rows, {absent:,} with a target that is not a candidate; "
    if "target_not_allowed" in metrics:
        counts += f"{metrics['target_not_allowed']:,} targets that are not allowed; "
    counts += f"{metrics['invalid']:,} invalid results"
    if metrics["ks_skipped"]:
        counts += f"; k = {', '.join(map(str, metrics['ks_skipped']))} left out: not from 1 to the results per row"
    return counts


def _slices(metrics: Mapping[str, Any], name: str) -> str:
    """One metric of each slice that has `ENOUGH` queries, and which have fewer."""
    told, few = [], []
    for group, values in metrics["slices"].items():
        if values["n"] < ENOUGH:
            few.append(f"{group} ({values['n']})")
        else:
            told.append(f"{group} {cell(values[name])} ({values['n']:,})")
    unsaid = [f"fewer than {ENOUGH}, so not told: {', '.join(few)}"] * bool(few)
    return f"{name} by target (with their number): {'; '.join([*[', '.join(told)] * bool(told), *unsaid])}"


def _reading(metrics: Mapping[str, Any]) -> str:
    """How to read the table."""
    n_users = metrics.get("n_users", MIN_USERS)  # older files do not tell
    few = f"; {n_users} users are too few to trust it, which takes {MIN_USERS}" if n_users < MIN_USERS else ""
    parts = [f"interval: over resampled users{few}", "popularity: the most frequent targets of training, for everybody"]
    if "id_exact" in metrics:
        parts.insert(1, "id-exact: a hit is the very item taken, not another of the same title")
    return "; ".join(parts)


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
                mark, (low, high) = "*" if metric["significant"] else " ", metric["together"]
                row.append(f"{metric['difference']:+.4f} [{low:+.4f}, {high:+.4f}] {mark}")
    header.append("popularity")
    for row in rows:
        row.append(cell(comparison["popularity"][row[0]]))
    return f"{markdown_table(header, rows)}\n\n{_legend(comparison)}"


def _value(metric: Mapping[str, Any], *, wins: bool) -> str:
    """Mean and, for several seeds, their standard deviation; bold if the method wins."""
    text = cell(metric["value"]) + (f" ± {metric['spread']:.4f}" if "spread" in metric else "")
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


def cautions(comparison: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about what differs beside the methods: data, candidates, decoding, steps of the weights of one run.

    Args:
      comparison: result of `compare.compare`.
    """
    data_of = {label: which for label, which in comparison["data"].items() if which is not None}
    if len(set(data_of.values())) > 1:
        yield f"Prepared data differ, though not the rows that are ranked: fingerprint {_by_value(data_of)}."
    if len(set((candidates := comparison["candidates"]).values())) > 1:
        told = _by_value({label: shortened(which or "not told") for label, which in candidates.items()})
        yield (
            f"Candidates differ: {told}; metrics among different ones are not comparable, and popularity is that among "
            "the first's."
        )
    if differing := list(_decoding(comparison["decoding"].values())):
        yield f"Decoding differs (config.decode, in the order of the methods): {', '.join(differing)}."
    steps: dict[str, dict[str, str]] = {}
    for label, weights in comparison["weights"].items():
        step = "untrained" if weights["step"] is None else f"step {weights['step']:,}"
        steps.setdefault(weights["run"], {})[label] = step
    for of_run in steps.values():
        if len(set(of_run.values())) > 1:
            yield f"Weights of one run differ: {_by_value(of_run)}."


def too_few(comparison: Mapping[str, Any]) -> Iterator[str]:
    """A sentence if the users of a result of `compare.compare` are too few for any difference to be significant."""
    if len(comparison["runs"]) > 1 and (n_users := comparison["n_users"]) < MIN_USERS:
        yield f"There are {n_users:,} users, too few to tell a difference from chance, which takes {MIN_USERS}."


def _decoding(settings: Collection[Mapping[str, Any]]) -> Iterator[str]:
    """``alpha 0 / 0.2 / chosen`` for each field whose told values are not all equal, one value per method."""
    for name in DECODING:
        told = [setting[name] for setting in settings if name in setting]
        if any(value != told[0] for value in told):
            yield f"{name} {' / '.join(_setting(setting, name) for setting in settings)}"


def _setting(setting: Mapping[str, Any], name: str) -> str:
    """The value of a field of `DECODING`; None = chosen on validation."""
    if name not in setting:
        return "not told"
    if (value := setting[name]) is None:
        return "chosen"
    return shortened(f"{value:g}" if isinstance(value, float) else str(value), 40) or "none"


def _by_value(value_of: Mapping[str, str]) -> str:
    """``catalogue (a, b), train (c)`` for labels and their values."""
    labels: dict[str, list[str]] = {}
    for label, value in value_of.items():
        labels.setdefault(value, []).append(label)
    return ", ".join(f"{value} ({', '.join(some)})" for value, some in labels.items())


def _legend(comparison: Mapping[str, Any]) -> str:
    confidence, several = comparison["confidence"], any(len(e) > 1 for e in comparison["evaluations"].values())
    split = comparison["split"] or "a split that no config.json names"
    candidates = set(comparison["candidates"].values())
    among = f", candidates: {shortened(str(*candidates))}" if len(candidates) == 1 and None not in candidates else ""
    parts = [f"{comparison['n']:,} {comparison['protocol']} of {split}, {comparison['targets']} targets{among}."]
    parts += cautions(comparison)
    parts += [f"{label}: {_chosen(choice)}." for label, choice in comparison["choices"].items()]
    if len(comparison["runs"]) > 1:
        parts.append(
            f"Difference to the first with its {confidence:.0%} interval (bootstrap over users, "
            f"{comparison['n_resamples']:,} resamples); * = differs from the first, bold = beats the second best, "
            f"both at {1 - confidence:.0%}; intervals, * and bold are corrected for all "
            f"{comparison['n_comparisons']:,} comparisons (pairs of methods times metrics, largest difference; * and "
            "bold step down)."
        )
        parts += too_few(comparison)
    if several:
        parts.append(
            "± = standard deviation over seeds; differences are of means over seeds, and users are resampled, seeds "
            "are not."
        )
    if comparison["ks_skipped"]:
        parts.append(f"k = {', '.join(map(str, comparison['ks_skipped']))} left out: not in every evaluation.")
    return " ".join(parts)
