"""A page all of whose texts from data are scripts, which must stay texts."""

import dataclasses

from igd_jax.page.beams import Node
from igd_jax.page.build import Page
from igd_jax.page.lists import User
from igd_jax.page.tokens import ShownTitle

HOSTILE = "<script>alert(1)</script>"


def hostile(page: Page) -> Page:
    """The same page where every text that comes from data is `HOSTILE`."""
    (view,) = page.runs
    assert view.heat is not None
    assert view.items is not None
    titles = [*map(_title, view.heat.titles)]
    spoilt = dataclasses.replace(
        view,
        label=HOSTILE,
        about={HOSTILE: HOSTILE},
        command=HOSTILE,
        misses=None,
        users=[*map(_user, view.users)],
        heat=dataclasses.replace(view.heat, titles=titles),
        trees=[*map(_node, view.trees)],
        items={"rows": [[HOSTILE, HOSTILE, *row[2:]] for row in view.items["rows"]], "n_left_out": 1},
    )
    evaluations = [dataclasses.replace(each.evaluation, label=HOSTILE) for each in page.beside]
    beside = [dataclasses.replace(a, evaluation=b) for a, b in zip(page.beside, evaluations, strict=True)]
    return dataclasses.replace(page, title=HOSTILE, runs=[spoilt], beside=beside, apart=[HOSTILE])


def _user(user: User) -> User:
    ranked = [(HOSTILE, *rest) for _, *rest in user.ranked]
    return dataclasses.replace(user, name=HOSTILE, history=[HOSTILE], target=HOSTILE, ranked=ranked)


def _title(title: ShownTitle) -> ShownTitle:
    return dataclasses.replace(title, tokens=[dataclasses.replace(token, text=HOSTILE) for token in title.tokens])


def _node(node: Node) -> Node:
    return dataclasses.replace(node, text=HOSTILE, children=[*map(_node, node.children)])
