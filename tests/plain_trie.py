"""A trie of dictionaries, slow and plain: what the arrays of `igd_jax.items` are compared with."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from igd_jax.core.ragged import Ragged
from igd_jax.items.catalog import Catalog, build_catalog
from igd_jax.items.trie import Trie, build_trie

EOS = 0


@dataclass(eq=False)
class PlainNode:
    """One title prefix. `rows` are the rows below it, ascending; `number` counts depth first, children by token."""

    token: int = -1
    parent: "PlainNode | None" = None
    children: dict[int, "PlainNode"] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    number: int = 0

    def by_token(self) -> list["PlainNode"]:
        """Its children, by token."""
        return [self.children[token] for token in sorted(self.children)]

    def path(self) -> list["PlainNode"]:
        """The nodes from the first token's to its own."""
        return [] if self.parent is None else [*self.parent.path(), self]

    def below(self) -> Iterator["PlainNode"]:
        """The node itself and all below it, depth first."""
        yield self
        for child in self.by_token():
            yield from child.below()


def plain_trie(rows: list[list[int]]) -> list[PlainNode]:
    """All nodes over the given rows, by number."""
    root = PlainNode()
    for r, row in enumerate(rows):
        node = root
        node.rows.append(r)
        for token in row:
            node = node.children.setdefault(token, PlainNode(token, node))
            node.rows.append(r)
    nodes = list(root.below())
    for number, node in enumerate(nodes):
        node.number = number
    return nodes


def plain_entropy(node: PlainNode, counts: list[int]) -> float:
    """H in nats: the sum of -p ln p over the rows below."""
    p = [counts[r] / sum(counts) for r in node.rows if counts[r]]
    return -float(sum(x * np.log(x) for x in p))


def random_rows(rng: np.random.Generator, n: int, *, vocab: int = 6, longest: int = 8) -> list[list[int]]:
    """Titles as token rows ending in EOS; a third of them begin like an earlier one, and some are equal."""
    rows: list[list[int]] = []
    for _ in range(n):
        row = rng.integers(1, vocab, rng.integers(0, longest)).tolist()
        if rows and rng.random() < 1 / 3:
            earlier = rows[rng.integers(len(rows))][:-1]
            row = (earlier[: rng.integers(len(earlier) + 1)] + row)[: longest - 1]
        rows.append([*row, EOS])
    return rows


def catalog_of(rows: list[list[int]], counts: list[int] | None = None) -> Catalog:
    """A catalogue of one item per row; every count is 1 when none are given."""
    return build_catalog(Ragged.from_lists(rows), np.array([1] * len(rows) if counts is None else counts))


def trie_of(catalog: Catalog) -> Trie:
    """The trie of all rows of a catalogue."""
    return build_trie(catalog, np.ones(len(catalog), bool))


def lists_of(rows: Ragged) -> list[list[int]]:
    """The rows as lists."""
    return [rows[r].tolist() for r in range(len(rows))]
