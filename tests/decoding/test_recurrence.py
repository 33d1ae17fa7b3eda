"""The search against the recurrence of docs/decoding.md, The recurrence, in plain Python; a table of scores stands for the model."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_search import edge_scores, plain_factors, plain_search
from plain_trie import EOS, PlainNode, catalog_of, lists_of, plain_trie, random_rows

from igd_jax.core.types import Ranked
from igd_jax.decoding.beam_search import (
    Beams,
    Scorer,
    SearchOptions,
    beam_search,
    beam_step,
    begin,
    results,
    unfinished,
)
from igd_jax.decoding.device_trie import Children, DeviceTrie, device_trie
from igd_jax.items.info_gain import edge_gain
from igd_jax.items.trie import build_trie

N_ROWS = 6
ALL_REAL = jnp.ones(N_ROWS, bool)
LONG = 40
SETTINGS = [(0.0, 1.0), (0.2, 1.0), (1.0, 1.0), (0.0, 0.7), (0.4, 2.0)]  # alpha, temperature


class Case(NamedTuple):
    """A catalogue and what shapes the program: see `SearchOptions`."""

    rows: list[list[int]]
    k: int
    max_length: int
    length_penalty: float


def _rows(seed: int, n: int, **kwargs: int) -> list[list[int]]:
    return random_rows(np.random.default_rng(seed), n, **kwargs)


_CHAINS = [[a, *[7] * 9, b, *[8] * a, EOS] for a in range(1, 5) for b in range(1, 4)]
CASES = {
    "one title": Case([[3, 2, EOS]], 3, LONG, 0.0),
    "one title, cut": Case([[3, 2, 5, EOS]], 2, 2, 1.0),
    "as many titles as beams": Case([[1, EOS], [2, EOS], [2, 3, EOS], [2, 3, 4, EOS]], 4, LONG, 0.5),
    "fewer titles than beams": Case([[1, EOS], [1, 2, EOS], [2, EOS], [3, 3, 3, EOS]], 6, LONG, 1.0),
    "greedy": Case(_rows(0, 60), 1, LONG, 0.0),
    "two beams": Case(_rows(1, 60), 2, LONG, 0.5),
    "many titles": Case(_rows(2, 150), 4, LONG, 1.0),
    "sums": Case(_rows(3, 100), 5, LONG, 0.0),
    "cut short": Case(_rows(4, 100), 6, 3, 0.0),
    "cut short, normalised": Case(_rows(5, 100), 3, 4, 1.0),
    "cut at the first token": Case(_rows(6, 40), 3, 1, 1.0),
    "wide": Case([[token, EOS] for token in range(1, 80)] + [[80, token, EOS] for token in range(1, 90)], 4, LONG, 0.5),
    "forced chains": Case(_CHAINS, 5, LONG, 1.0),
    "forced chains, cut": Case(_CHAINS, 4, 13, 0.5),
}
every_case = pytest.mark.parametrize("name", CASES)


class Built(NamedTuple):
    """A case made ready: `search` takes (trie, table, alpha, temperature, is_real) and is compiled once."""

    case: Case
    nodes: list[PlainNode]
    factors: list[np.float32]
    leaves: list[int]
    trie: DeviceTrie
    search: Callable[..., Ranked]


@cache
def build(name: str) -> Built:
    case = CASES[name]
    counts = np.random.default_rng(len(case.rows)).integers(0, 9, len(case.rows)).tolist()
    catalog = catalog_of(case.rows, counts)
    host = build_trie(catalog)
    trie = device_trie(host, edge_gain(host, catalog.counts), max_length=int(catalog.tokens.lengths.max()))
    nodes = plain_trie(lists_of(catalog.tokens))

    @jax.jit
    def search(trie, table, alpha, temperature, is_real):
        return beam_search(table_scorer(table), trie, options_of(case, alpha, temperature), is_real=is_real)

    return Built(case, nodes, plain_factors(nodes, catalog.counts.tolist()), host.leaf.tolist(), trie, search)


def options_of(case: Case, alpha: float | jax.Array, temperature: float | jax.Array) -> SearchOptions:
    return SearchOptions(
        jnp.float32(alpha), jnp.float32(temperature), case.length_penalty, num_beams=case.k, max_length=case.max_length
    )


def table_scorer(table: jax.Array) -> Scorer:
    """A model that knows one number a node: the log-probability of its token after its path."""

    def look_up(children: Children) -> jax.Array:
        return jnp.take_along_axis(table[:, None], children.node, axis=2)

    return Scorer(lambda children: ((), look_up(children)), lambda carry, _, children: (carry, look_up(children)))


def run(built: Built, table: np.ndarray, alpha: float, temperature: float, is_real=ALL_REAL) -> Ranked:
    found = built.search(built.trie, table, np.float32(alpha), np.float32(temperature), jnp.asarray(is_real))
    return jax.tree.map(np.asarray, found)


def smooth(built: Built, seed: int) -> np.ndarray:
    """[N_ROWS M] log-probabilities, no two alike."""
    rng = np.random.default_rng(seed)
    return (-rng.gamma(1.0, 2.0, (N_ROWS, len(built.nodes))) - 1e-3).astype(np.float32)


def tied(built: Built, seed: int) -> tuple[Built, np.ndarray]:
    """Log-probabilities of few whole numbers, and factors of halves: sums are exact in any program, and often equal."""
    rng = np.random.default_rng(seed)
    factors = (rng.integers(0, 3, len(built.nodes)) / 2).astype(np.float32)
    forced = [node.number for node in built.nodes if node.parent and len(node.parent.children) == 1]
    factors[[0, *forced]] = 0
    trie = built.trie.replace(factor=jnp.asarray(factors)[built.trie.child])
    table = -rng.integers(2, 5, (N_ROWS, len(built.nodes))).astype(np.float32)
    return built._replace(trie=trie, factors=list(factors)), table


def expected_results(built: Built, logp: np.ndarray, alpha: float, temperature: float) -> list[tuple[np.float32, int]]:
    """Score and node of each result of one row, best first."""
    case = built.case
    score = edge_scores(logp, built.factors, alpha=alpha, temperature=temperature)
    return plain_search(built.nodes[0], score, k=case.k, max_length=case.max_length, length_penalty=case.length_penalty)


def assert_results(ranked: Ranked, row: int, expected: list[tuple[np.float32, int]], built: Built) -> None:
    """Same nodes in the same order, same scores, and nothing after them."""
    missing = built.case.k - len(expected)
    numbers = [number for _, number in expected]
    assert ranked.nodes[row].tolist() == numbers + [-1] * missing
    row_of = {leaf: r for r, leaf in enumerate(built.leaves)}
    assert ranked.rows[row].tolist() == [row_of.get(number, -1) for number in numbers] + [-1] * missing
    np.testing.assert_allclose(ranked.scores[row], [total for total, _ in expected] + [-np.inf] * missing, rtol=1e-6)


@every_case
@pytest.mark.parametrize("seed", range(3))
def test_results_are_those_of_the_recurrence(name, seed):
    built = build(name)
    table = smooth(built, seed)
    for alpha, temperature in SETTINGS:
        ranked = run(built, table, alpha, temperature)
        for row in range(N_ROWS):
            assert_results(ranked, row, expected_results(built, table[row], alpha, temperature), built)


@every_case
@pytest.mark.parametrize("seed", range(3))
def test_ties_go_to_the_earlier_beam_then_the_lower_token_then_the_earlier_finished(name, seed):
    built, table = tied(build(name), seed)
    for alpha in (0.0, 0.5, 1.0):
        ranked = run(built, table, alpha, 1.0)
        for row in range(N_ROWS):
            assert_results(ranked, row, expected_results(built, table[row], alpha, 1.0), built)


@pytest.mark.parametrize("name", ["many titles", "cut short"])
def test_the_compiled_loop_equals_a_python_loop_over_steps(name):
    built, table = tied(build(name), 7)
    is_real, scorer = jnp.arange(N_ROWS) != 2, table_scorer(jnp.asarray(table))
    first = jax.jit(lambda options: begin(scorer, built.trie, options, is_real=is_real))
    step = jax.jit(lambda state, options: beam_step(state, scorer, built.trie, options))
    for alpha in (0.0, 0.5, 1.0):
        options = options_of(built.case, alpha, 1.0)
        state = first(options)
        while unfinished(state, options.max_length):
            state = step(state, options)
        jax.tree.map(np.testing.assert_array_equal, results(state, built.trie), run(built, table, alpha, 1.0, is_real))


@pytest.mark.parametrize("name", ["one title", "as many titles as beams", "fewer titles than beams"])
def test_with_a_beam_for_each_title_the_ranking_is_that_of_all_titles(name):
    built = build(name)
    table = smooth(built, 11)
    for alpha, temperature in SETTINGS:
        ranked = run(built, table, alpha, temperature)
        for row in range(N_ROWS):
            final = {}
            for leaf in built.leaves:
                path = built.nodes[leaf].path()
                weighed = [table[row, node.number] * (1 - alpha * built.factors[node.number]) for node in path]
                final[leaf] = sum(weighed) / temperature / len(path) ** built.case.length_penalty
            best = sorted(final, key=lambda leaf: -final[leaf])
            assert ranked.nodes[row][: len(best)].tolist() == best
            np.testing.assert_allclose(ranked.scores[row][: len(best)], [final[leaf] for leaf in best], rtol=1e-5)


@every_case
def test_alpha_zero_is_plain_beam_search_to_the_bit(name):
    built = build(name)
    plain = built._replace(trie=built.trie.replace(factor=jnp.zeros_like(built.trie.factor)))
    jax.tree.map(
        np.testing.assert_array_equal, run(built, smooth(built, 13), 0.0, 1.0), run(plain, smooth(built, 13), 1.0, 1.0)
    )


@every_case
def test_rows_neither_see_their_neighbours_nor_rows_that_fill_up_the_batch(name):
    built = build(name)
    is_real = np.isin(np.arange(N_ROWS), [1, 4], invert=True)
    all_real = run(built, smooth(built, 17), 0.2, 1.0)
    some_real = run(built, np.where(is_real[:, None], smooth(built, 17), smooth(built, 18)), 0.2, 1.0, is_real)
    for alone, beside in zip(jax.tree.leaves(all_real), jax.tree.leaves(some_real), strict=True):
        np.testing.assert_array_equal(alone[is_real], beside[is_real])
    assert (np.stack([some_real.rows, some_real.nodes])[:, ~is_real] == -1).all()
    assert (some_real.scores[~is_real] == -np.inf).all()


@every_case
def test_what_is_returned_is_in_the_catalogue_once_and_cut_titles_have_a_node_but_no_row(name):
    built = build(name)
    for seed in range(20, 25):
        ranked = run(built, smooth(built, seed), 0.2, 1.0)
        for row in range(N_ROWS):
            here = ranked.nodes[row] >= 0
            assert (np.isfinite(ranked.scores[row]) == here).all()
            assert (np.diff(ranked.scores[row][here]) <= 0).all()
            assert len(set(ranked.nodes[row][here].tolist())) == here.sum()
            for node, title in zip(ranked.nodes[row][here], ranked.rows[row][here], strict=True):
                plain = built.nodes[node]
                if title >= 0:
                    assert built.leaves[title] == node
                else:
                    assert plain.children
                    assert len(plain.path()) == built.case.max_length
            assert (ranked.rows[row][~here] == -1).all()


def test_some_titles_are_cut_and_some_are_not():
    built = build("cut short, normalised")
    rows = np.concatenate([run(built, smooth(built, seed), 0.0, 1.0).rows for seed in range(5)])
    assert (rows == -1).any()
    assert (rows >= 0).any()


def test_a_sure_token_still_costs_as_much_as_in_the_reference():
    built = build("one title")
    ranked = run(built, np.zeros((N_ROWS, len(built.nodes)), np.float32), 0.0, 1.0)
    np.testing.assert_allclose(ranked.scores[:, 0], -3e-7, rtol=1e-5)


def test_temperature_alone_rescales_scores_and_keeps_the_order():
    built = build("many titles")
    cold, warm = (run(built, smooth(built, 29), 0.2, temperature) for temperature in (1.0, 4.0))
    np.testing.assert_array_equal(cold.rows, warm.rows)
    np.testing.assert_allclose(cold.scores, 4 * warm.scores, rtol=1e-5)


def test_beams_carry_the_state_of_their_parents_and_know_token_and_clock():
    """The scorer keeps a sum of each beam's path, so a wrong parent, token or clock changes scores."""
    built = build("sums")

    def logp(path: jax.Array, children: Children) -> jax.Array:
        return -1.0 - ((path[:, :, None] * 5 + children.token * 3) % 13).astype(jnp.float32)

    def start(children: Children) -> tuple[jax.Array, jax.Array]:
        none = jnp.zeros((N_ROWS, built.case.k), jnp.int32)
        return none, logp(none[:, :1], children)

    def step(path: jax.Array, beams: Beams, children: Children) -> tuple[jax.Array, jax.Array]:
        path = jnp.take_along_axis(path, beams.parent, axis=1) * 7 + beams.token * beams.clock
        return path % 1009, logp(path % 1009, children)

    options = options_of(built.case, 0.0, 1.0)
    search = jax.jit(lambda is_real: beam_search(Scorer(start, step), built.trie, options, is_real=is_real))
    ranked = jax.tree.map(np.asarray, search(ALL_REAL))
    path, table = {0: 0}, np.zeros(len(built.nodes), np.float32)
    for node in built.nodes[1:]:
        before = path[node.parent.number]
        table[node.number] = -1 - (before * 5 + node.token * 3) % 13
        path[node.number] = (before * 7 + node.token * len(node.path())) % 1009
    for row in range(N_ROWS):
        assert_results(ranked, row, expected_results(built, table, 0.0, 1.0), built)


def test_one_trace_serves_all_weights_temperatures_and_batches():
    built, traces = build("two beams"), []

    @jax.jit
    def search(table, alpha, temperature):
        traces.append(1)
        options = options_of(built.case, alpha, temperature)
        return beam_search(table_scorer(table), built.trie, options, is_real=ALL_REAL)

    found = [search(smooth(built, seed), *map(np.float32, setting)) for seed in range(3) for setting in SETTINGS]
    assert len(traces) == 1
    assert not np.array_equal(found[0].rows, found[-1].rows)
