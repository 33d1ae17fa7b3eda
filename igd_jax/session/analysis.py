"""The figures of the papers about one evaluation of a run: data, lists, groups of users and items, tokens, training.

`docs/analysis.md` says what each figure shows and where it comes from.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from igd_jax.core.io import Workdir
from igd_jax.core.ragged import Ragged
from igd_jax.data.examples import Examples
from igd_jax.data.tokenizer import Tokenizer
from igd_jax.evaluation.diversity import describe_choice
from igd_jax.evaluation.evaluations import CONFIG, PREDICTIONS
from igd_jax.evaluation.figures import Figure
from igd_jax.evaluation.groups import group_means, powers_of_two
from igd_jax.evaluation.lists import Lists, read_lists
from igd_jax.evaluation.metrics import CatalogueRows, row_metrics
from igd_jax.evaluation.queries import PROTOCOLS
from igd_jax.evaluation.user_metrics import query_metrics
from igd_jax.items.catalog import Catalog
from igd_jax.items.index import TokenWalk
from igd_jax.session.ranker import Ranker
from igd_jax.session.session import Session, set_up_to_decode
from igd_jax.settings.config_flags import config_at


@dataclass
class Analysis:
    """Facts and figures about an evaluation, and what was left out.

    Attributes:
      facts: numbers by name, in JSON values.
      figures: tables, most of them with a picture.
      left_out: one sentence for each part that does not apply.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and the run that it is of.

    Attributes:
      session: the run without its weights.
      workdir: folder of the run.
      walk: gain of the tokens of all items, over the candidates of training.
      catalogue: the catalogue.
      lists: queries, targets and lists.
      k: length of the lists that figures are about: the largest cut-off.
    """

    session: Session
    workdir: Workdir
    walk: TokenWalk
    catalogue: CatalogueRows
    lists: Lists
    k: int

    @cached_property
    def ranker(self) -> Ranker:
        """Ranker of the run, with the candidates of the evaluation; raises `InputError` if there are no weights.

        It is loaded when it is first asked for.
        """
        return Ranker(self.session, self.workdir)

    def examples(self, lists: Lists) -> Examples:
        """Histories of some queries, as the model reads them."""
        rows = self.session.rows(self.session.settings.eval.split)
        return self.ranker.examples(rows.take(lists.row))


def read_evaluated(workdir: Workdir, name: str) -> Evaluated:
    """Read an evaluation whose files agree (`read_evaluation`), and set up its run; weights are not loaded yet.

    Raises:
      InputError: it does not belong to the data and model as they are.
    """
    folder = workdir.eval(name)
    session = set_up_to_decode(config_at(folder / CONFIG), workdir)
    row_of_id = dict(zip(session.prepared.item_ids, session.index.catalog.row_of_item.tolist(), strict=True))
    n_rows, n_results = len(session.rows(session.settings.eval.split)), session.settings.decode.top_k
    lists = read_lists(folder / PREDICTIONS, row_of_id, n_rows=n_rows, n_results=n_results)
    walk, k = session.index.walk(), session.settings.eval.ks[-1]
    return Evaluated(session, workdir, walk, session.catalogue, lists, k)


def add_lists(found: Analysis, evaluated: Evaluated) -> None:
    """Diversity and popularity of the first results, of whole lists, and of the truth."""
    session, lists, k = evaluated.session, evaluated.lists, evaluated.k
    first_token = first_tokens(session.index.catalog, session.identifiers.texts, session.tokenizer)
    chosen = {"first result": lists.ranked[:, :1], f"top {k}": lists.ranked[:, :k], "truth": lists.targets.ids}
    rows = [
        {"of": name} | describe_choice(each[each >= 0], evaluated.catalogue, first_token)
        for name, each in chosen.items()
        if (each >= 0).any()
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    drawn = ("head", "mid", "tail", "first_token_top", "coverage", "gini")
    found.figures.append(Figure("lists", "Popularity and diversity of lists", columns, drawn, "share, or index"))


def first_tokens(catalog: Catalog, texts: Sequence[str] | None, tokenizer: Tokenizer) -> Int[np.ndarray, " N"]:
    """The token with which each catalogue row begins, int32; -1 for a blank title.

    Of words it is that of the bare text: some quotes are a token alone, others one with letters, so in quoted titles
    it would say how the tokenizer splits and not what is recommended. Of ids without a text it is the first that not
    all rows share.

    Args:
      catalog: the catalogue.
      texts: words of each item, or None; see `Identifiers.texts`.
      tokenizer: tokenizer of the words.
    """
    if texts is None:
        shared = int(catalog.lcp[1:].min(initial=catalog.lengths[0] - 1))
        return catalog.given.ids[catalog.given.start[catalog.first] + shared]
    words = [texts[item].strip() for item in catalog.first.tolist()]
    rows = Ragged.concatenate([*tokenizer.encode_parts("", words, "")])
    found, is_some = np.full(len(rows), -1, np.int32), rows.lengths > 0
    found[is_some] = rows.ids[rows.start[:-1][is_some]]
    return found


def add_groups(found: Analysis, evaluated: Evaluated) -> None:
    """Metrics by activity of users, by length of histories, and by popularity of targets."""
    session, lists, k = evaluated.session, evaluated.lists, evaluated.k
    rows = session.rows(session.settings.eval.split)
    protocol, rank = session.settings.eval.protocol, lists.rank_of_targets()
    hit = f"{PROTOCOLS[protocol]}@{k}"
    by_query = query_metrics(protocol, rank, lists.query, [k])
    activity = Counter(session.rows("train").user.tolist())
    by = {
        "users": ("by train rows of the user", np.array([activity[user] for user in rows.user[lists.row].tolist()])),
        "histories": ("by items in the history", rows.history.lengths[lists.row]),
    }
    for name, (title, size) in by.items():
        columns = group_means(*powers_of_two(size), {each: by_query[each] for each in (hit, f"ndcg@{k}")})
        found.figures.append(Figure(name, f"Metrics {title}", columns, (hit, f"ndcg@{k}"), "mean"))

    names, group = powers_of_two(evaluated.catalogue.count)
    by_target = row_metrics(rank, [k])
    columns = group_means(names, group[lists.targets.ids], {n: by_target[n] for n in (f"hr@{k}", f"ndcg@{k}")})
    listed = lists.ranked[:, :k]
    for name, members in {
        "candidates": np.flatnonzero(evaluated.catalogue.is_candidate),
        "recommended": listed[listed >= 0],
        "truth": lists.targets.ids,
    }.items():
        columns[name] = (np.bincount(group[members], minlength=len(names)) / max(len(members), 1)).tolist()
    drawn = (f"hr@{k}", "candidates", "recommended", "truth")
    found.figures.append(Figure("items", "By train targets of the item", columns, drawn, "mean, or share"))
