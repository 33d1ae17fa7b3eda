"""Scores out of the cache are those of whole sequences run without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from igd_jax.decoding.beam_search import Beams, SearchOptions, beam_search
from igd_jax.decoding.lm_scorer import lm_scorer
from plain_trie import catalog_of, lists_of, plain_trie, random_rows

from igd_jax.core.types import Batch
from igd_jax.decoding.device_trie import Children, device_trie
from igd_jax.items.info_gain import edge_gain
from igd_jax.items.trie import build_trie
from igd_jax.models.config import ModelConfig
from igd_jax.models.decoder import Decoder
from igd_jax.models.layers import causal_mask, positions_of

VOCAB = 23
K, LENGTH = 3, 5
PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 2, 11]]


@pytest.fixture(scope="module")
def model() -> Decoder:
    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        mlp_size=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=4,
        rope_theta=100.0,
        rms_norm_eps=1e-6,
        tie_embeddings=False,
        qkv_bias=True,
        max_positions=64,
    )

    @nnx.jit
    def make() -> Decoder:
        graph, weights = nnx.split(Decoder(config, rngs=nnx.Rngs(0)))
        return nnx.merge(graph, jax.tree.map(lambda x: x * 6.0, weights))  # else all tokens are about equally likely

    return make()


def batch_of(prompts: list[list[int]], width: int) -> Batch:
    ids = np.array([[0] * (width - len(prompt)) + prompt for prompt in prompts], np.int32)
    mask = np.arange(width) >= width - np.array([[len(prompt)] for prompt in prompts])
    return {"prompt": jnp.asarray(ids), "prompt_mask": jnp.asarray(mask)}


@nnx.jit
def all_logp(model: Decoder, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    hidden, _ = model(tokens, positions=positions_of(mask), mask=causal_mask(mask))
    return jax.nn.log_softmax(model.logits(hidden), axis=-1)


def plain_logp(model: Decoder, sequences: list[list[int]]) -> np.ndarray:
    """[n V]: log-probabilities of the token after each sequence, in one pass over right-padded rows."""
    width = 12
    tokens = np.array([row + [0] * (width - len(row)) for row in sequences], np.int32)
    mask = np.arange(width) < np.array([[len(row)] for row in sequences])
    return np.asarray(all_logp(model, jnp.asarray(tokens), jnp.asarray(mask)))[
        np.arange(len(sequences)), mask.sum(1) - 1
    ]


def children_of(rng: np.random.Generator, beams: int) -> Children:
    """Any tokens; the model knows nothing of nodes."""
    token = jnp.asarray(rng.integers(0, VOCAB, (len(PROMPTS), beams, 4)), jnp.int32)
    return Children(jnp.zeros_like(token), token, jnp.zeros_like(token), jnp.ones(token.shape, bool))


@pytest.mark.parametrize("width", [5, 9])
def test_children_score_as_after_a_full_pass_over_their_beam_whatever_its_parents_and_padding(model, width):
    rng = np.random.default_rng(1)
    scorer = lm_scorer(model, batch_of(PROMPTS, width), num_beams=K)
    start, step = jax.jit(scorer.start), jax.jit(scorer.step)
    children = children_of(rng, 1)
    cache, logp = start(children)
    cache = scorer.reserve(cache, LENGTH)
    expected = plain_logp(model, PROMPTS)[:, None]
    np.testing.assert_allclose(logp, np.take_along_axis(expected, np.asarray(children.token), 2), rtol=1e-5, atol=1e-4)
    written = [[prompt] * K for prompt in PROMPTS]
    for clock in range(1, LENGTH):
        # Some parents have several heirs and some none, as in a search; the first step has one parent only.
        parent = rng.integers(0, K if clock > 1 else 1, (len(PROMPTS), K))
        token = rng.integers(0, VOCAB, (len(PROMPTS), K))
        written = [[rows[parent[b, k]] + [int(token[b, k])] for k in range(K)] for b, rows in enumerate(written)]
        beams = Beams(*(jnp.asarray(x, jnp.int32) for x in (parent, token, token, clock)))
        children = children_of(rng, K)
        cache, logp = step(cache, beams, children)
        expected = plain_logp(model, [row for rows in written for row in rows]).reshape(len(PROMPTS), K, VOCAB)
        np.testing.assert_allclose(
            logp, np.take_along_axis(expected, np.asarray(children.token), 2), rtol=1e-5, atol=1e-4
        )
        assert logp.dtype == jnp.float32


def test_the_whole_search_finds_the_titles_that_full_passes_would_rank_best(model):
    rows = random_rows(np.random.default_rng(2), 12, vocab=VOCAB, longest=LENGTH)
    catalog = catalog_of(rows)
    host = build_trie(catalog)
    trie = device_trie(host, edge_gain(host, catalog.counts), max_length=LENGTH)
    k = len(catalog)  # a beam for each title: the search ranks them all
    options = SearchOptions(jnp.float32(0), jnp.float32(1), 1.0, num_beams=k, max_length=LENGTH)
    scorer = lm_scorer(model, batch_of(PROMPTS, 6), num_beams=k)
    search = jax.jit(lambda options: beam_search(scorer, trie, options, is_real=jnp.ones(len(PROMPTS), bool)))
    ranked = search(options)
    nodes = plain_trie(lists_of(catalog.tokens))[1:]
    leaves = [node for node in nodes if not node.children]
    for b, prompt in enumerate(PROMPTS):
        before = [prompt + [above.token for above in node.path()[:-1]] for node in nodes]
        logp = plain_logp(model, before)[np.arange(len(nodes)), [node.token for node in nodes]]
        final = np.array([np.mean([logp[node.number - 1] for node in leaf.path()]) for leaf in leaves])
        order = np.argsort(-final)
        assert ranked.rows[b].tolist() == order.tolist()
        np.testing.assert_allclose(ranked.scores[b], final[order], rtol=1e-5, atol=1e-4)
