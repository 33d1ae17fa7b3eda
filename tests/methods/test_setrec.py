"""SETRec: sums that add up, and lists that are those of brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from flax import nnx
from setrec_calls import INDEX, ask, batch_of, index_of, loss_of, rank

from igd_jax.core.types import ItemBatch
from igd_jax.decoding.dense_topk import in_chunks
from igd_jax.methods.setrec import SETRec
from igd_jax.models.item_tokens import ItemTokens
from igd_jax.models.setrec import SetModel
from igd_jax.training.step import means


@pytest.fixture(scope="module")
def model() -> SetModel:
    return SETRec(n_semantic=2).make_model(tiny_run.context_of(INDEX))


def test_a_list_is_that_of_a_sort_of_all_titles_by_their_best_items(model):
    batch = batch_of(6)
    scores = np.asarray(ask(model, batch)[1])
    for beta in (0.0, 0.3, 1.0):
        ranked = rank(SETRec(n_semantic=2, beta=beta), model, batch, INDEX)
        of_items = (1 - beta) * scores[0] + beta * scores[1:].sum(axis=0)
        of_rows = np.full((6, len(INDEX.catalog)), -np.inf, np.float32)
        for item in np.flatnonzero(INDEX.candidates):
            row = INDEX.catalog.row_of_item[item]
            of_rows[:, row] = np.maximum(of_rows[:, row], of_items[:, item])
        order = np.argsort(-of_rows[:-1], axis=1)[:, :8]
        np.testing.assert_array_equal(ranked.rows[:-1], order)
        np.testing.assert_allclose(ranked.scores[:-1], np.take_along_axis(of_rows[:-1], order, 1), atol=1e-5)
        assert (ranked.rows[-1] == -1).all()
        assert np.isneginf(ranked.scores[-1]).all()


def test_only_what_is_allowed_to_a_row_is_recommended_to_it(model):
    batch, method = batch_of(5), SETRec(n_semantic=2)
    first = rank(method, model, batch, INDEX)
    allowed = np.tile(INDEX.is_candidate, (5, 1))
    allowed[0, first.rows[0, ::2]] = False
    allowed[1] = np.arange(len(INDEX.catalog)) == first.rows[1, 3]
    found = rank(method, model, batch.replace(allowed=allowed), INDEX)
    assert found.rows[0, :4].tolist() == first.rows[0, 1::2].tolist()
    assert not set(found.rows[0].tolist()) & set(first.rows[0, ::2].tolist())
    assert found.rows[1].tolist() == [int(first.rows[1, 3]), *[-1] * 7]
    np.testing.assert_array_equal(found.rows[2:], first.rows[2:])


@pytest.mark.slow
def test_the_size_of_the_chunks_changes_no_list(model, monkeypatch):
    batch, method = batch_of(6), SETRec(n_semantic=2)
    whole = rank(method, model, batch, INDEX)
    for size in (1, 5, 8):
        monkeypatch.setattr("igd_jax.methods.setrec.CHUNK", size)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), rank(method, model, batch, INDEX), whole)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_chunks_hold_every_candidate_once_and_part_no_title(size):
    items, numbers, rows = in_chunks(INDEX, size)
    assert sorted(items[items >= 0]) == [item for item in range(len(INDEX.titles)) if item != 5]
    np.testing.assert_array_equal(rows[numbers[items >= 0]], INDEX.catalog.row_of_item[items[items >= 0]])
    owners = [set(chunk_numbers[chunk >= 0]) for chunk, chunk_numbers in zip(items, numbers, strict=True)]
    assert sum(map(len, owners)) == len(set.union(*owners)) == INDEX.is_candidate.sum() == len(rows)
    assert items.shape[1] == max(2, min(size, 22))


def test_where_there_are_fewer_titles_than_asked_for_the_rest_is_empty(model):
    index = index_of(tiny_run.TITLES, candidates=np.arange(len(tiny_run.TITLES)) < 3)
    ranked = rank(SETRec(n_semantic=2), model, batch_of(3), index)
    assert (np.sort(ranked.rows[0, :3]) == np.flatnonzero(index.is_candidate)).all()
    assert (ranked.rows[0, 3:] == -1).all()
    assert np.isneginf(ranked.scores[0, 3:]).all()


# ----------------------------------------------------------------------------------------------------------------- loss
def cut(batch: ItemBatch, rows: slice) -> ItemBatch:
    return jax.tree.map(lambda array: array[rows], batch)


def test_the_loss_of_items_adds_over_micro_batches_and_fill_up_rows_count_for_nothing(model):
    batch = batch_of(9)
    share = np.where(batch.is_real, np.float32(8 / batch.history_mask.sum()), np.float32(0))
    batch, method = batch.replace(rows_per_read=share), SETRec(n_semantic=2, alpha=0.5)
    whole = loss_of(method, model, batch)
    parts = loss_of(method, model, cut(batch, slice(0, 3))) + loss_of(method, model, cut(batch, slice(3, 9)))
    real = loss_of(method, model, cut(batch, slice(0, 8)))
    assert float(whole.weight) == float(parts.weight) == float(real.weight) == 8
    for other in (parts, real):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, other)
    assert np.isfinite(float(loss_of(method, model, cut(batch, slice(8, 9))).loss))
    alone = loss_of(method, model, batch.replace(rows_per_read=None))
    np.testing.assert_allclose(alone.loss, whole.loss, rtol=1e-6)


@pytest.mark.slow
def test_the_error_of_a_micro_batch_counts_once_for_each_of_its_rows(model):
    batch = batch_of(9)
    with_error, without = (loss_of(SETRec(n_semantic=2, alpha=alpha), model, batch) for alpha in (2.0, 0.0))
    expected = []
    for items, mask in zip(batch.history, batch.history_mask, strict=True):
        read = jnp.asarray(items[mask])
        if len(read):
            expected += np.asarray(model.tokens.rebuild_error(read, model.tokens(read))).tolist()
    assert float(with_error.loss - without.loss) == pytest.approx(2.0 * 8 * np.mean(expected), rel=1e-4)
    assert float(means(with_error)["loss_rebuilt"]) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_sample_is_the_softmax_over_its_items_with_each_rows_target_once(model):
    batch = batch_of(5).replace(seed=np.arange(7, 12, dtype=np.int32))
    batch.target[:3] = [4, 9, 4]
    method = SETRec(n_semantic=2, alpha=0.0, sampled_items=6)
    drawn = np.asarray(jax.random.randint(jax.random.key(7), (6,), 0, len(tiny_run.TITLES)))
    _, scores = ask(model, batch)
    expected = 0.0
    for row in range(4):
        own = int(batch.target[row])
        others = [item for item in (*batch.target[:4].tolist(), *drawn.tolist()) if item != own]
        logits = np.asarray(scores)[:, row, [own, *others]].astype(np.float64)
        expected += (np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]).mean()
    assert float(loss_of(method, model, batch).loss) == pytest.approx(expected, rel=1e-5)
    other = batch.replace(seed=batch.seed + 1)
    assert float(loss_of(method, model, other).loss) != float(loss_of(method, model, batch).loss)
    fixed, of_zero = (loss_of(method, model, batch.replace(seed=seed)) for seed in (None, np.zeros(5, np.int32)))
    assert float(fixed.loss) == float(of_zero.loss)


def test_frozen_arrays_are_no_parameters_and_all_parameters_are_reached(model):
    batch = jax.tree.map(jnp.asarray, batch_of(5))
    objective = SETRec(n_semantic=2).objective(tiny_run.context_of(INDEX))
    graph, params, frozen = nnx.split(model, nnx.Param, ...)
    held = {path[-1] for path, _ in nnx.to_flat_state(frozen)}
    assert held == {"features", "instruction", "response"}
    loss = jax.grad(lambda params: objective.loss(nnx.merge(graph, params, frozen), batch, (), {}).loss)
    for path, gradient in nnx.to_flat_state(jax.jit(loss)(params)):
        assert np.isfinite(gradient[...]).all(), path
        assert np.abs(gradient[...]).max() > 0 or path[-2:] == ("k", "bias"), path  # a key's bias shifts all alike


@pytest.mark.slow
def test_a_bfloat16_backbone_gives_nearly_the_same_loss_in_float32(model):
    def backbone():
        decoder = tiny_run.context_of(INDEX).backbone()
        decoder.dtype = jnp.dtype(jnp.bfloat16)
        return decoder

    method, batch = SETRec(n_semantic=2), batch_of(6)
    half = method.make_model(tiny_run.context_of(INDEX, backbone=backbone))
    total = loss_of(method, half, batch)
    assert total.loss.dtype == jnp.float32
    assert float(total.loss) == pytest.approx(float(loss_of(method, model, batch).loss), rel=2e-2)


# ----------------------------------------------------------------------------------------------------------- reductions
def test_without_semantic_tokens_an_item_is_one_embedding():
    context = tiny_run.context_of(INDEX)
    method, batch = SETRec(n_semantic=0, beta=0.0, alpha=0.5), batch_of(6)
    model = method.make_model(context)
    assert model.tokens.features is None
    table = model.tokens.vectors[...] @ model.tokens.project.kernel[...] + model.tokens.project.bias[...][None]
    asked, scores = ask(model, batch)
    np.testing.assert_allclose(scores[0], asked[:, 0] @ table.T, atol=1e-5)
    total = loss_of(method, model, batch)
    logits = np.asarray(scores[0])[:5]
    nll = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), batch.target[:5]]
    assert float(means(total)["loss"]) == pytest.approx(nll.mean(), rel=1e-5)
    np.testing.assert_array_equal(
        rank(method, model, batch, INDEX).rows[:5, 0], INDEX.catalog.row_of_item[best(logits)]
    )


def test_without_a_collaborative_token_an_item_is_its_semantic_ones():
    method, batch = SETRec(n_semantic=2, collaborative_token=False, beta=1.0), batch_of(6)
    model = method.make_model(tiny_run.context_of(INDEX))
    assert (model.tokens.vectors, model.tokens.project, model.queries.shape) == (None, None, (2, 32))
    _, scores = ask(model, batch)
    assert scores.shape[0] == 2
    first = INDEX.catalog.row_of_item[best(np.asarray(scores.sum(axis=0))[:5])]
    np.testing.assert_array_equal(rank(method, model, batch, INDEX).rows[:5, 0], first)

    @nnx.jit
    def rebuild(tokens: ItemTokens, items: jax.Array) -> tuple[jax.Array, jax.Array]:
        vectors = tokens(items)
        return tokens.decoder(vectors.reshape(4, -1)), tokens.rebuild_error(items, vectors)

    rebuilt, found = rebuild(model.tokens, jnp.arange(4))
    expected = np.square(rebuilt - np.asarray(model.tokens.features[...])[:4]).mean(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(float(loss_of(method, model, batch).loss))


def test_queries_that_are_not_trained_are_frozen_as_they_were_drawn():
    trained, frozen = (
        SETRec(n_semantic=0, beta=0.0, trained_queries=given).make_model(tiny_run.context_of(INDEX))
        for given in (True, False)
    )
    assert isinstance(trained.queries, nnx.Param)
    assert not isinstance(frozen.queries, nnx.Param)
    np.testing.assert_array_equal(trained.queries[...], frozen.queries[...])


def best(scores: np.ndarray) -> np.ndarray:
    """The best candidate of each row."""
    return np.where(INDEX.candidates, scores, -np.inf).argmax(axis=1)
