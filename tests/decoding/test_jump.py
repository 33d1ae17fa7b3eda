"""The search that reads whole chains per call finds what the stepwise one finds, whatever the trie and the options."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx, struct
from plain_trie import EOS, random_rows
from searches import assert_same_lists, engine_of, index_of, jump_of, lists
from table_model import Padded, Sizes, TableModel, padded
from tiny_models import VOCAB as TINY_VOCAB
from tiny_models import random_model

from igd_jax.core.types import TextBatch
from igd_jax.decoding.jump import FEWEST, ON_CPU, Jump, budget_of
from igd_jax.decoding.mixture import Mixture
from igd_jax.decoding.normalizing import AmongChildren
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.restriction import Restricted
from igd_jax.decoding.stepwise import Stepwise
from igd_jax.models.backbone import Backbone
from igd_jax.models.lora import TARGETS, LoRA, add_lora

N_ROWS, VOCAB, LONGEST = 8, 100, 40
LAST = VOCAB - 1
"""An id above all others: where it ends titles, the end is the last of its siblings and not the first."""


def _random(rng: np.random.Generator) -> list[list[int]]:
    """Titles of few tokens: the trie branches everywhere."""
    return random_rows(rng, int(rng.integers(1, 60)), vocab=int(rng.integers(3, 20)), longest=int(rng.integers(3, 12)))


def _chains(rng: np.random.Generator) -> list[list[int]]:
    """Long titles that branch early, late, or by their ends alone."""
    rows = []
    for _ in range(rng.integers(1, 8)):
        stem = rng.integers(1, VOCAB - 1, rng.integers(1, LONGEST - 10)).tolist()
        rows += [[*stem, *rng.integers(1, 5, rng.integers(0, 9)).tolist(), EOS] for _ in range(rng.integers(1, 4))]
    return rows


def _ends_last(rng: np.random.Generator) -> list[list[int]]:
    return [[*row[:-1], LAST] for row in _random(rng)]


def _fan(rng: np.random.Generator) -> list[list[int]]:
    """Nodes wider than what is looked at for every node, below the root and below another."""
    wide = rng.choice(np.arange(1, VOCAB - 1), 90, replace=False).tolist()
    tails = random_rows(rng, 90, vocab=5, longest=4)
    return (
        [[3, first, *tail] for first, tail in zip(wide, tails, strict=True)]
        + [[3, EOS]]
        + [[first, 3, second, EOS] for first, second in zip(wide[:20], wide[20:40], strict=True)]
    )


KINDS_OF_NETWORKS = ("T5 1.0", "adapters", "bfloat16")
KINDS = {"random": _random, "chains": _chains, "ends last": _ends_last, "fan": _fan}


class Case(NamedTuple):
    """A program: what shapes it, and the kinds of catalogues that it searches."""

    k: int
    n_tokens: int
    fill: int
    length_penalty: float = 0.0
    max_length: int = LONGEST
    kinds: tuple[str, ...] = ("random", "chains")
    is_mixed: bool = False
    temperature: float = 1.0
    n_catalogues: int = 24
    sizes: Sizes = Sizes(VOCAB, 1000, 240, 64, 20)


CASES = {
    "filled, mixed among children": Case(5, 24, 24, length_penalty=1.0, is_mixed=True, temperature=0.7),
    "as needed": Case(4, 24, 0),
    "greedy, a token per call": Case(1, 1, 0, length_penalty=0.5, n_catalogues=16),
    "cut": Case(3, 7, 7, length_penalty=1.0, max_length=6, kinds=("random", "chains", "ends last"), n_catalogues=120),
    "cut at the first token": Case(3, 8, 8, max_length=1, n_catalogues=12),
    "many beams": Case(50, 64, 32, n_catalogues=8),
    "wide": Case(2, 16, 16, kinds=("fan",), n_catalogues=16, sizes=Sizes(VOCAB, 1000, 320, 128, 98)),
}
FAST = ("filled, mixed among children",)


@struct.dataclass
class Rounded:
    """Whole numbers, so that sums are exact in any program and often equal; or the score as it is."""

    then: Any
    is_rounded: jax.Array

    def of_rows(self, batch: TextBatch) -> Any:
        return self.then.of_rows(batch)

    def __call__(self, *args: Any) -> jax.Array:
        score = self.then(*args)
        return jnp.where(self.is_rounded, jnp.round(score), score)


def mixed(built: Padded, sizes: Sizes) -> Restricted:
    """The score of a mixture with a collaborative source, of log-probabilities among children."""
    then = built.score.then
    mixture = Mixture(jnp.arange(sizes.rows), then.siblings, jnp.float32(0.6), then, sizes.rows)
    return built.score.replace(then=AmongChildren(mixture))


def catalogues(case: Case, n: int, seed: int) -> Iterator[tuple[Padded, jax.Array]]:
    """Catalogues with duplicate titles and popularities, each with a mask of what each row may be recommended."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        rows = KINDS[case.kinds[number % len(case.kinds)]](rng)
        counts = rng.integers(0, 9, len(rows)).tolist()
        built = padded(rows, counts, case.sizes, alpha=float(rng.choice([0.0, 0.3, 1.0])))
        share = rng.choice([1.1, 0.5, 0.1], (N_ROWS, 1))
        yield built, jnp.asarray(rng.random((N_ROWS, case.sizes.rows)) < share)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_lists_order_and_scores_are_those_of_the_stepwise_search(name):
    case = CASES[name]
    graph, weights = nnx.split(TableModel(VOCAB, seed=0))
    rng = np.random.default_rng(len(name))
    n_found = 0
    for number, (built, allowed) in enumerate(catalogues(case, case.n_catalogues, seed=len(name))):
        search = {
            "graph": graph,
            "weights": weights,
            "trie": built.trie,
            "edge_score": Rounded(
                mixed(built, case.sizes) if case.is_mixed else built.score, jnp.array(number % 3 == 2)
            ),
            "softmax_temperature": case.temperature,
            "options": SearchOptions(case.k, case.max_length, case.length_penalty),
            "top_k": case.k,
        }
        prompts = [rng.integers(1, VOCAB, rng.integers(1, 5)).tolist() for _ in range(N_ROWS - 1)] + [[]]
        source = jnp.asarray(rng.normal(0, 2, (N_ROWS, case.sizes.rows)), jnp.float32)
        batch = text_batch(prompts, width=5).replace(allowed=allowed, collaborative=source)
        expected = lists(Stepwise(**search), batch)
        found = lists(Jump(**search, chains=built.chains, n_tokens=case.n_tokens, fill=case.fill), batch)
        assert_same_lists(found, expected)
        n_found += int((found.scores > -np.inf).sum())
    assert n_found > case.n_catalogues


def _network(kind: str) -> Backbone:
    """A random model, of a decoder also with adapters, or with weights and computation in bfloat16."""
    if kind not in ("adapters", "bfloat16"):
        return random_model(kind)
    model = random_model("decoder")
    if kind == "adapters":
        add_lora(model, LoRA(2, 4.0, ",".join(TARGETS)), rngs=nnx.Rngs(1))
        graph, weights = nnx.split(model)
        random = np.random.default_rng(2)  # the second factor of an adapter is zero at first
        return nnx.merge(graph, jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(x.dtype), weights))
    model.dtype = jnp.dtype(jnp.bfloat16)
    graph, weights = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.bfloat16), weights))


@pytest.mark.parametrize("kind", ["decoder", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS_OF_NETWORKS)])
def test_a_network_finds_what_it_finds_token_by_token(kind):
    """A T5 has the positions of the slots in its biases, and the prompt in its encoder."""
    rng = np.random.default_rng(8)
    rows = random_rows(rng, 60, vocab=TINY_VOCAB, longest=9)
    index = index_of([*rows, *[[5, 6, 7, *row[-4:]] for row in rows[:20]]])
    stepwise = engine_of(_network(kind), index, k=4, alpha=0.3, length_penalty=0.5)
    jump = jump_of(stepwise, index, n_tokens=6, fill=6)
    batch = text_batch([[5, 6, 7, 8, 9], [3], [11, 2, 11]], width=6, shared=[4, 4])
    found, expected = lists(jump, batch), lists(stepwise, batch)
    if kind == "bfloat16":  # which rounds to 8 bits, by the shape of each product: near titles may swap
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0.03)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(found.rows, expected.rows, strict=True)]) >= 3
    else:
        assert_same_lists(found, expected)


@pytest.mark.parametrize(
    ("platform", "n_rows", "expected"), [("cpu", 1, ON_CPU), ("gpu", 1, 128), ("gpu", 4, 64), ("tpu", 64, FEWEST)]
)
def test_the_budget_goes_by_batch_and_the_devices_that_run_it(platform, n_rows, expected):
    budget = budget_of(-1, n_rows=n_rows, platform=platform)
    assert budget == {"n_tokens": expected, "fill": expected}
