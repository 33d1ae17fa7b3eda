"""BIGRec's lists against a plain computation from what was written; its embeddings, and what it refuses."""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import text_batch
from bigrec_calls import COUNTS, LONGEST, TOKENIZER, K, ask, embed, engine_of, index_over
from flax import nnx
from tiny_run import TITLES, context_of

from configs import bigrec
from igd_jax.core.errors import InputError
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import TextBatch
from igd_jax.data.batches import make_text_batch
from igd_jax.data.examples import make_examples
from igd_jax.data.prompts import Prompts
from igd_jax.data.templates import filled
from igd_jax.decoding.grounding import collaborative_weight
from igd_jax.decoding.recurrence import SearchOptions
from igd_jax.decoding.unconstrained import unconstrained_search
from igd_jax.identifiers.base import Source
from igd_jax.identifiers.titles import Titles
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods.base import target_logits, token_loss, whole_text_loss
from igd_jax.methods.bigrec import BIGRec
from igd_jax.methods.sft import SFT
from igd_jax.models.decoder import Decoder
from igd_jax.training.loss import weighted_cross_entropy


@pytest.fixture(scope="module")
def batch() -> TextBatch:
    """Four prompts, then a row that only fills up."""
    scores = np.random.default_rng(5).normal(0, 1, (5, len(TITLES))).astype(np.float32)
    scores[1, :9] = -np.inf
    return text_batch([*TOKENIZER.encode(TITLES[:4]), []]).replace(collaborative=jnp.asarray(scores))


def write(model: Decoder, batch: TextBatch, beams: int, *, min_new_tokens: int = 0) -> list[list[list[int]]]:
    """What the model writes for each real row, cut by hand."""
    [[newline]] = TOKENIZER.encode(["\n"])
    how = {"temperature": 1.0, "eos": TOKENIZER.eos, "min_new_tokens": min_new_tokens}
    run = nnx.jit(lambda model: unconstrained_search(model, batch, SearchOptions(beams, LONGEST, 1.0), **how))
    texts, found = run(model), []
    for tokens, lengths in zip(np.asarray(texts.tokens)[:4], np.asarray(texts.lengths)[:4], strict=True):
        rows = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
        ends = [[i for i, token in enumerate(row) if token in (newline, TOKENIZER.eos)] for row in rows]
        found.append([row[: max(1, min(end, default=len(row)))] for row, end in zip(rows, ends, strict=True)])
    return found


@pytest.fixture(scope="module")
def written(model: Decoder, batch: TextBatch):
    """A function of a number of beams: what the model writes; computed once for each."""
    return cache(partial(write, model, batch))


def plain_distances(index: ItemIndex, embedder: Decoder, texts: list[list[list[int]]]) -> np.ndarray:
    """[4 beams N] distances of each text to each title, whose ids are those of the title without its newline."""
    titles = embed(embedder, TOKENIZER.encode([index.title_of_row(row) for row in range(len(index.catalog))]))
    flat = embed(embedder, [row for user in texts for row in user])
    distance = np.linalg.norm(flat[:, None] - titles[None], axis=2)
    return distance.reshape(len(texts), -1, len(titles))


# ------------------------------------------------------------------------------------------------------ loss, arguments
def test_the_loss_weighs_every_target_token_alike(index, model):
    objective = BIGRec().objective(context_of(index))
    np.testing.assert_array_equal(objective.annotations["weight"], np.ones(len(index.item_tokens.ids), np.float32))
    examples = make_examples(Ragged.from_lists([[7] * 4] * 3), room=np.full(3, 9), target=np.arange(3, dtype=np.int32))
    rows = make_text_batch(examples, np.arange(3), index.item_tokens, objective.annotations, size=4)

    @nnx.jit
    def both(model, rows):
        weight = rows.target_mask.astype(jnp.float32)
        plain = weighted_cross_entropy(target_logits(model, rows), rows.target, weight, parts={})
        return objective.loss(model, rows, objective.tables, {}), plain

    ours, plain = both(model, jax.tree.map(jnp.asarray, rows))
    assert float(ours.loss) == float(plain.loss)
    assert float(ours.weight) == index.item_tokens.lengths[:3].sum()


@pytest.mark.parametrize("method", [BIGRec, SFT])
def test_the_loss_covers_prompts_only_if_asked(index, method):
    assert method().objective(context_of(index)).loss is token_loss
    assert method(prompt_loss=True).objective(context_of(index)).loss is whole_text_loss


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"beams": 0}, r"beams is 0; expected at least 1"),
        ({"embed_by": "bert"}, r"embed_by is 'bert'; expected one of 'base', 'tuned'"),
        ({"min_new_tokens": -1}, r"min_new_tokens is -1; expected a number of tokens, 0 for no minimum"),
        ({"grounding": "all"}, r"grounding is 'all'; expected one of 'first', 'interleaved'"),
        (
            {"statistic": "populrity", "gamma": 1.0},
            r"statistic is 'populrity'; expected one of '', 'popularity', 'coll",
        ),
        ({"statistic": "popularity", "gamma": -1.0}, r"gamma is -1.0; expected a power of 0 or more"),
        ({"statistic": "popularity", "gamma": float("nan")}, r"gamma is nan; expected"),
        ({"gamma": 2.0}, r"gamma is 2.0, but statistic is empty; expected 'popularity' or 'collaborative' with it, or"),
        (
            {"embeddings": "none/file"},
            r"embeddings is 'none/file', which is not a file; expected one from the cache of an",
        ),
    ],
)
def test_arguments_out_of_range_are_bad_input(args, told):
    with pytest.raises(InputError, match=rf"config.method.args.{told}"):
        BIGRec(**args)


# ---------------------------------------------------------------------------------------------------------------- lists
@pytest.mark.parametrize("embed_by", [pytest.param("base", marks=pytest.mark.slow), "tuned"])
def test_lists_are_the_titles_nearest_to_the_best_text(index, model, base, batch, written, embed_by):
    ranked = ask(engine_of(BIGRec(beams=3, embed_by=embed_by), model, index, backbone=lambda: base), batch)
    distance, other = (plain_distances(index, embedder, written(3))[:, 0] for embedder in (model, base))
    if embed_by == "base":
        distance, other = other, distance
    order = np.argsort(distance, axis=1)[:, :K]
    assert (order != np.argsort(other, axis=1)[:, :K]).any()
    np.testing.assert_array_equal(ranked.rows[:4], order)
    np.testing.assert_allclose(ranked.scores[:4], -np.take_along_axis(distance, order, axis=1), rtol=1e-3)
    assert (ranked.rows[4] == -1).all()
    assert (ranked.scores[4] == -np.inf).all()


def test_texts_have_the_fewest_tokens_that_are_asked_for(index, model, batch, written):
    brief = nnx.clone(model)  # it likes to end where the other begins with a certain token
    brief.embed[...] = brief.embed[...].at[TOKENIZER.eos].set(2 * brief.embed[written(3)[0][0][0]])
    texts, ended = (write(brief, batch, 3, min_new_tokens=least) for least in (3, 0))
    ranked = ask(engine_of(BIGRec(beams=3, embed_by="tuned", min_new_tokens=3), brief, index), batch)
    distance, other = (plain_distances(index, brief, each)[:, 0] for each in (texts, ended))
    order = np.argsort(distance, axis=1)[:, :K]
    assert (order != np.argsort(other, axis=1)[:, :K]).any()
    np.testing.assert_array_equal(ranked.rows[:4], order)
    np.testing.assert_allclose(ranked.scores[:4], -np.take_along_axis(distance, order, axis=1), rtol=1e-3)


@pytest.mark.slow
def test_only_candidates_are_embedded_and_rows_are_those_of_the_catalogue(model, batch, written):
    index = index_over(np.arange(len(TITLES)) % 3 != 1)  # not item 22, but item 3, which has the same title
    engine = engine_of(BIGRec(embed_by="tuned"), model, index)
    rows = np.flatnonzero(index.is_candidate)
    assert len(engine.titles.centred) == len(rows) < len(index.catalog)
    distance = plain_distances(index, model, written(4))[:, 0]
    expected = rows[np.argsort(distance[:, rows], axis=1)[:, :K]]
    np.testing.assert_array_equal(ask(engine, batch).rows[:4], expected)
    assert (expected != np.argsort(distance, axis=1)[:, :K]).any()

    allowed = np.tile(index.is_candidate, (5, 1))
    allowed[0, expected[0, [0, 2]]] = False
    allowed[1] = np.arange(len(index.catalog)) == expected[1, 3]
    restricted = ask(engine, batch.replace(allowed=jnp.asarray(allowed)))
    order = rows[np.argsort(distance[:, rows], axis=1)]
    assert restricted.rows[0].tolist() == [row for row in order[0].tolist() if allowed[0, row]][:K]
    assert restricted.rows[1].tolist() == [expected[1, 3], *[-1] * (K - 1)]
    np.testing.assert_array_equal(restricted.rows[2:4], expected[2:])


def test_interleaved_lists_take_all_texts_in_turn(index, model, batch, written):
    ranked = ask(engine_of(BIGRec(beams=3, embed_by="tuned", grounding="interleaved"), model, index), batch)
    distance = plain_distances(index, model, written(3))
    for user in range(4):
        turns = np.argsort(distance[user], axis=1).T.reshape(-1).tolist()
        assert ranked.rows[user].tolist() == list(dict.fromkeys(turns))[:K]
    assert (ranked.rows[:4] != np.argsort(distance[:, 0], axis=1)[:, :K]).any()


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["popularity", "collaborative"])
def test_a_statistic_pulls_titles_as_the_paper_says(index, model, batch, written, statistic):
    ranked = ask(engine_of(BIGRec(embed_by="tuned", statistic=statistic, gamma=5.0), model, index), batch)
    distance = plain_distances(index, model, written(4))[:, 0]
    users = np.broadcast_to(COUNTS, (4, len(TITLES))) if statistic == "popularity" else batch.collaborative[:4]
    merge = sum if statistic == "popularity" else max
    rows = [index.catalog.items_of(row) for row in range(len(index.catalog))]
    value = np.array([[merge(user[item] for item in items) for items in rows] for user in np.asarray(users)], float)
    weight = np.nan_to_num(scaled(np.where(np.isfinite(value), value, np.nan)))
    expected = scaled(distance) * (1 + weight) ** -5.0
    order = np.argsort(expected, axis=1)[:, :K]
    np.testing.assert_array_equal(ranked.rows[:4], order)
    np.testing.assert_allclose(ranked.scores[:4], -np.take_along_axis(expected, order, axis=1), rtol=1e-3, atol=1e-4)
    assert (order != np.argsort(distance, axis=1)[:, :K]).any()


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["popularity", "collaborative"])
def test_some_titles_that_are_allowed_rank_as_they_do_alone(index, model, batch, statistic):
    method = BIGRec(embed_by="tuned", statistic=statistic, gamma=5.0)
    some = index.with_candidates(index.catalog.row_of_item % 3 == 1)
    allowed = jnp.broadcast_to(jnp.asarray(some.is_candidate), (5, len(index.catalog)))
    restricted = ask(engine_of(method, model, index), batch.replace(allowed=allowed))
    alone = ask(engine_of(method, model, some), batch)
    np.testing.assert_array_equal(restricted.rows[:4], alone.rows[:4])
    np.testing.assert_allclose(restricted.scores[:4], alone.scores[:4], rtol=1e-3, atol=1e-4)


def scaled(values: np.ndarray) -> np.ndarray:
    """Each row from 0 to 1, nan aside."""
    low, high = np.nanmin(values, axis=1, keepdims=True), np.nanmax(values, axis=1, keepdims=True)
    return (values - low) / (high - low)


@pytest.mark.parametrize("template", ["d3", "msl"])
def test_quotes_of_a_template_are_neither_embedded_nor_in_what_is_compared(index, model, template):
    words = filled(template, category="books")
    quoted = build_index(TITLES, TOKENIZER.encode_titles(TITLES, *words.around), COUNTS, candidates=index.candidates)
    identifiers = Titles(Source([], TITLES, {}, TOKENIZER, Path("none"), words.around))
    prompts = Prompts(words, TOKENIZER, identifiers, Path("none"))
    method = BIGRec(embed_by="tuned", min_new_tokens=3)
    plain, found = engine_of(method, model, index), engine_of(method, model, quoted, prompts=prompts)
    embeddings = [np.asarray(engine.titles.centred) + np.asarray(engine.titles.mean) for engine in (plain, found)]
    row_of = [each.catalog.row_of_item for each in (index, quoted)]
    np.testing.assert_allclose(embeddings[0][row_of[0]], embeddings[1][row_of[1]], rtol=1e-5, atol=1e-5)
    assert found.remainders.opening[TOKENIZER.encode(['"'])[0][0]] == -1
    assert found.min_new_tokens == 3


def test_at_gamma_zero_a_statistic_is_not_looked_at(index, model, batch, written):
    engine = engine_of(BIGRec(beams=3, embed_by="tuned", statistic="collaborative", gamma=0.0), model, index)
    assert engine.statistic == ""
    ranked = ask(engine, batch)
    distance = plain_distances(index, model, written(3))[:, 0]
    np.testing.assert_array_equal(ranked.rows[:4], np.argsort(distance, axis=1)[:, :K])
    np.testing.assert_allclose(ranked.scores[:4], -np.sort(distance, axis=1)[:, :K], rtol=1e-3)


def test_a_title_of_several_items_has_the_score_of_its_best_item():
    scores = jnp.array([[1.0, 5.0, 3.0, 2.0], [-jnp.inf, -jnp.inf, 0.0, 4.0]])
    item, item_row = jnp.array([0, 2, 1, 3], jnp.int32), jnp.array([0, 0, 1, 2], jnp.int32)
    may_be = jnp.ones((2, 3), bool)
    found = collaborative_weight(scores, item, item_row, may_be)  # best: [3 5 2] and [0 -inf 4]
    np.testing.assert_allclose(found, [[1 / 3, 1, 0], [0, 0, 1]], rtol=1e-6)
    found = collaborative_weight(scores, item, item_row, may_be.at[:, 1].set(False))
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 0, 1]], rtol=1e-6)


def test_a_collaborative_statistic_needs_a_source():
    assert BIGRec(statistic="collaborative", gamma=1.0).needs_collaborative
    assert not BIGRec(statistic="collaborative", gamma=0.0).needs_collaborative
    assert not BIGRec(statistic="popularity", gamma=1.0).needs_collaborative


@pytest.mark.slow
def test_what_the_model_writes_is_ranked_first_where_it_is_a_title_and_shared_titles_stand_once(model, batch, written):
    [[newline]] = TOKENIZER.encode(["\n"])
    titles = [[*user[0], newline, TOKENIZER.eos] for user in written(1)]
    titles = [*titles, *TOKENIZER.encode_titles(TITLES[4:8]).take(np.arange(4)), *titles]
    rows = Ragged.from_lists([list(map(int, row)) for row in titles])
    names = [str(row) for row in titles]
    index = build_index(names, rows, np.ones(len(rows), np.int64), candidates=np.ones(len(rows), bool))
    ranked = ask(engine_of(BIGRec(beams=1, embed_by="tuned"), model, index, top_k=len(rows)), batch)
    for user in range(4):
        row = index.catalog.row_of_item[user]
        assert ranked.rows[user, 0] == row == index.catalog.row_of_item[8 + user]
        assert ranked.scores[user, 0] > -0.05 * -ranked.scores[user, len(index.catalog) - 1]
        assert sorted(ranked.rows[user][ranked.rows[user] >= 0].tolist()) == list(range(len(index.catalog)))


# ----------------------------------------------------------------------------------------------------------- experiment
def test_the_experiment_file_also_knows_the_grounding_of_cft():
    args = bigrec.get_config("cft").method.args
    assert (args.beams, args.embed_by, args.grounding, args.min_new_tokens) == (5, "tuned", "interleaved", 4)
    BIGRec(**args)
    with pytest.raises(ValueError, match=r"bigrec.py:ctf is unknown; expected one of bigrec, cft, books"):
        bigrec.get_config("ctf")
