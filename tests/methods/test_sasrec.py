"""SASRec as a method: its losses, its lists, and the vectors that its training leaves for others."""

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from command import run_here
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file

from igd_jax import evaluate, recommend, train
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.core.ragged import Ragged
from igd_jax.core.types import ItemBatch, LossSum, Recommendations
from igd_jax.data.collaborative import FILE
from igd_jax.decoding.engine import recommend as ask
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods.sasrec import Sequential, negatives, target_ndcg
from igd_jax.models.sasrec import SASRec, scores_of
from igd_jax.session.collaborative import collaborative_source, export_vectors
from igd_jax.session.ranker import Ranker
from igd_jax.session.session import Session, set_up
from igd_jax.settings.settings import settings_from
from igd_jax.training.mesh import make_mesh
from igd_jax.training.step import means

EOS = 20
TOKENS = Ragged.from_lists([[5, EOS], [1, EOS], [3, EOS], [1, EOS], [2, EOS], [4, EOS]])
"""Items 1 and 3 share a title."""


def index_of(candidates: list[int]) -> ItemIndex:
    titles, chosen = [f"title {i}" for i in range(6)], np.isin(np.arange(6), candidates)
    return build_index(titles, TOKENS, np.ones(6, np.int64), candidates=chosen)


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return index_of(list(range(6)))


@pytest.fixture(scope="module")
def model(index) -> SASRec:
    return Sequential(width=8).make_model(tiny_run.context_of(index))


@pytest.fixture(scope="module")
def batch() -> ItemBatch:
    """Three histories, and a row that only fills up; without seeds."""
    lengths = np.array([3, 1, 2, 0])
    return jax.tree.map(
        jnp.asarray,
        ItemBatch(
            history=np.random.default_rng(0).integers(0, 6, (4, 3)).astype(np.int32),
            history_mask=np.arange(3) >= 3 - lengths[:, None],
            target=np.array([2, 5, 0, 0], np.int32),
            is_real=lengths > 0,
        ),
    )


def seeded(batch: ItemBatch) -> ItemBatch:
    return batch.replace(seed=jnp.asarray([7, 8, 7, 0], jnp.int32))


@cache
def loss_of(loss: str = "softmax") -> Callable[[SASRec, ItemBatch], LossSum]:
    objective = Sequential(width=8, loss=loss).objective(tiny_run.context_of(index_of(list(range(6)))))
    return nnx.jit(lambda model, batch: objective.loss(model, batch, objective.tables, {}))


def lists(index: ItemIndex, model: SASRec, batch: ItemBatch, top_k: int) -> Recommendations:
    method, options = Sequential(width=8), tiny_run.decode_options(index, top_k=top_k)
    return ask(method.engine(tiny_run.context_of(index), model, options), batch)


# ------------------------------------------------------------------------------------------------------------- losses
@pytest.mark.parametrize("loss", [pytest.param("softmax", marks=pytest.mark.slow), "bce"])
def test_micro_batches_with_seeds_give_the_loss_of_the_whole(model, batch, loss):
    whole = loss_of(loss)(model, seeded(batch))
    parts = [
        loss_of(loss)(model, jax.tree.map(lambda array, rows=rows: array[rows], seeded(batch)))
        for rows in (slice(0, 1), slice(1, 4))
    ]
    assert float(whole.weight) == 3
    np.testing.assert_allclose(parts[0].loss + parts[1].loss, whole.loss, rtol=1e-5)
    assert float(means(whole)["loss"]) == pytest.approx({"softmax": np.log(6), "bce": 2 * np.log(2)}[loss], rel=0.05)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_rows_that_fill_up_a_batch_weigh_nothing(model, batch, loss):
    other = batch.replace(target=batch.target.at[3].set(4))
    for change in (seeded, lambda same: same):
        losses = [loss_of(loss)(model, change(one)).loss for one in (batch, other)]
        np.testing.assert_array_equal(*losses)


def test_negatives_are_uniform_over_all_items_but_the_target():
    target = jnp.full((3000,), 2, jnp.int32)
    found = np.bincount(negatives(jnp.arange(3000, dtype=jnp.int32), target, n_items=4), minlength=4)
    assert found[2] == 0
    np.testing.assert_allclose(found[[0, 1, 3]] / 3000, 1 / 3, atol=0.04)


def test_ndcg_of_a_target_is_that_of_its_rank():
    scores = jnp.asarray(np.arange(30, 0, -1, dtype=np.float32)[None].repeat(4, axis=0))
    found = target_ndcg(scores, jnp.asarray([0, 1, 19, 20], jnp.int32))
    np.testing.assert_allclose(found, [1.0, 1 / np.log2(3), 1 / np.log2(21), 0.0], rtol=1e-6)


@nnx.jit
def all_scores(model: SASRec, batch: ItemBatch) -> jax.Array:
    return scores_of(model(batch.history, batch.history_mask), model.items())


def test_without_seeds_the_loss_is_what_ranking_lacks(model, batch):
    found = means(loss_of()(model, batch))
    real = np.asarray(jax.jit(target_ndcg)(all_scores(model, batch), batch.target))[:3]
    assert float(found["loss"]) == pytest.approx(1 - float(real.mean()), rel=1e-5)
    assert float(found["loss_softmax"]) == pytest.approx(np.log(6), rel=0.05)


# -------------------------------------------------------------------------------------------------------------- lists
def test_a_title_scores_as_the_best_of_its_items(index, model, batch):
    ranked = lists(index, model, batch, 5)
    scores = np.asarray(all_scores(model, batch))
    for row in range(3):
        for place, score in zip(ranked.rows[row], ranked.scores[row], strict=True):
            items = index.catalog.items_of(int(place))
            np.testing.assert_allclose(score, scores[row, items].max(), rtol=1e-5)
        assert sorted(ranked.rows[row].tolist()) == [0, 1, 2, 3, 4]
        assert (np.diff(ranked.scores[row]) <= 0).all()


def test_only_candidates_are_recommended_and_too_few_of_them_leave_places_empty(model, batch):
    index = index_of([0, 4])
    ranked = lists(index, model, batch, 5)
    rows = np.asarray(ranked.rows)
    assert {int(index.catalog.items_of(row)[0]) for row in rows[:3, :2].ravel().tolist()} == {0, 4}  # item 0 is an item
    assert (rows[:3, 2:] == -1).all()
    assert np.isneginf(ranked.scores[:3, 2:]).all()
    assert np.isfinite(ranked.scores[:3, :2]).all()


def test_rows_that_fill_up_a_batch_find_nothing(index, model, batch):
    ranked = lists(index, model, batch, 3)
    assert (np.asarray(ranked.rows)[3] == -1).all()
    assert np.isneginf(ranked.scores[3]).all()


def test_items_that_are_no_candidates_go_nowhere(model):
    index = index_of([1, 5])
    engine = Sequential().engine(tiny_run.context_of(index), model, tiny_run.decode_options(index))
    assert engine.row_of_item.tolist() == [5, 0, 5, 5, 5, 3]


def test_only_what_is_allowed_to_a_row_is_recommended_to_it(index, model, batch):
    first = lists(index, model, batch, 5).rows
    allowed = np.ones((4, 5), bool)
    allowed[0, first[0, :2]] = False
    allowed[1] = np.arange(5) == first[1, 3]
    found = lists(index, model, batch.replace(allowed=jnp.asarray(allowed)), 5)
    assert found.rows[0].tolist() == [*first[0, 2:].tolist(), -1, -1]
    assert found.rows[1].tolist() == [int(first[1, 3]), -1, -1, -1, -1]
    np.testing.assert_array_equal(found.rows[2:], first[2:])
    np.testing.assert_array_equal(np.isneginf(found.scores), found.rows == -1)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"loss": "ce"}, "loss is 'ce'; expected softmax or bce"),
        ({"max_history": 0}, "max_history is 0; expected at least 1"),
        ({"num_blocks": 0}, "num_blocks is 0; expected at least 1"),
        ({"num_heads": 0}, "num_heads is 0; expected at least 1"),
        ({"width": 9, "num_heads": 2}, r"width is 9; expected a multiple of the 2 head\(s\)"),
        ({"dropout": 1.0}, "dropout is 1.0; expected a share from 0 to below 1"),
    ],
)
def test_arguments_out_of_range_are_bad_input(args, told):
    with pytest.raises(InputError, match=f"config.method.args.{told}"):
        Sequential(**args)


# ------------------------------------------------------------------------------------------------ a run and its source
@pytest.fixture(scope="module")
def shop(sasrec_run, tiny) -> tuple[Session, Workdir]:
    """The trained run, which names itself as its source, and its workdir."""
    config, workdir = tiny_run.sasrec_config(tiny), Workdir(str(sasrec_run))
    config.decode.collaborative = str(sasrec_run)
    return set_up(settings_from(config), workdir), workdir


@pytest.mark.parametrize("loss", ["softmax", pytest.param("bce", marks=pytest.mark.slow)])
def test_the_pattern_of_the_shop_is_learned_and_popularity_beaten(tiny, request, tmp_path, loss):
    folder = request.getfixturevalue("sasrec_run") if loss == "softmax" else tmp_path / "run"
    config, workdir = tiny_run.sasrec_config(tiny, loss=loss), Workdir(str(folder))
    progress = train.train(config, workdir)  # for softmax, nothing is left to train
    metrics = evaluate.evaluate(config, workdir, name="test")
    assert progress["best_loss"] < 0.4
    assert metrics["hr@3"] > 0.6 > 2 * metrics["popularity_baseline"]["hr@3"]
    assert metrics["invalid"] == 0
    files = {path.name for path in (folder / "eval" / "test").iterdir()}
    assert files == {".igd_jax", "config.json", "env.json", "metrics.json", "predictions.jsonl"}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_scores_of_the_source_are_those_of_the_lists(shop, split):
    session, workdir = shop
    rows = session.rows(split)
    source = collaborative_source(session, split=split, n_rows=len(rows))
    ranker = Ranker(session, workdir)
    found = ranker.rank(ranker.examples(rows))
    of_items = source.scores(np.arange(len(rows)))
    of_rows = np.full((len(rows), len(session.index.catalog)), -np.inf, np.float32)
    np.maximum.at(of_rows.T, session.index.catalog.row_of_item, of_items.T)
    np.testing.assert_array_equal(np.argsort(-of_rows, axis=1, kind="stable")[:, :4], found.rows[:, :4])
    np.testing.assert_allclose(np.take_along_axis(of_rows, found.rows, axis=1), found.scores, rtol=1e-4, atol=1e-5)


def test_vectors_are_those_of_the_best_checkpoint_whatever_the_devices_and_batches(shop, tmp_path):
    session, workdir = shop
    model = Ranker(session, workdir).trained.model
    decode = dataclasses.replace(session.settings.decode, batch_size=5)  # 8 over 8 devices
    settings = dataclasses.replace(session.settings, decode=decode)
    other = dataclasses.replace(session, settings=settings, mesh=make_mesh(data=8))
    export_vectors(other, session.method, model, Workdir(str(tmp_path)))
    kept, again = load_file(workdir.path / FILE), load_file(tmp_path / FILE)
    assert {name: len(matrix) for name, matrix in kept.items()} == {"items": 23, "valid": 13, "test": 22}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), again, kept)
    with safe_open(tmp_path / FILE, framework="numpy") as file:
        mark, n_train = session.prepared.meta["fingerprint"], str(tiny_run.N_ROWS["train"])
        assert file.metadata() == {"fingerprint": mark, "train_rows": n_train}


def test_a_source_serves_its_own_data_and_rows_only(shop):
    session, _ = shop
    with pytest.raises(InputError, match="has no scores for the rows of train; rank those of valid or test"):
        collaborative_source(session, split="train", n_rows=90)
    with pytest.raises(InputError, match="has 13 rows of valid, 16 wide, but that split has 3"):
        collaborative_source(session, split="valid", n_rows=3)
    with pytest.raises(InputError, match="which has scores for the rows of a split only; for a new history give 'popu"):
        collaborative_source(session, split=None, n_rows=1)
    other = dataclasses.replace(session.prepared, meta=session.prepared.meta | {"fingerprint": "other"})
    with pytest.raises(InputError, match="but this run's data is other"):
        collaborative_source(dataclasses.replace(session, prepared=other), split="test", n_rows=22)


def started(module: ModuleType, *arguments: str) -> str:
    done = run_here(module, *arguments)
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def test_a_trained_run_is_evaluated_and_asked_on_the_command_line(sasrec_run):
    started(evaluate, f"--workdir={sasrec_run}", "--split=valid")
    assert read_json(sasrec_run / "eval" / "valid" / "metrics.json")["n"] == tiny_run.N_ROWS["valid"]
    assert not (sasrec_run / "eval" / "valid" / FILE).exists()
    titles = [f"--history={title}" for title in (tiny_run.TITLES[4], "Unknown")]
    out = started(recommend, f"--workdir={sasrec_run}", *titles, "--k=2")
    assert "'Unknown' is neither a title nor an item of the catalogue, so the model cannot read it" in out
    assert tiny_run.TITLES[5] in out


@pytest.mark.slow
def test_other_methods_take_its_scores(trained, sasrec_run):
    """D3 with nothing but the source ranks as the source does; BIGRec's order is another with it."""
    source, some = f"--config.decode.collaborative={sasrec_run}", "--config.eval.max_examples=8"
    d3 = ("--decode_as=configs/d3.py", "--config.method.args.lam=0", source)
    started(evaluate, f"--workdir={trained}", "--name=d3", *d3)
    bigrec = ("--decode_as=configs/bigrec.py", "--config.method.args.statistic=collaborative", some, source)
    for gamma in (0, 99):
        started(evaluate, f"--workdir={trained}", f"--name=by_{gamma}", *bigrec, f"--config.method.args.gamma={gamma}")
    assert read_json(trained / "eval" / "d3" / "metrics.json")["hr@3"] > 0.6
    distance, mixed = (titles_of(trained / "eval" / f"by_{gamma}" / "predictions.jsonl") for gamma in (0, 99))
    assert len(distance) == len(mixed) == 8
    assert distance != mixed


def titles_of(predictions: Path) -> list[list[str]]:
    lines = map(json.loads, predictions.read_text(encoding="utf-8").splitlines())
    return [[one["title"] for one in line["ranked"]] for line in lines]
