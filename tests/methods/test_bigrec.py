"""BIGRec's lists against a plain computation from what was written; its tables, and what it refuses."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_run import HF_CONFIG, TITLES, context_of
from tokenizers import models

from configs import bigrec
from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import Batch, Ranked
from igd_jax.data.tokenizer import Tokenizer, train_tokenizer
from igd_jax.decoding.beam_search import SearchOptions
from igd_jax.decoding.grounding import GOES_ON, NOTHING, cut, embed_texts
from igd_jax.decoding.unconstrained import Texts, unconstrained_search
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods.base import target_logits
from igd_jax.methods.bigrec import BIGRec, collaborative_weight, text_ends
from igd_jax.models.config import from_hf
from igd_jax.models.decoder import Decoder
from igd_jax.training.loss import weighted_cross_entropy

TOKENIZER = train_tokenizer(TITLES, vocab_size=300)
COUNTS = np.random.default_rng(0).integers(0, 9, len(TITLES))
K = 6
OPTIONS = SearchOptions(jnp.float32(0.2), jnp.float32(1), length_penalty=1.0, num_beams=K, max_length=8)


def make_model(seed: int) -> Decoder:
    """Random weights, large enough that texts differ."""

    @nnx.jit
    def make() -> Decoder:
        graph, weights = nnx.split(Decoder(from_hf(HF_CONFIG), rngs=nnx.Rngs(seed)))
        return nnx.merge(graph, jax.tree.map(lambda x: x * 4.0, weights))

    return make()


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    """The last item shares its title with item 3."""
    return build_index(TITLES, TOKENIZER.encode_titles(TITLES), COUNTS, candidates=np.ones(len(TITLES), bool))


@pytest.fixture(scope="module")
def model() -> Decoder:
    return make_model(1)


@pytest.fixture(scope="module")
def base() -> Decoder:
    return make_model(2)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Four prompts, then a row that only fills up."""
    prompts = TOKENIZER.encode(TITLES[:4])
    width = max(map(len, prompts))
    mask = np.arange(width) >= width - np.array([[len(prompt)] for prompt in [*prompts, []]])
    ids = np.array([[0] * (width - len(prompt)) + prompt for prompt in [*prompts, []]], np.int32)
    scores = np.random.default_rng(5).normal(0, 1, (5, len(TITLES))).astype(np.float32)
    scores[1, :9] = -np.inf
    return {
        "prompt": jnp.asarray(ids),
        "prompt_mask": jnp.asarray(mask),
        "collaborative": jnp.asarray(scores),
    }


def recommend(method: BIGRec, model: Decoder, batch: Batch, tables: Any, options: SearchOptions = OPTIONS) -> Ranked:
    """As `rank.make_recommend` does it: the tables are arguments of the program."""
    graph, state = nnx.split(model)

    @jax.jit
    def run(state: Any, tables: Any, options: SearchOptions, batch: Batch) -> Ranked:
        return method.recommend(nnx.merge(graph, state), batch, tables=tables, options=options)

    return jax.tree.map(np.asarray, run(state, tables, options, batch))


def embed(model: Decoder, rows: list[list[int]]) -> np.ndarray:
    """Rows of ids without newline and EOS, in one batch."""
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = Ragged.from_lists(rows).pad(int(lengths.max()))
    run = nnx.jit(lambda model, tokens, lengths: embed_texts(model, tokens, lengths, bos=None))
    return np.asarray(run(model, jnp.asarray(tokens), jnp.asarray(lengths)), np.float64)


def written(model: Decoder, batch: Batch, *, beams: int) -> list[list[list[int]]]:
    """What the model writes for each real row, cut by hand."""
    options = OPTIONS.replace(num_beams=beams)
    search = nnx.jit(lambda model: unconstrained_search(model, batch, options, eos=TOKENIZER.eos))
    texts: Texts = search(model)
    [[newline]] = TOKENIZER.encode(["\n"])
    found = []
    for tokens, lengths in zip(np.asarray(texts.tokens)[:4], np.asarray(texts.lengths)[:4], strict=True):
        rows = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
        ends = [[i for i, token in enumerate(row) if token in (newline, TOKENIZER.eos)] for row in rows]
        found.append([row[: max(1, min(end, default=len(row)))] for row, end in zip(rows, ends, strict=True)])
    return found


def plain_distances(index: ItemIndex, embedder: Decoder, texts: list[list[list[int]]]) -> np.ndarray:
    """[4 beams N] distances of each text to each title, whose ids are those of the title without its newline."""
    titles = embed(embedder, TOKENIZER.encode([index.title_of_row(row) for row in range(len(index.catalog))]))
    flat = embed(embedder, [row for user in texts for row in user])
    distance = np.linalg.norm(flat[:, None] - titles[None], axis=2)
    return distance.reshape(len(texts), -1, len(titles))


# ------------------------------------------------------------------------------------------------------ loss, arguments
def test_the_loss_weighs_every_target_token_alike(index, model):
    found = BIGRec().annotate(index)
    mask = np.arange(found["weight"].shape[1]) < index.item_tokens.lengths[:, None]
    np.testing.assert_array_equal(found["weight"], mask.astype(np.float32))
    target = index.item_tokens.pad(mask.shape[1])[:3]
    rows = {
        "prompt": np.full((3, 4), 7, np.int32),
        "prompt_mask": np.ones((3, 4), bool),
        "target": target,
        "target_mask": mask[:3],
        "weight": found["weight"][:3],
        "forced": found["forced"][:3],
    }

    @nnx.jit
    def both(model, rows):
        plain = weighted_cross_entropy(
            target_logits(model, rows), rows["target"], rows["target_mask"].astype(jnp.float32), parts={}
        )
        return BIGRec().loss(model, rows, {}), plain

    ours, plain = both(model, jax.tree.map(jnp.asarray, rows))
    assert float(ours.loss) == float(plain.loss)
    assert float(ours.weight) == mask[:3].sum()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"beams": 0}, r"beams is 0; expected at least 1"),
        ({"embed_by": "bert"}, r"embed_by is 'bert'; expected one of 'base', 'tuned'"),
        ({"grounding": "all"}, r"grounding is 'all'; expected one of 'first', 'interleaved'"),
        (
            {"statistic": "populrity", "gamma": 1.0},
            r"statistic is 'populrity'; expected one of '', 'popularity', 'coll",
        ),
        ({"statistic": "popularity", "gamma": -1.0}, r"gamma is -1.0; expected a power of 0 or more"),
        ({"statistic": "popularity", "gamma": float("nan")}, r"gamma is nan; expected"),
        ({"gamma": 2.0}, r"gamma is 2.0, but statistic is empty"),
    ],
)
def test_arguments_out_of_range_are_bad_input(args, told):
    with pytest.raises(InputError, match=rf"config.method.args.{told}"):
        BIGRec(**args)


# ---------------------------------------------------------------------------------------------------------------- lists
@pytest.mark.parametrize("embed_by", ["base", "tuned"])
def test_lists_are_the_titles_nearest_to_the_best_text(index, model, base, batch, embed_by):
    method = BIGRec(beams=3, embed_by=embed_by)
    tables = method.tables(context_of(index, backbone=lambda: base), model)
    ranked = recommend(method, model, batch, tables)
    texts = written(model, batch, beams=3)
    distance, other = (plain_distances(index, embedder, texts)[:, 0] for embedder in (model, base))
    if embed_by == "base":
        distance, other = other, distance
    order = np.argsort(distance, axis=1)[:, :K]
    assert (order != np.argsort(other, axis=1)[:, :K]).any()
    np.testing.assert_array_equal(ranked.rows[:4], order)
    np.testing.assert_allclose(ranked.scores[:4], -np.take_along_axis(distance, order, axis=1), rtol=1e-3)
    np.testing.assert_array_equal(ranked.nodes[:4], index.trie.leaf[order])
    assert (np.concatenate([ranked.rows[4], ranked.nodes[4]]) == -1).all()
    assert (ranked.scores[4] == -np.inf).all()


def test_interleaved_lists_take_all_texts_in_turn(index, model, batch):
    method = BIGRec(beams=3, embed_by="tuned", grounding="interleaved")
    ranked = recommend(method, model, batch, method.tables(context_of(index), model))
    distance = plain_distances(index, model, written(model, batch, beams=3))
    for user in range(4):
        turns = np.argsort(distance[user], axis=1).T.reshape(-1).tolist()
        assert ranked.rows[user].tolist() == list(dict.fromkeys(turns))[:K]
    assert (ranked.rows[:4] != np.argsort(distance[:, 0], axis=1)[:, :K]).any()


@pytest.mark.parametrize("statistic", ["popularity", "collaborative"])
def test_a_statistic_pulls_titles_as_the_paper_says(index, model, batch, statistic):
    method = BIGRec(embed_by="tuned", statistic=statistic, gamma=5.0)
    ranked = recommend(method, model, batch, method.tables(context_of(index), model))
    distance = plain_distances(index, model, written(model, batch, beams=4))[:, 0]
    users = np.broadcast_to(COUNTS, (4, len(TITLES))) if statistic == "popularity" else batch["collaborative"][:4]
    merge = sum if statistic == "popularity" else max
    rows = [index.catalog.items_of(row) for row in range(len(index.catalog))]
    value = np.array([[merge(user[item] for item in items) for items in rows] for user in np.asarray(users)], float)
    weight = np.nan_to_num(scaled(np.where(np.isfinite(value), value, np.nan)))
    expected = scaled(distance) * (1 + weight) ** -5.0
    order = np.argsort(expected, axis=1)[:, :K]
    np.testing.assert_array_equal(ranked.rows[:4], order)
    np.testing.assert_allclose(ranked.scores[:4], -np.take_along_axis(expected, order, axis=1), rtol=1e-3, atol=1e-4)
    assert (order != np.argsort(distance, axis=1)[:, :K]).any()


def scaled(values: np.ndarray) -> np.ndarray:
    """Each row from 0 to 1, nan aside."""
    low, high = np.nanmin(values, axis=1, keepdims=True), np.nanmax(values, axis=1, keepdims=True)
    return (values - low) / (high - low)


def test_at_gamma_zero_a_statistic_is_not_looked_at(index, model, batch):
    method = BIGRec(embed_by="tuned", statistic="collaborative", gamma=0.0)
    without = {name: array for name, array in batch.items() if name != "collaborative"}
    ranked = recommend(method, model, without, method.tables(context_of(index), model))
    distance = plain_distances(index, model, written(model, batch, beams=4))[:, 0]
    np.testing.assert_array_equal(ranked.rows[:4], np.argsort(distance, axis=1)[:, :K])
    np.testing.assert_allclose(ranked.scores[:4], -np.sort(distance, axis=1)[:, :K], rtol=1e-3)


def test_a_title_of_several_items_has_the_score_of_its_best_item():
    scores = jnp.array([[1.0, 5.0, 3.0, 2.0], [-jnp.inf, -jnp.inf, 0.0, 4.0]])
    item, item_row = jnp.array([0, 2, 1, 3], jnp.int32), jnp.array([0, 0, 1, 2], jnp.int32)
    found = collaborative_weight(scores, item, item_row, n_titles=3)  # best: [3 5 2] and [0 -inf 4]
    np.testing.assert_allclose(found, [[1 / 3, 1, 0], [0, 0, 1]], rtol=1e-6)


def test_a_collaborative_statistic_needs_a_source(index, model, batch):
    method = BIGRec(embed_by="tuned", statistic="collaborative", gamma=1.0)
    tables = method.tables(context_of(index), model)
    without = {name: array for name, array in batch.items() if name != "collaborative"}
    with pytest.raises(InputError, match=r"statistic is 'collaborative', but config.decode.collaborative is empty"):
        recommend(method, model, without, tables)


def test_what_the_model_writes_is_ranked_first_where_it_is_a_title_and_shared_titles_stand_once(model, batch):
    texts = written(model, batch, beams=1)
    [[newline]] = TOKENIZER.encode(["\n"])
    titles = [[*user[0], newline, TOKENIZER.eos] for user in texts]
    titles = [*titles, *TOKENIZER.encode_titles(TITLES[4:8]).take(np.arange(4)), *titles]
    rows = Ragged.from_lists([list(map(int, row)) for row in titles])
    names = [str(row) for row in titles]
    index = build_index(names, rows, np.ones(len(rows), np.int64), candidates=np.ones(len(rows), bool))
    method = BIGRec(beams=1, embed_by="tuned")
    options = OPTIONS.replace(num_beams=len(rows))
    ranked = recommend(method, model, batch, method.tables(context_of(index), model), options)
    for user in range(4):
        row = index.catalog.row_of_item[user]
        assert ranked.rows[user, 0] == row == index.catalog.row_of_item[8 + user]
        assert ranked.scores[user, 0] > -0.05 * -ranked.scores[user, len(index.catalog) - 1]
        assert sorted(ranked.rows[user][ranked.rows[user] >= 0].tolist()) == list(range(len(index.catalog)))


# ------------------------------------------------------------------------------------------------------------ where cut
def test_cut_rows_of_the_catalogue_are_the_ids_of_their_titles(index):
    rows = index.item_tokens
    ends = text_ends(TOKENIZER, vocab_size=HF_CONFIG["vocab_size"])
    assert len(ends) == HF_CONFIG["vocab_size"]
    tokens, lengths = cut(jnp.asarray(rows.pad(int(rows.lengths.max()))), jnp.asarray(rows.lengths), jnp.asarray(ends))
    found = [row[:length].tolist() for row, length in zip(np.asarray(tokens), np.asarray(lengths), strict=True)]
    assert found == TOKENIZER.encode(TITLES)


def test_of_a_token_with_a_newline_stays_the_token_of_what_stands_before_it():
    vocab = {"<e>": 0, "a": 1, ")": 2, "\n": 3, ")\n": 4, "\n)": 5, "b": 6, "a)": 7, "a)\n": 8, "b)": 9, "b)\n": 10}
    merges = [(")", "\n"), ("\n", ")"), ("a", ")"), ("a)", "\n"), ("b", ")\n")]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.add_special_tokens(["<e>"])
    ends = text_ends(Tokenizer(backend, eos=0, bos=None), vocab_size=13)
    stays = {0: NOTHING, 3: NOTHING, 4: 2, 5: NOTHING, 8: 7, 10: NOTHING}  # "b)" is two tokens
    assert ends.tolist() == [stays.get(token, GOES_ON) for token in range(13)]


# ----------------------------------------------------------------------------------------------------------- embeddings
@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "cache"


def test_embeddings_are_kept_and_read_again_by_the_same_model_and_catalogue(index, model, base, cache):
    context, method = context_of(index, cache=cache), BIGRec(embed_by="tuned")
    first = method.tables(context, model)
    [path] = cache.iterdir()
    kept = load_file(path)["embeddings"]
    assert kept.shape == (len(index.catalog), HF_CONFIG["hidden_size"])
    given = BIGRec(embed_by="tuned", embeddings=str(path)).tables(context_of(index), model)
    np.testing.assert_array_equal(first.titles.centred, given.titles.centred)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file({"embeddings": kept + np.float32(1)}, path, metadata=metadata)
    np.testing.assert_allclose(method.tables(context, model).titles.mean, first.titles.mean + 1, rtol=1e-6)
    method.tables(context, base)
    assert len(list(cache.iterdir())) == 2


def test_without_a_workdir_nothing_is_written(index, model, tmp_path):
    BIGRec(embed_by="tuned").tables(context_of(index, cache=tmp_path / "run" / "cache"), model)
    assert not (tmp_path / "run").exists()


def test_embeddings_of_another_model_or_catalogue_are_bad_input(index, model, base, cache):
    context = context_of(index, cache=cache)
    BIGRec(embed_by="tuned").tables(context, model)
    [path] = cache.iterdir()
    method = BIGRec(embed_by="tuned", embeddings=str(path))
    with pytest.raises(InputError, match=r"embeddings is .*, which is of another model; expected those of this run"):
        method.tables(context, base)
    some = np.arange(len(TITLES)) < 9
    fewer = build_index(TITLES, index.item_tokens, COUNTS, candidates=some)
    with pytest.raises(InputError, match=r"which is of another catalogue; expected"):
        method.tables(context_of(fewer, cache=cache), model)
    with pytest.raises(InputError, match=r"which is of another model and another catalogue; expected"):
        method.tables(context_of(fewer, cache=cache), base)


@pytest.mark.parametrize("content", [None, b"\x80\x04pickle"])
def test_what_is_no_file_of_embeddings_is_bad_input(index, model, tmp_path, content):
    path = tmp_path / "other.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"other.safetensors cannot be read .*; leave .*embeddings empty"):
        BIGRec(embed_by="tuned", embeddings=str(path)).tables(context_of(index), model)


# ----------------------------------------------------------------------------------------------------------- experiment
def test_the_experiment_file_also_knows_the_grounding_of_cft():
    args = bigrec.get_config("cft").method.args
    assert (args.beams, args.embed_by, args.grounding) == (5, "tuned", "interleaved")
    BIGRec(**args)
    with pytest.raises(ValueError, match=r"bigrec.py:ctf is unknown; expected bigrec or cft"):
        bigrec.get_config("ctf")
