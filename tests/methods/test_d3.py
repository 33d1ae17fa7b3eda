"""D3's mixture: the masses below edges, its reductions, and the authors' own lists."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from plain_search import edge_scores, plain_factors, plain_search
from plain_trie import EOS, PlainNode, lists_of, plain_trie, random_rows
from tiny_run import HF_CONFIG, context_of

from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Batch, Ranked
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods.base import search_titles
from igd_jax.methods.d3 import D3, edge_log_share, prefix_sums
from igd_jax.models.config import from_hf
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_weights import load_decoder


def index_of(rows: list[list[int]], candidates: np.ndarray | None = None) -> ItemIndex:
    every = np.ones(len(rows), bool)
    tokens = Ragged.from_lists(rows)
    return build_index([str(row) for row in rows], tokens, np.ones(len(rows), int), candidates=candidates or every)


def tables_of(index: ItemIndex):
    return D3().tables(context_of(index), None)


def options_of(*, k: int, max_length: int, alpha: float = 0.0, penalty: float = 0.0, temperature: float = 1.0):
    return SearchOptions(jnp.float32(alpha), jnp.float32(temperature), penalty, num_beams=k, max_length=max_length)


@pytest.mark.parametrize("seed", range(3))
def test_the_share_of_an_edge_is_its_items_mass_among_its_siblings(seed):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 60)  # some titles are equal, so rows hold several items
    index = index_of(rows)
    tables = tables_of(index)
    scores = rng.normal(0, 4, (2, len(rows))).astype(np.float32)
    ours = np.asarray(jax.jit(edge_log_share)(jnp.asarray(scores), tables))
    assert (ours[:, -1] == 0).all()
    p = np.exp(scores.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    by_row = np.zeros((2, len(index.catalog)))
    np.add.at(by_row, (slice(None), index.catalog.row_of_item), p)
    nodes, edge = plain_trie(lists_of(index.catalog.tokens)), 0
    for node in nodes:
        if len(node.children) > 1:
            mass = np.stack([by_row[:, child.rows].sum(1) for child in node.by_token()], axis=1)
            expected = np.log(mass / mass.sum(1, keepdims=True))
            np.testing.assert_allclose(ours[:, edge : edge + mass.shape[1]], expected, rtol=1e-4, atol=1e-5)
            edge += mass.shape[1]
    assert edge == ours.shape[1] - 1


def test_prefix_sums_keep_what_one_float_would_lose():
    x = np.concatenate([[1.0], np.full(999, 1e-12)]).astype(np.float32)
    whole, rest = jax.jit(prefix_sums)(jnp.asarray(x))
    tail = (whole[1000] - whole[1]) + (rest[1000] - rest[1])
    np.testing.assert_allclose(tail, 999e-12, rtol=1e-5)
    assert whole[1000] - whole[1] == 0  # one float loses it all
    assert (whole[0], rest[0]) == (0, 0)


def test_a_source_that_gives_an_edge_nothing_makes_it_unlikely_but_not_impossible():
    index = index_of([[1, EOS], [2, EOS]])
    scores = jnp.asarray([[0.0, -jnp.inf]], jnp.float32)
    share = jax.jit(edge_log_share)(scores, tables_of(index))
    np.testing.assert_allclose(share[0, :2], [0, np.log(1e-20)], atol=1e-3)


@pytest.fixture(scope="module")
def tiny() -> tuple[Decoder, ItemIndex, Batch]:
    rng = np.random.default_rng(0)
    rows = random_rows(rng, 40, vocab=50, longest=6)
    model = nnx.jit(lambda: Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(0)))()
    batch = {
        "prompt": jnp.asarray(rng.integers(0, 300, (3, 5)), jnp.int32),
        "prompt_mask": jnp.ones((3, 5), bool),
        "collaborative": jnp.asarray(rng.normal(0, 2, (3, len(rows))), jnp.float32),
    }
    return model, index_of(rows), batch


def recommend(method: D3, tiny, options: SearchOptions, **changes) -> Ranked:
    model, index, batch = tiny
    tables = tables_of(index)
    search = nnx.jit(lambda model, batch: method.recommend(model, batch, tables=tables, options=options))
    return jax.tree.map(np.asarray, search(model, batch | changes))


def test_at_lam_one_the_search_is_plain_beam_search_to_the_bit(tiny):
    model, index, batch = tiny
    options = options_of(k=4, max_length=index.longest_title)
    trie = tables_of(index).trie
    plain = nnx.jit(lambda model, batch: search_titles(model, batch, tables=trie, options=options))(model, batch)
    jax.tree.map(np.testing.assert_array_equal, recommend(D3(lam=1.0), tiny, options), jax.tree.map(np.asarray, plain))


def test_at_lam_zero_the_ranking_is_that_of_the_source_alone(tiny):
    _, index, batch = tiny
    ranked = recommend(D3(lam=0.0), tiny, options_of(k=len(index.catalog), max_length=index.longest_title))
    for row in range(3):
        p = np.exp(np.asarray(batch["collaborative"][row], np.float64))
        by_row = np.bincount(index.catalog.row_of_item, weights=p / p.sum())
        order = np.argsort(-by_row)
        assert ranked.rows[row].tolist() == order.tolist()
        np.testing.assert_allclose(ranked.scores[row], np.log(by_row[order]), atol=1e-4)


def plain_mixture(
    model: Decoder, prompt: list[int], nodes: list[PlainNode], by_row: np.ndarray, *, lam: float, temperature: float
):
    """Mixed score of the edge into each node, by one causal pass over the prompt and the node's path."""
    paths = [[node.token for node in one.path()] for one in nodes]
    width = len(prompt) + max(map(len, paths))
    tokens = jnp.asarray([(prompt + path + [EOS] * width)[:width] for path in paths], jnp.int32)
    hidden, _ = nnx.jit(lambda model, tokens, valid: model.after_prefix(None, tokens, valid))(
        model, tokens, jnp.ones(tokens.shape, bool)
    )
    logp = np.asarray(jax.nn.log_softmax(model.logits(hidden) / temperature))
    mixed = [np.float32(0)]
    for node, path, logp_of in zip(nodes[1:], paths[1:], logp[1:], strict=True):
        share = by_row[node.rows].sum() / by_row[node.parent.rows].sum()
        mixed.append(np.float32(lam * logp_of[len(prompt) + len(path) - 2, node.token] + (1 - lam) * np.log(share)))
    return mixed


@pytest.mark.parametrize(("alpha", "penalty", "temperature"), [(0.3, 0.0, 1.0), (0.8, 1.0, 1.0), (0.5, 0.0, 2.0)])
def test_gain_factors_scale_the_mixture_as_in_the_plain_search(alpha, penalty, temperature, tiny):
    model, index, batch = tiny
    nodes, lam = plain_trie(lists_of(index.catalog.tokens)), 0.6
    factors = plain_factors(nodes, index.catalog.counts.tolist())
    options = options_of(k=5, max_length=index.longest_title, alpha=alpha, penalty=penalty, temperature=temperature)
    ranked, without = (
        recommend(D3(lam=lam), tiny, options),
        recommend(D3(lam=lam), tiny, options.replace(alpha=jnp.float32(0))),
    )
    assert np.abs(ranked.scores - without.scores).max() > 0.1
    for row in range(3):
        p = np.exp(np.asarray(batch["collaborative"][row], np.float64))
        by_row = np.bincount(index.catalog.row_of_item, weights=p / p.sum())
        mixed = plain_mixture(model, batch["prompt"][row].tolist(), nodes, by_row, lam=lam, temperature=temperature)
        scores = edge_scores(np.asarray(mixed), factors, alpha=alpha, temperature=1.0)
        expected = plain_search(nodes[0], scores, k=5, max_length=options.max_length, length_penalty=penalty)
        assert ranked.nodes[row].tolist() == [node for _, node in expected]
        np.testing.assert_allclose(ranked.scores[row], [score for score, _ in expected], atol=1e-4)


def test_temperature_renormalises_the_model_and_leaves_the_source(tiny):
    _, index, _ = tiny
    k = len(index.catalog)
    cold, warm = (
        recommend(D3(lam=0.5), tiny, options_of(k=k, max_length=index.longest_title, temperature=t)) for t in (1.0, 3.0)
    )
    assert np.abs(np.sort(cold.scores) - np.sort(warm.scores)).max() > 0.1
    flat = recommend(D3(lam=0.5), tiny, options_of(k=k, max_length=index.longest_title, temperature=1e6))
    source = recommend(D3(lam=0.0), tiny, options_of(k=k, max_length=index.longest_title))
    lengths = index.catalog.lengths
    vocabulary = HF_CONFIG["vocab_size"]
    for row in range(3):
        half_of = dict(zip(source.rows[row].tolist(), (source.scores[row] / 2).tolist(), strict=True))
        expected = [half_of[r] - lengths[r] * np.log(vocabulary) / 2 for r in flat.rows[row].tolist()]
        np.testing.assert_allclose(flat.scores[row], expected, atol=1e-3)


def test_below_lam_one_a_source_is_needed(tiny):
    model, index, batch = tiny
    bare = {name: array for name, array in batch.items() if name != "collaborative"}
    options = options_of(k=2, max_length=index.longest_title)
    with pytest.raises(InputError, match=r"lam is 0.5, but there is no collaborative source"):
        nnx.jit(lambda model: D3(lam=0.5).recommend(model, bare, tables=tables_of(index), options=options))(model)


@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan")])
def test_a_lam_outside_zero_to_one_is_bad_input(lam):
    with pytest.raises(InputError, match=r"config.method.args.lam is .*; expected a share"):
        D3(lam=lam)


def test_golden_lists_and_scores_are_the_authors(shared):
    folder, model_folder = shared / "golden/igd_amazon_books", shared / "models/tiny-qwen2-books"
    read = {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("d3_decoding", "igd_decoding")}
    titles = json.loads((folder / "d3_items.json").read_text(encoding="utf-8"))
    with np.load(folder / "d3_cf.npz", allow_pickle=False) as arrays:
        scores = np.log(arrays["cf_probs"][:8])
    tokens = load_tokenizer(model_folder).encode_titles(titles)
    index = build_index(titles, tokens, np.ones(len(titles), int), candidates=np.ones(len(titles), bool))
    prompts = read["igd_decoding"]["prompts"][:8]
    width = max(map(len, prompts))
    batch = {
        "prompt": jnp.array([[0] * (width - len(row)) + row for row in prompts], jnp.int32),
        "prompt_mask": jnp.array([[False] * (width - len(row)) + [True] * len(row) for row in prompts]),
        "collaborative": jnp.asarray(scores),
    }
    model, tables = load_decoder(model_folder), tables_of(index)
    assert len(read["d3_decoding"]["runs"]) == 4
    for run in read["d3_decoding"]["runs"]:
        options = options_of(k=10, max_length=min(64, index.longest_title), penalty=run["length_penalty"])
        method = D3(lam=run["guidance_scale"])
        search = nnx.jit(lambda model, batch, tables: method.recommend(model, batch, tables=tables, options=options))  # noqa: B023
        ranked = jax.tree.map(np.asarray, search(model, batch, tables))
        for row, expected in enumerate(run["results"]):
            score_of = dict(zip(expected["titles"], expected["scores"], strict=True))
            found = [index.title_of_row(r) for r in ranked.rows[row].tolist()]
            assert sorted(found) == sorted(score_of)
            # Titles whose golden scores differ by less than 1e-5 may swap.
            np.testing.assert_allclose([score_of[t] for t in found], expected["scores"], rtol=0, atol=1e-5)
            np.testing.assert_allclose(ranked.scores[row], expected["scores"], rtol=0, atol=1e-4)
