"""All ways to make a step of a search find the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_trie import catalog_of, random_rows, trie_of

pytest.importorskip("torch")

from benchmarks import trie_steps
from igd_jax.core.errors import InputError

VOCABULARY, BEAMS = 90, 3


@pytest.fixture(scope="module")
def ways() -> dict[str, list[trie_steps.Way]]:
    """Steps over titles some of whose first tokens have more children than are looked at for every node."""
    rng = np.random.default_rng(0)
    wide = [[first, second, 5, 0] for first in (1, 2, 3) for second in range(1, VOCABULARY)]
    titles = wide + random_rows(rng, 60, vocab=VOCABULARY, longest=6)
    logits = jax.random.normal(jax.random.key(0), (2, BEAMS, VOCABULARY)).at[..., 1:4].add(3.0)
    trie = trie_of(catalog_of(titles))
    search, csr = trie_steps.make_search(trie, num_beams=BEAMS), trie_steps.csr_of(trie)
    states, limits = trie_steps.searched(search, csr, logits, 3)
    states.append(trie_steps.at_widest_nodes(trie, states[0]))
    csr = trie_steps.Csr(*map(jnp.asarray, csr))
    return trie_steps.ways_of(search, csr, logits, states, [*limits, search.trie.width])


def test_all_ways_find_the_same_beams_and_results(ways):
    assert trie_steps.check(ways) < 1e-5
    n_done = 0
    for steps in zip(*ways.values(), strict=True):
        first, *others = (step(normalise=True) for step in steps)
        for other in others:
            for name in ("node", "token", "done_node", "clock", "is_open"):
                assert np.array_equal(getattr(first, name), getattr(other, name)), name
        n_done += np.isfinite(first.done_score).sum()
    assert n_done > 0


def test_ways_that_differ_are_told(ways):
    def wrong(*, normalise: bool):
        return ways["STATIC"][0](normalise=not normalise)

    with pytest.raises(InputError, match="differ in their scores"):
        trie_steps.check({**ways, "STATIC": [wrong, *ways["STATIC"][1:]]})
