"""D3: the reductions of its mixture, its place in a search, and the authors' own lists."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from flax import nnx
from plain_search import edge_scores, plain_factors, plain_search
from plain_trie import EOS, PlainNode, lists_of, plain_trie, random_rows
from searches import index_of, lists
from tiny_models import VOCAB, random_model
from tiny_run import context_of, decode_options

from igd_jax.core.errors import InputError
from igd_jax.core.types import Recommendations, TextBatch
from igd_jax.data.tokenizer import load_tokenizer
from igd_jax.items.index import build_index
from igd_jax.methods import load_method
from igd_jax.methods.base import Context
from igd_jax.methods.d3 import D3
from igd_jax.models.decoder import Decoder
from igd_jax.models.decoder_weights import load_decoder
from igd_jax.models.visibility import Causal, positions_of

Tiny = tuple[Decoder, Context, TextBatch]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    rng = np.random.default_rng(0)
    rows = random_rows(rng, 40, vocab=VOCAB, longest=6)
    batch = text_batch(rng.integers(0, VOCAB, (3, 5)).tolist())
    batch = batch.replace(collaborative=jnp.asarray(rng.normal(0, 2, (3, len(rows))), jnp.float32))
    return random_model("decoder"), context_of(index_of(rows)), batch


def recommend(method: D3, tiny: Tiny, **options) -> Recommendations:
    model, context, batch = tiny
    return lists(method.engine(context, model, decode_options(context.index, **options)), batch)


def mass_of_rows(tiny: Tiny, row: int) -> np.ndarray:
    """The source's share of each catalogue row."""
    _, context, batch = tiny
    p = np.exp(np.asarray(batch.collaborative[row], np.float64))
    return np.bincount(context.index.catalog.row_of_item, weights=p / p.sum())


def test_at_lam_one_the_search_is_plain_beam_search_to_the_bit(tiny):
    model, context, batch = tiny
    plain = lists(load_method("sft", {}).engine(context, model, decode_options(context.index)), batch)
    jax.tree.map(np.testing.assert_array_equal, recommend(D3(lam=1.0), tiny), plain)


def test_at_lam_zero_the_ranking_is_that_of_the_source_alone(tiny):
    ranked = recommend(D3(lam=0.0), tiny, num_beams=len(tiny[1].index.catalog))
    for row in range(3):
        by_row = mass_of_rows(tiny, row)
        order = np.argsort(-by_row)
        assert ranked.rows[row].tolist() == order.tolist()
        np.testing.assert_allclose(ranked.scores[row], np.log(by_row[order]), atol=1e-4)


@nnx.jit
def _all_logits(model: Decoder, tokens: jax.Array) -> jax.Array:
    valid = jnp.ones(tokens.shape, bool)
    return model.logits(model(tokens, positions=positions_of(valid), visible=Causal(valid))[0])


def plain_mixture(
    model: Decoder, prompt: list[int], nodes: list[PlainNode], by_row: np.ndarray, *, lam: float, temperature: float
) -> list[np.float32]:
    """Mixed score of the edge into each node, by one causal pass over the prompt and the node's path."""
    paths = [[node.token for node in one.path()] for one in nodes]
    width = len(prompt) + max(map(len, paths))
    tokens = jnp.asarray([(prompt + path + [EOS] * width)[:width] for path in paths], jnp.int32)
    logp = np.asarray(jax.nn.log_softmax(_all_logits(model, tokens) / temperature))
    mixed = [np.float32(0)]
    for node, path, logp_of in zip(nodes[1:], paths[1:], logp[1:], strict=True):
        share = by_row[node.rows].sum() / by_row[node.parent.rows].sum()
        mixed.append(np.float32(lam * logp_of[len(prompt) + len(path) - 2, node.token] + (1 - lam) * np.log(share)))
    return mixed


@pytest.mark.parametrize(
    ("alpha", "penalty", "temperature"),
    [
        (0.3, 0.0, 1.0),
        pytest.param(0.8, 1.0, 1.0, marks=pytest.mark.slow),
        pytest.param(0.5, 0.0, 2.0, marks=pytest.mark.slow),
    ],
)
def test_gain_factors_scale_the_mixture_as_in_the_plain_search(alpha, penalty, temperature, tiny):
    model, context, batch = tiny
    index, lam = context.index, 0.6
    nodes = plain_trie(lists_of(index.catalog.tokens))
    row_of_leaf = dict(zip(index.trie.leaf.tolist(), index.trie.row.tolist(), strict=True))
    factors = plain_factors(nodes, index.catalog.counts.tolist())
    ranked, without = (
        recommend(D3(lam=lam), tiny, num_beams=5, alpha=a, length_penalty=penalty, temperature=temperature)
        for a in (alpha, 0.0)
    )
    assert np.abs(ranked.scores - without.scores).max() > 0.1
    for row in range(3):
        mixed = plain_mixture(
            model, batch.prompt[row].tolist(), nodes, mass_of_rows(tiny, row), lam=lam, temperature=temperature
        )
        scores = edge_scores(np.asarray(mixed), factors, alpha=alpha, temperature=1.0)
        expected = plain_search(nodes[0], scores, k=5, max_length=index.longest, length_penalty=penalty)
        assert ranked.rows[row].tolist() == [row_of_leaf[node] for _, node in expected]
        np.testing.assert_allclose(ranked.scores[row], [score for score, _ in expected], atol=1e-4)


def test_temperature_renormalises_the_model_and_leaves_the_source(tiny):
    index = tiny[1].index
    k = len(index.catalog)
    cold, warm, flat = (recommend(D3(lam=0.5), tiny, num_beams=k, temperature=t) for t in (1.0, 3.0, 1e6))
    assert np.abs(np.sort(cold.scores) - np.sort(warm.scores)).max() > 0.1
    source = recommend(D3(lam=0.0), tiny, num_beams=k)
    for row in range(3):
        half_of = dict(zip(source.rows[row].tolist(), (source.scores[row] / 2).tolist(), strict=True))
        expected = [half_of[r] - index.catalog.lengths[r] * np.log(VOCAB) / 2 for r in flat.rows[row].tolist()]
        np.testing.assert_allclose(flat.scores[row], expected, atol=1e-3)


def test_below_lam_one_a_source_is_needed():
    assert [D3(lam=lam).needs_collaborative for lam in (0.0, 0.5, 1.0)] == [True, True, False]


def test_training_is_plain_fine_tuning(tiny):
    ours, sft = (method.objective(tiny[1]) for method in (D3(), load_method("sft", {})))
    assert ours.loss is sft.loss
    assert (ours.annotations["weight"] == 1).all()
    jax.tree.map(np.testing.assert_array_equal, dict(ours.annotations), dict(sft.annotations))


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
    tokenizer = load_tokenizer(model_folder)
    tokens = tokenizer.encode_titles(titles)
    index = build_index(titles, tokens, np.ones(len(titles), int), candidates=np.ones(len(titles), bool))
    batch = text_batch(read["igd_decoding"]["prompts"][:8]).replace(collaborative=jnp.asarray(scores))
    model, context = load_decoder(model_folder), context_of(index, tokenizer=tokenizer)
    assert len(read["d3_decoding"]["runs"]) == 4
    for run in read["d3_decoding"]["runs"]:
        options = decode_options(
            index, num_beams=10, max_length=min(64, index.longest), length_penalty=run["length_penalty"]
        )
        ranked = lists(D3(lam=run["guidance_scale"]).engine(context, model, options), batch)
        for row, expected in enumerate(run["results"]):
            score_of = dict(zip(expected["titles"], expected["scores"], strict=True))
            found = [index.title_of_row(r) for r in ranked.rows[row].tolist()]
            assert sorted(found) == sorted(score_of)
            # Titles whose golden scores differ by less than 1e-5 may swap.
            np.testing.assert_allclose([score_of[t] for t in found], expected["scores"], rtol=0, atol=1e-5)
            np.testing.assert_allclose(ranked.scores[row], expected["scores"], rtol=0, atol=1e-4)


def test_the_model_may_be_normalised_among_children_and_the_source_stays(tiny):
    """At a high temperature the model's share of each child is one over their number."""
    index = tiny[1].index
    options = {"num_beams": len(index.catalog), "temperature": 1e6, "normalize": "children"}
    flat, source = recommend(D3(lam=0.5), tiny, **options), recommend(D3(lam=0.0), tiny, **options)
    root = plain_trie(lists_of(index.catalog.tokens))[0]
    for row in range(3):
        half_of = dict(zip(source.rows[row].tolist(), (source.scores[row] / 2).tolist(), strict=True))
        for found, score in zip(flat.rows[row].tolist(), flat.scores[row], strict=True):
            node, expected = root, half_of[found]
            for token in index.catalog.tokens[found].tolist():
                expected, node = expected - np.log(len(node.children)) / 2, node.children[token]
            np.testing.assert_allclose(score, expected, atol=1e-3)
