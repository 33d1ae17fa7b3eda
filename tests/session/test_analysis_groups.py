"""Groups of users, histories and items in an analysis, counted by hand."""

from dataclasses import replace

import numpy as np
from tiny_run import tiny_config

from igd_jax.core.io import Workdir
from igd_jax.core.ragged import Ragged
from igd_jax.evaluation.lists import Lists
from igd_jax.session.analysis import Analysis, Evaluated, add_groups
from igd_jax.session.session import set_up_to_decode


def _texts(*values: str) -> np.ndarray:
    return np.array(values, object)


def test_queries_are_grouped_by_train_rows_items_of_the_history_and_train_targets(tiny, tmp_path):
    workdir = Workdir(str(tmp_path))
    session = set_up_to_decode(tiny_config(tiny), workdir)
    splits = session.prepared.splits
    train = splits["train"].take(np.arange(6))
    train = replace(train, user=_texts("once", "often", "often", "other", "often", "other"))
    test = replace(
        splits["test"].take(np.arange(4)),
        user=_texts("often", "new", "once", "often"),
        history=Ragged.from_lists([[5], [0, 1], [7, 8, 9], [2, 3, 4, 5]]),
    )
    prepared = replace(session.prepared, splits={**splits, "train": train, "test": test})
    catalogue = replace(session.catalogue, count=np.array([0, 1, 2, 3, 5, *[0] * 17]))
    lists = Lists(
        row=np.array([3, 0, 1, 2]),  # whose users are often, often, new and once
        ranked=np.array([[4, 3, 1], [2, -1, -1], [1, 4, 0], [4, 2, 3]]),
        targets=Ragged.from_lists([[4], [0], [1], [2]]),
    )
    session = replace(session, prepared=prepared)
    add_groups(found := Analysis(), Evaluated(session, workdir, session.index.walk(), catalogue, lists, 2))
    users, histories, items = (figure.columns for figure in found.figures)

    assert users["group"] == ["0", "1", "2-3"]
    assert (users["n"], users["hr@2"]) == ([1, 1, 2], [1, 1, 0.5])
    assert histories["group"] == ["0", "1", "2-3", "4-7"]
    assert (histories["n"], histories["hr@2"]) == ([0, 1, 2, 1], [None, 0, 1, 1])
    assert items["group"] == ["0", "1", "2-3", "4-7"]
    assert (items["n"], items["hr@2"]) == ([1, 1, 1, 1], [0, 1, 1, 1])
    assert items["recommended"] == [0, 1 / 7, 3 / 7, 3 / 7]
    assert items["candidates"] == [18 / 22, 1 / 22, 2 / 22, 1 / 22]
    assert items["truth"] == [0.25] * 4
