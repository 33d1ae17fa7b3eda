"""The recurrence of docs/decoding.md against the same in plain Python; a table of edge scores stands for the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_search import edge_scores, plain_search
from table_search import (
    CASES,
    LONG,
    N_ROWS,
    SETTINGS,
    AsGiven,
    Built,
    Found,
    build,
    edges_of,
    first_step,
    found_of,
    next_step,
    run,
    smooth,
)

from igd_jax.decoding.recurrence import Hypotheses, advance, root

every_case = pytest.mark.parametrize("name", CASES)


def scored(logp: np.ndarray, factors: list[np.float32], alpha: float, temperature: float) -> np.ndarray:
    """Edge scores of all rows."""
    return np.stack([edge_scores(row, factors, alpha=alpha, temperature=temperature) for row in logp])


def tied(built: Built, seed: int, alpha: float) -> np.ndarray:
    """Edge scores of few whole numbers by factors of halves: sums are exact in any program, and often equal."""
    rng = np.random.default_rng(seed)
    factors = (rng.integers(0, 3, len(built.nodes)) / 2).astype(np.float32)
    factors[[0, *(node.number for node in built.nodes if node.parent and len(node.parent.children) == 1)]] = 0
    logp = -rng.integers(2, 5, (N_ROWS, len(built.nodes))).astype(np.float32)
    return scored(logp, list(factors), alpha, 1.0)


def assert_results(found: Found, row: int, table: np.ndarray, built: Built) -> None:
    """Same nodes in the same order, same scores, and nothing after them."""
    case = built.case
    expected = plain_search(
        built.nodes[0], list(table[row]), k=case.k, max_length=case.max_length, length_penalty=case.length_penalty
    )
    missing = case.k - len(expected)
    numbers = [number for _, number in expected]
    assert found.nodes[row].tolist() == numbers + [-1] * missing
    row_of = {leaf: r for r, leaf in enumerate(built.leaves)}
    assert found.rows[row].tolist() == [row_of.get(number, -1) for number in numbers] + [-1] * missing
    np.testing.assert_allclose(found.scores[row], [total for total, _ in expected] + [-np.inf] * missing, rtol=1e-6)


@every_case
@pytest.mark.parametrize("seed", range(3))
def test_results_are_those_of_the_recurrence(name, seed):
    built = build(name)
    for alpha, temperature in SETTINGS:
        table = scored(smooth(built, seed), built.factors, alpha, temperature)
        found = run(built, table)
        for row in range(N_ROWS):
            assert_results(found, row, table, built)


@every_case
@pytest.mark.parametrize("seed", range(3))
def test_ties_go_to_the_earlier_beam_then_the_lower_token_then_the_earlier_finished(name, seed):
    built = build(name)
    for alpha in (0.0, 0.5, 1.0):
        table = tied(built, seed, alpha)
        found = run(built, table)
        for row in range(N_ROWS):
            assert_results(found, row, table, built)


@pytest.mark.parametrize("name", ["many titles", "cut short"])
def test_the_compiled_loop_equals_a_python_loop_over_steps(name):
    built, is_real = build(name), np.arange(N_ROWS) != 2
    for alpha in (0.0, 0.5, 1.0):
        table = tied(built, 7, alpha)
        state = first_step(built.trie, table, is_real, AsGiven(), built.options)
        while state.is_open.any():
            state = next_step(state, built.trie, table, AsGiven(), built.options)
        jax.tree.map(np.testing.assert_array_equal, found_of(built.trie, state), run(built, table, is_real=is_real))


@pytest.mark.parametrize("name", ["one title", "as many titles as beams", "fewer titles than beams"])
def test_with_a_beam_for_each_title_the_ranking_is_that_of_all_titles(name):
    built = build(name)
    logp = smooth(built, 11)
    for alpha, temperature in SETTINGS:
        found = run(built, scored(logp, built.factors, alpha, temperature))
        for row in range(N_ROWS):
            final = {}
            for leaf in built.leaves:
                path = built.nodes[leaf].path()
                weighed = [logp[row, node.number] * (1 - alpha * built.factors[node.number]) for node in path]
                final[leaf] = sum(weighed) / temperature / len(path) ** built.case.length_penalty
            best = sorted(final, key=lambda leaf: -final[leaf])
            assert found.nodes[row][: len(best)].tolist() == best
            np.testing.assert_allclose(found.scores[row][: len(best)], [final[leaf] for leaf in best], rtol=1e-5)


@every_case
def test_rows_neither_see_their_neighbours_nor_rows_that_fill_up_the_batch(name):
    built = build(name)
    is_real = np.isin(np.arange(N_ROWS), [1, 4], invert=True)
    all_real = run(built, smooth(built, 17))
    some_real = run(built, np.where(is_real[:, None], smooth(built, 17), smooth(built, 18)), is_real=is_real)
    for alone, beside in zip(all_real, some_real, strict=True):
        np.testing.assert_array_equal(alone[is_real], beside[is_real])
    assert (np.stack([some_real.rows, some_real.nodes])[:, ~is_real] == -1).all()
    assert (some_real.scores[~is_real] == -np.inf).all()


@pytest.mark.parametrize("name", ["many titles", "cut short"])
def test_each_row_has_a_clock_of_its_own(name):
    """A row that begins while others run finds what it finds with them."""
    built = build(name)
    table = smooth(built, 19)
    begun = first_step(built.trie, table, np.ones(N_ROWS, bool), AsGiven(), built.options)
    state = first_step(built.trie, table, np.zeros(N_ROWS, bool), AsGiven(), built.options)
    begins, clocks = [0, 2, 1, 5, 0, 2], []
    turn = 0
    while turn <= max(begins) or state.is_open.any():
        new = np.flatnonzero(np.array(begins) == turn)
        state = jax.tree.map(lambda old, fresh, new=new: old.at[new].set(fresh[new]), state, begun)
        clocks.append(state.clock.tolist())
        state = next_step(state, built.trie, table, AsGiven(), built.options)
        turn += 1
    assert len(set(clocks[max(begins)])) > 2
    jax.tree.map(np.testing.assert_array_equal, found_of(built.trie, state), run(built, table))


@every_case
def test_what_is_returned_is_in_the_catalogue_once_and_cut_titles_have_a_node_but_no_row(name):
    built = build(name)
    for seed in range(20, 25):
        found = run(built, smooth(built, seed))
        for row in range(N_ROWS):
            here = found.nodes[row] >= 0
            assert (np.isfinite(found.scores[row]) == here).all()
            assert (np.diff(found.scores[row][here]) <= 0).all()
            assert len(set(found.nodes[row][here].tolist())) == here.sum()
            for node, title in zip(found.nodes[row][here], found.rows[row][here], strict=True):
                plain = built.nodes[node]
                if title >= 0:
                    assert built.leaves[title] == node
                else:
                    assert plain.children
                    assert len(plain.path()) == built.case.max_length
            assert (found.rows[row][~here] == -1).all()


def test_some_titles_are_cut_and_some_are_not():
    built = build("cut short, normalised")
    rows = np.concatenate([run(built, smooth(built, seed)).rows for seed in range(5)])
    assert (rows == -1).any()
    assert (rows >= 0).any()


def test_beams_know_their_parent_token_and_clock():
    """A sum is kept of each beam's path, so a wrong parent, token or clock changes scores."""
    built = build("sums")
    assert built.case.max_length == LONG
    trie, options = built.trie, built.options

    def lengthen(hypotheses: Hypotheses, path: jax.Array, width: int) -> Hypotheses:
        children = trie.children(hypotheses.node, width)
        numbers = -1.0 - ((path[:, :, None] * 5 + children.token * 3) % 13).astype(jnp.float32)
        return advance(hypotheses, edges_of(children, numbers, AsGiven()), eos=trie.eos, options=options)

    @jax.jit
    def go_on(hypotheses: Hypotheses, path: jax.Array) -> tuple[Hypotheses, jax.Array]:
        path = jnp.take_along_axis(path, hypotheses.parent, axis=1) * 7 + hypotheses.token * hypotheses.clock[:, None]
        return lengthen(hypotheses, path % 1009, trie.width), path % 1009

    begin = jax.jit(lambda hypotheses, path: lengthen(hypotheses, path, trie.root_width))
    hypotheses = begin(root(jnp.ones(N_ROWS, bool), num_beams=built.case.k), jnp.zeros((N_ROWS, 1), jnp.int32))
    summed = jnp.zeros((N_ROWS, built.case.k), jnp.int32)
    while hypotheses.is_open.any():
        hypotheses, summed = go_on(hypotheses, summed)

    path, table = {0: 0}, np.zeros(len(built.nodes), np.float32)
    for node in built.nodes[1:]:
        before = path[node.parent.number]
        table[node.number] = -1 - (before * 5 + node.token * 3) % 13
        path[node.number] = (before * 7 + node.token * len(node.path())) % 1009
    for row in range(N_ROWS):
        assert_results(found_of(built.trie, hypotheses), row, np.tile(table, (N_ROWS, 1)), built)
