"""Figures for which the model of a run is run: tokens of true and of recommended titles, and the exact ranking."""

from dataclasses import replace

from igd_jax.evaluation.diversity import overlap
from igd_jax.evaluation.figures import Figure
from igd_jax.evaluation.groups import Columns
from igd_jax.evaluation.queries import PROTOCOLS, evenly_spaced
from igd_jax.evaluation.token_figures import GHOST, by_gain, by_place, describe_tokens
from igd_jax.evaluation.user_metrics import query_metrics
from igd_jax.methods.base import BACKBONE
from igd_jax.session.analysis import Analysis, Evaluated
from igd_jax.session.beam_misses import exact_beside, has_beam, ranked_exactly
from igd_jax.session.token_statistics import title_tokens

AFFORDABLE, MOST_EXACT = 60_000, 64
"""Title tokens that are scored for exact rankings unless a number of queries is given, and most queries then."""

SIDES = ("truth", "recommended")


def add_tokens(found: Analysis, evaluated: Evaluated, *, max_examples: int) -> None:
    """Log-probabilities by gain; entropy, ghost tokens and effect of the history by place.

    Args:
      found: where they are added.
      evaluated: the evaluation.
      max_examples: most queries, evenly spread; 0 = all.
    """
    session, lists, ranker = evaluated.session, evaluated.lists, evaluated.ranker
    if session.method.model_kind != BACKBONE:
        name = session.settings.method.name
        found.left_out.append(f"tokens, entropy, ghosts and history: {name} scores items and writes no text")
        return
    asked = evenly_spaced(len(lists), max_examples)
    queries = asked[lists.ranked[asked, 0] >= 0]
    if len(queries) < len(asked):
        found.left_out.append(
            f"tokens, entropy, ghosts and history: {len(asked) - len(queries):,} of {len(asked):,} queries, whose list "
            "has no item"
        )
    if not len(queries):
        return
    catalog, some = ranker.index.catalog, lists.take(queries)
    examples = evaluated.examples(some)
    rows = {"truth": some.first_targets, "recommended": some.ranked[:, 0]}
    tokens = {side: title_tokens(ranker, examples, catalog.first[rows[side]], evaluated.walk) for side in SIDES}
    found.facts["tokens"] = {"queries": len(queries), "ghost": GHOST} | {
        side: describe_tokens(tokens[side]) for side in SIDES
    }
    if (columns := by_gain(tokens["truth"]))["group"]:
        found.figures.append(Figure("gain_logp", "True tokens by gain (nats)", columns, ("logp", "entropy"), "nats"))
    else:
        found.left_out.append("gain_logp: all targets are off the trie (no candidate of training)")
    places = {side: by_place(tokens[side]) for side in SIDES}
    for name, title, parts, unit in (
        ("entropy", "Entropy at each token", ("entropy", "left"), "nats"),
        ("ghosts", f"Tokens of probability above {GHOST}", ("ghost",), "share"),
        ("history", "Effect of the history at each token", ("history",), "nats"),
    ):
        columns = _side_by_side(places, parts)
        found.figures.append(Figure(name, title, columns, tuple(f"{side}_{parts[0]}" for side in SIDES), unit))


def _side_by_side(places: dict[str, Columns], parts: tuple[str, ...]) -> Columns:
    """Columns of true and of recommended titles by place; None beyond the longest title of either."""
    length = max(len(columns["place"]) for columns in places.values())
    joined: Columns = {"place": list(range(1, length + 1))}
    for part in ("n", *parts):
        for side, columns in places.items():
            joined[f"{side}_{part}"] = columns[part] + [None] * (length - len(columns[part]))
    return joined


def add_exact(found: Analysis, evaluated: Evaluated, *, n_queries: int | None) -> None:
    """The lists of the beam beside those of an exact ranking.

    Args:
      found: where it is added.
      evaluated: the evaluation.
      n_queries: queries, evenly spread; None = as many as take little time, 0 = none.
    """
    lists = evaluated.lists
    if not has_beam(evaluated.ranker):
        found.left_out.append("exact: these lists come from no beam over the trie")
        return
    ranking = exact_beside(evaluated.ranker)
    cost = ranking.blocks.token.size
    n = min(len(lists), min(AFFORDABLE // cost, MOST_EXACT) if n_queries is None else n_queries)
    if not n:
        found.left_out.append(
            f"exact: {cost:,} tokens of candidates are read for each query; --exact_examples=N ranks N queries"
        )
        return
    some = lists.take(evenly_spaced(len(lists), n))
    exact = ranked_exactly(evaluated.ranker, ranking, some.row)
    protocol, ks = evaluated.session.settings.eval.protocol, sorted({1, *evaluated.session.settings.eval.ks})
    sides = {"beam": some, "exact": replace(some, ranked=exact)}
    metrics = {side: query_metrics(protocol, each.rank_of_targets(), each.query, ks) for side, each in sides.items()}
    columns: Columns = {"k": ks, "overlap": [float(overlap(exact, some.ranked, k).mean()) for k in ks]}
    for name in (PROTOCOLS[protocol], "ndcg"):
        for side in sides:
            columns[f"{side}_{name}"] = [float(metrics[side][f"{name}@{k}"].mean()) for k in ks]
    found.facts["exact"] = {"queries": n, "candidates_too_long": ranking.n_left_out}
    found.figures.append(Figure("exact", "The beam beside the exact ranking", columns, tuple(columns)[1:], "share"))
