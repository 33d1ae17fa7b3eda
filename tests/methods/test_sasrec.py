"""SASRec as a method: its losses, its lists, and the vectors that its evaluation leaves for others."""

import dataclasses
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from command import run_here

from configs import sasrec as experiment
from igd_jax import evaluate, recommend, train
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json
from igd_jax.core.ragged import Ragged
from igd_jax.data.collaborative import FILE
from igd_jax.items.index import build_index
from igd_jax.methods.sasrec import Sequential, Tables, negatives, target_ndcg
from igd_jax.models.sasrec import scores_of
from igd_jax.session.recommender import collaborative_source, rank, search_options
from igd_jax.session.session import set_up, trained_model
from igd_jax.training.step import means

EOS = 20
TOKENS = Ragged.from_lists([[5, EOS], [1, EOS], [3, EOS], [1, EOS], [2, EOS], [4, EOS]])
"""Items 1 and 3 share a title."""


def index_of(candidates: list[int]):
    titles, chosen = [f"title {i}" for i in range(6)], np.isin(np.arange(6), candidates)
    return build_index(titles, TOKENS, np.ones(6, np.int64), candidates=chosen)


@pytest.fixture(scope="module")
def index():
    return index_of(list(range(6)))


@pytest.fixture(scope="module")
def model(index):
    return Sequential(width=8).make_model(tiny_run.context_of(index))


@pytest.fixture(scope="module")
def batch():
    lengths = np.array([3, 1, 2, 0])
    random = np.random.default_rng(0)
    arrays = {
        "history": random.integers(0, 6, (4, 3)).astype(np.int32),
        "history_mask": np.arange(3) >= 3 - lengths[:, None],
        "target_item": np.array([2, 5, 0, 0], np.int32),
        "is_real": lengths > 0,
    }
    return jax.tree.map(jnp.asarray, arrays)


def noisy(batch):
    return batch | {"noise": jnp.asarray([7, 8, 7, 0], jnp.int32)}


def options_of(index, num_beams: int):
    config = experiment.get_config()
    config.decode.num_beams = num_beams
    return search_options(config, index)


def lists(index, model, batch, num_beams: int):
    method = Sequential(width=8)
    tables = method.tables(tiny_run.context_of(index), model)
    return method.recommend(model, batch, tables=tables, options=options_of(index, num_beams))


# ------------------------------------------------------------------------------------------------------------- losses
@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_micro_batches_with_noise_give_the_loss_of_the_whole(model, batch, loss):
    method = Sequential(width=8, loss=loss)
    whole = method.loss(model, noisy(batch), {})
    parts = [
        method.loss(model, {name: array[rows] for name, array in noisy(batch).items()}, {})
        for rows in (slice(0, 1), slice(1, 4))
    ]
    assert float(whole.weight) == 3
    np.testing.assert_allclose(parts[0].loss + parts[1].loss, whole.loss, rtol=1e-5)
    assert float(means(whole)["loss"]) == pytest.approx({"softmax": np.log(6), "bce": 2 * np.log(2)}[loss], rel=0.05)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_rows_that_fill_up_a_batch_weigh_nothing(model, batch, loss):
    method, other = Sequential(width=8, loss=loss), dict(batch)
    other["target_item"] = batch["target_item"].at[3].set(4)
    for with_noise in (noisy, dict):
        losses = [method.loss(model, with_noise(one), {}).loss for one in (batch, other)]
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


def test_without_noise_the_loss_is_what_ranking_lacks(model, batch):
    found = means(Sequential(width=8).loss(model, batch, {}))
    scores = scores_of(model(batch["history"], batch["history_mask"]), model.items())
    real = target_ndcg(scores, batch["target_item"])[:3]
    assert float(found["loss"]) == pytest.approx(1 - float(real.mean()), rel=1e-5)
    assert float(found["loss_softmax"]) == pytest.approx(np.log(6), rel=0.05)


# -------------------------------------------------------------------------------------------------------------- lists
def test_a_title_scores_as_the_best_of_its_items(index, model, batch):
    ranked = lists(index, model, batch, 5)
    scores = np.asarray(scores_of(model(batch["history"], batch["history_mask"]), model.items()))
    for row in range(3):
        for place, score, node in zip(ranked.rows[row], ranked.scores[row], ranked.nodes[row], strict=True):
            items = index.catalog.items_of(int(place))
            np.testing.assert_allclose(score, scores[row, items].max(), rtol=1e-5)
            assert int(node) == index.trie.leaf[int(place)]
        assert sorted(ranked.rows[row].tolist()) == [0, 1, 2, 3, 4]
        assert (np.diff(ranked.scores[row]) <= 0).all()


def test_only_candidates_are_recommended_and_too_few_of_them_leave_places_empty(model, batch):
    index = index_of([0, 4])
    ranked = lists(index, model, batch, 5)
    rows = np.asarray(ranked.rows)
    assert {int(index.catalog.items_of(row)[0]) for row in rows[:3, :2].ravel().tolist()} == {0, 4}  # item 0 is an item
    assert (rows[:3, 2:] == -1).all()
    assert (np.asarray(ranked.nodes)[:3, 2:] == -1).all()
    assert np.isneginf(ranked.scores[:3, 2:]).all()
    assert np.isfinite(ranked.scores[:3, :2]).all()


def test_rows_that_fill_up_a_batch_find_nothing(index, model, batch):
    ranked = lists(index, model, batch, 3)
    assert (np.asarray(ranked.rows)[3] == -1).all()
    assert (np.asarray(ranked.nodes)[3] == -1).all()
    assert np.isneginf(ranked.scores[3]).all()


def test_items_that_are_no_candidates_go_nowhere(model):
    tables = Sequential().tables(tiny_run.context_of(index_of([1, 5])), model)
    assert isinstance(tables, Tables)
    assert tables.row_of_item.tolist() == [2, 0, 2, 2, 2, 1]


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
def shop_config(tiny, **args):
    config = experiment.get_config()
    config.data.dir, config.mesh.data = str(tiny / "data"), 1
    config.tokenizer.path = str(tiny / "model")
    config.method.args.update(width=16, dropout=0.1, **args)
    config.train.update(
        global_batch_size=16, micro_batch_size=8, learning_rate=3e-2, num_epochs=8, patience=0, log_every_steps=16
    )
    config.decode.update(num_beams=4, batch_size=8)
    config.eval.ks = (1, 3)
    return config


@pytest.fixture(scope="module")
def shop(tiny, tmp_path_factory):
    """A trained run with an evaluation of each of two splits, the config it has, and the metrics of test."""
    workdir, config = tmp_path_factory.mktemp("sasrec") / "run", shop_config(tiny)
    progress = train.train(config, Workdir(str(workdir)))
    metrics = evaluate.evaluate(config, Workdir(str(workdir)), name="test")
    return workdir, config, metrics, progress


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_the_pattern_of_the_shop_is_learned_and_popularity_beaten(shop, tiny, tmp_path, loss):
    _, _, metrics, progress = shop
    if loss == "bce":
        config = shop_config(tiny, loss="bce")
        progress = train.train(config, Workdir(str(tmp_path / "run")))
        metrics = evaluate.evaluate(config, Workdir(str(tmp_path / "run")), name="test")
    assert progress["best_loss"] < 0.4
    assert metrics["hr@3"] > 0.6 > 2 * metrics["popularity_baseline"]["hr@3"]
    assert metrics["invalid"] == 0


def test_scores_of_the_source_are_those_of_the_lists(shop):
    workdir, config, _, _ = shop
    folder = workdir / "eval" / "test"
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.json", "predictions.jsonl", FILE}
    config = config.copy_and_resolve_references()
    config.decode.collaborative = str(folder)
    run = set_up(config, Workdir(str(workdir)))
    rows = run.rows("test")
    source = collaborative_source(run, split="test", n_rows=len(rows))
    found, scores, _ = rank(run, trained_model(run, Workdir(str(workdir))), run.examples(rows))
    of_items = source.scores(np.arange(len(rows)))
    of_rows = np.full((len(rows), len(run.index.catalog)), -np.inf, np.float32)
    np.maximum.at(of_rows.T, run.index.catalog.row_of_item, of_items.T)
    np.testing.assert_array_equal(np.argsort(-of_rows, axis=1, kind="stable")[:, :4], found)
    np.testing.assert_allclose(np.take_along_axis(of_rows, found, axis=1), scores, rtol=1e-4, atol=1e-5)


def test_a_source_serves_its_own_split_and_rows_only(shop):
    workdir, config, _, _ = shop
    config = config.copy_and_resolve_references()
    config.decode.collaborative = str(workdir / "eval" / "test")
    run = set_up(config, Workdir(str(workdir)))
    with pytest.raises(InputError, match="has scores of split test, but the rows to rank are of split valid"):
        collaborative_source(run, split="valid", n_rows=3)
    other = dataclasses.replace(run.prepared, meta=run.prepared.meta | {"fingerprint": "other"})
    with pytest.raises(InputError, match="the rows to rank are of fingerprint other"):
        collaborative_source(dataclasses.replace(run, prepared=other), split="test", n_rows=3)


def started(module: ModuleType, *arguments: str) -> str:
    done = run_here(module, *arguments)
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def test_a_trained_run_is_evaluated_and_asked_on_the_command_line(shop):
    workdir, *_ = shop
    started(evaluate, f"--workdir={workdir}", "--split=valid")
    assert read_json(workdir / "eval" / "valid" / "metrics.json")["n"] == tiny_run.N_ROWS["valid"]
    assert (workdir / "eval" / "valid" / FILE).is_file()
    out = started(recommend, f"--workdir={workdir}", f"--history={tiny_run.TITLES[4]}", "--history=Unknown", "--k=2")
    assert "'Unknown' is no title of the catalogue, so the model cannot read it" in out
    assert tiny_run.TITLES[5] in out
