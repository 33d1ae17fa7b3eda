"""SETRec: sums that add up, lists that are those of brute force, bad input, other backbones, and a whole run."""

import json
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from command import run_here
from flax import nnx
from safetensors.numpy import load_file, save_file
from setrec_calls import ask, index_of, loss_of, rank

from igd_jax import evaluate, recommend, train
from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import Workdir
from igd_jax.core.types import ItemBatch
from igd_jax.data.collaborative import FILE
from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.methods.setrec import SETRec, in_chunks
from igd_jax.models.setrec import SetModel
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import named
from igd_jax.models.t5_weights import save_t5
from igd_jax.session.backbone import make_backbone
from igd_jax.session.sections import ModelSettings
from igd_jax.session.settings import settings_from
from igd_jax.training.mesh import make_mesh
from igd_jax.training.step import means

TOKENIZER = train_tokenizer(tiny_run.TITLES, vocab_size=300)
INDEX = index_of(tiny_run.TITLES, candidates=np.arange(len(tiny_run.TITLES)) != 5)
"""Item 5 is no candidate; items 3 and 22 share a title."""


def batch_of(n_rows: int, *, width: int = 4, seed: int = 0) -> ItemBatch:
    """Histories of 1 to 3 items and a last row that only fills up."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, n_rows)
    lengths[-1] = 0
    mask = np.arange(width) >= width - lengths[:, None]
    return ItemBatch(
        history=np.where(mask, rng.integers(0, len(tiny_run.TITLES), mask.shape), 0).astype(np.int32),
        history_mask=mask,
        target=np.where(lengths > 0, rng.integers(0, len(tiny_run.TITLES), n_rows), 0).astype(np.int32),
        is_real=lengths > 0,
    )


@pytest.fixture(scope="module")
def model() -> SetModel:
    return SETRec(n_semantic=2).make_model(tiny_run.context_of(INDEX))


def test_a_list_is_that_of_a_sort_of_all_titles_by_their_best_items(model):
    batch = batch_of(6)
    _, scores = ask(model, batch)
    for beta in (0.0, 0.3, 1.0):
        ranked = rank(SETRec(n_semantic=2, beta=beta), model, batch, INDEX)
        of_items = np.asarray((1 - beta) * scores[0] + beta * scores[1:].sum(axis=0))
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
    method = SETRec(n_semantic=2, alpha=0.0)
    whole = loss_of(method, model, batch)
    parts = loss_of(method, model, cut(batch, slice(0, 3))) + loss_of(method, model, cut(batch, slice(3, 9)))
    real = loss_of(method, model, cut(batch, slice(0, 8)))
    assert float(whole.weight) == float(parts.weight) == float(real.weight) == 8
    for other in (parts, real):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, other)
    assert np.isfinite(float(loss_of(method, model, cut(batch, slice(8, 9))).loss))


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
    unseeded = batch.replace(seed=None)
    assert float(loss_of(method, model, unseeded).loss) == float(loss_of(method, model, unseeded).loss)


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


def best(scores: np.ndarray) -> np.ndarray:
    """The best candidate of each row."""
    return np.where(INDEX.candidates, scores, -np.inf).argmax(axis=1)


# ----------------------------------------------------------------------------------------- features, vectors, arguments
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"n_semantic": -1}, "n_semantic is -1; expected a number of tokens, or 0 for the collaborative one alone"),
        ({"alpha": -0.1}, "alpha is -0.1; expected a weight of 0 or more"),
        ({"alpha": float("nan")}, "alpha is nan; expected a weight of 0 or more"),
        ({"beta": 1.5}, "beta is 1.5; expected a weight from 0 to 1"),
        ({"n_semantic": 0}, "beta is 0.1; expected 0 where n_semantic is 0"),
        ({"sampled_items": -3}, "sampled_items is -3; expected a number of items, or 0 for all"),
        ({"positions": "raw"}, "positions is 'raw'; expected contiguous or published"),
        ({"missing": "mean"}, "missing is 'mean'; expected 'zero' or nothing"),
        ({"pooling": "max"}, "pooling is 'max'; expected mean or last"),
        ({"pooling": "last", "features": "f"}, "pooling is 'last'; expected mean where features are given"),
        ({"text_model": "m", "features": "f"}, "text_model is 'm'; expected nothing where features are given"),
        (
            {"collaborative": "none"},
            "collaborative is 'none', which holds no collaborative.safetensors; expected the folder of a finished "
            "SASRec run (configs/sasrec.py), or nothing to train vectors",
        ),
        (
            {"features": "none/f"},
            "features is 'none/f', which is no file; expected one of safetensors with features of the items, or "
            "nothing to make them from texts",
        ),
        (
            {"text_model": "none"},
            "text_model is 'none', which holds no config.json and no tokenizer.json; expected the Hugging Face folder "
            "of a decoder or a T5 with its tokenizer, or nothing for the backbone",
        ),
    ],
)
def test_a_value_out_of_its_range_is_bad_input(args, message):
    with pytest.raises(InputError, match=rf"^config\.method\.args\.{re.escape(message)}$"):
        SETRec(**args)


def test_files_that_are_not_there_are_told_before_any_data_is_read(tiny, tmp_path):
    config = tiny_run.tiny_config(tiny, {"data.dir": str(tmp_path), "method.name": "setrec"})
    (tmp_path / "meta.json").write_text("no data", encoding="utf-8")
    for name in ("collaborative", "features", "text_model"):
        config.method.args = {name: str(tmp_path / "none")}
        with pytest.raises(InputError, match=rf"^config.method.args.{name} is '.*none', which "):
            train.train(config, Workdir(str(tmp_path / "run")))


def test_the_published_attention_is_that_of_a_t5(tiny):
    config = tiny_run.tiny_config(tiny, {"method.name": "setrec"})
    config.method.args = {"published": True}
    with pytest.raises(InputError, match=r"config.model names a decoder, but setrec with these arguments works on t5;"):
        settings_from(config)


FEATURES = np.random.default_rng(0).normal(size=(len(tiny_run.TITLES), 5)).astype(np.float32)


def make(**args) -> SetModel:
    return SETRec(n_semantic=1, **args).make_model(tiny_run.context_of(INDEX))


def test_features_of_a_file_are_taken_as_they_are_and_items_without_are_named(tmp_path, capsys):
    path, given = str(tmp_path / "features.safetensors"), FEATURES.copy()
    given[[2, 6, 8, 9]] = 0
    save_file({"features": given}, path, metadata={"fingerprint": fingerprint(*tiny_run.TITLES)})
    np.testing.assert_array_equal(make(features=path).tokens.features[...], given)
    titles = ", ".join(repr(tiny_run.TITLES[item]) for item in (2, 6, 8))
    assert f"4 of 23 items have no features, such as {titles}; theirs are zeros" in capsys.readouterr().out
    given[4, 1] = np.nan
    save_file({"features": given}, path)
    with pytest.raises(InputError, match=r"not finite for 1 items, such as 'Little Fox \(print\)'; mend them"):
        make(features=path)
    np.testing.assert_array_equal(make(features=path, missing="zero").tokens.features[4], np.zeros(5))
    assert "5 of 23 items have no features" in capsys.readouterr().out


def test_features_come_from_texts_and_are_made_again_for_others(tmp_path):
    def features_of(texts=None, *, changes=None, cached=True, **args):
        cache = tmp_path / ("cache" if cached else "none/cache")
        context = tiny_run.context_of(INDEX, cache=cache, texts=texts or {}, **(changes or {}))
        return SETRec(n_semantic=1, **args).make_model(context).tokens.features[...]

    tiny_run.save_model(tmp_path / "text")
    seen = [
        features_of(),
        features_of(pooling="last"),
        features_of({"brand": ["Wing"] * 23}),
        features_of(changes={"backbone": moved_backbone}),
        features_of(text_model=str(tmp_path / "text")),
        features_of({"category": ["Wing"] * 23}),
    ]
    dealt = features_of(changes={"mesh": make_mesh(data=8)}, pooling="last", cached=False)
    np.testing.assert_allclose(dealt, seen[1], atol=1e-5)
    assert len(list((tmp_path / "cache").iterdir())) == len(seen)
    np.testing.assert_array_equal(features_of({"brand": ["Wing"] * 23}), seen[2])
    np.testing.assert_array_equal(seen[2], seen.pop())  # what a field is called says nothing of the text
    for number, features in enumerate(seen):
        assert all(np.abs(features - other).max() > 1e-3 for other in seen[number + 1 :])


def moved_backbone():
    decoder = tiny_run.context_of(INDEX).backbone()
    decoder.layers.mlp.down.kernel[...] = decoder.layers.mlp.down.kernel[...] + 0.1
    return decoder


def test_a_text_model_is_no_part_of_the_model(tmp_path):
    context = tiny_run.context_of(INDEX)
    tiny_run.save_model(tmp_path / "text")
    model = SETRec(n_semantic=1, text_model=str(tmp_path / "text")).make_model(context)
    jax.tree.map(
        np.testing.assert_array_equal,
        *(nnx.to_pure_dict(nnx.state(backbone)) for backbone in (model.backbone, context.backbone())),
    )


def test_vectors_of_a_collaborative_run_stay_as_they_are_or_are_bad_input(tmp_path, capsys):
    path, users = tmp_path / FILE, np.zeros((2, 5), np.float32)
    mine = {"fingerprint": tiny_run.context_of(INDEX).data_fingerprint}
    save_file({"items": FEATURES, "test": users}, path, metadata=mine)
    tokens = make(collaborative=str(tmp_path)).tokens
    assert not isinstance(tokens.vectors, nnx.Param)
    np.testing.assert_array_equal(tokens.vectors[...], FEATURES)
    assert "trained here" not in capsys.readouterr().out
    assert isinstance(make().tokens.vectors, nnx.Param)
    assert "collaborative tokens: trained here, from a random table" in capsys.readouterr().out
    for broken, told in (
        (FEATURES[:-1], "has 22 item vectors for 23 items"),
        (np.where(FEATURES > 2, np.float32("nan"), FEATURES), "not finite"),
    ):
        save_file({"items": broken, "test": users}, path, metadata=mine)
        with pytest.raises(InputError, match=told):
            make(collaborative=str(tmp_path))
    save_file({"items": FEATURES, "test": users}, path, metadata={"fingerprint": "abc"})
    with pytest.raises(InputError, match=r"has vectors of data abc, but this run's data is 1111"):
        make(collaborative=str(tmp_path))


# ------------------------------------------------------------------------------------------------------ other backbones
def context_with(tokenizer=TOKENIZER, *, seed: int = 0, **model: str):
    """A context whose backbone is the one that these fields of `config.model` name."""
    fields = {"path": "", "config": "t5-pico", "dtype": "float32", "param_dtype": "float32"} | model
    given = ModelSettings(**fields, lora_rank=0, lora_alpha=16.0, lora_targets="q", remat=False)
    backbone = partial(make_backbone, given, tokenizer, vocab_size=tokenizer.vocab_size, seed=seed)
    return tiny_run.context_of(INDEX, backbone=backbone, tokenizer=tokenizer, seed=seed)


def test_a_t5_of_a_folder_is_the_backbone_if_it_knows_the_tokenizer(tmp_path):
    save_t5(nnx.jit(lambda: T5(named("t5-pico", vocab_size=300), rngs=nnx.Rngs(0)))(), tmp_path)
    method, batch = SETRec(n_semantic=2), batch_of(4)
    model = method.make_model(context_with(path=str(tmp_path)))
    assert isinstance(model.backbone, T5)
    assert model.tokens.features.shape == (len(tiny_run.TITLES), 64)
    assert np.isfinite(float(loss_of(method, model, batch).loss))
    ranked = rank(method, model, batch, INDEX)
    assert (ranked.rows[:-1] >= 0).all()
    large = train_tokenizer([f"{word}x{word}" for word in range(2_000)], vocab_size=900)
    with pytest.raises(InputError, match=r"the tokenizer has 900 ids but the model in .* embeds 300; give the tokeniz"):
        method.make_model(context_with(large, path=str(tmp_path)))


def test_a_t5_of_a_named_size_embeds_the_tokenizer_and_is_that_of_its_seed():
    first, again, other = (SETRec(n_semantic=1).make_model(context_with(seed=seed)).backbone for seed in (0, 0, 1))
    assert first.embed.shape == (TOKENIZER.vocab_size, 64)
    np.testing.assert_array_equal(first.embed[...], again.embed[...])
    assert np.abs(first.embed[...] - other.embed[...]).max() > 0.1


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


# ---------------------------------------------------------------------------------------------------------- a whole run
@pytest.mark.parametrize("backbone", ["decoder", "t5"])
def test_a_run_learns_to_recommend_and_its_command_lines_agree(backbone, tiny, sasrec_run, tmp_path):
    """The decoder with vectors of a SASRec run, the T5 with vectors of its own."""
    workdir, file, width = tmp_path / "run", tmp_path / "setrec.py", {"decoder": 32, "t5": 64}[backbone]
    changes = {"train.learning_rate": 5e-3, "train.num_steps": 150, "train.checkpoint_every_steps": 150}
    if backbone == "t5":
        changes |= {"model.path": "", "model.config": "t5-pico", "tokenizer.path": str(tiny / "model")}
    vectors = str(sasrec_run) if backbone == "decoder" else ""
    file.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\nfrom tiny_run import tiny_config\nfrom configs import setrec\n"
        "def get_config():\n"
        f"    config = tiny_config(Path({str(tiny)!r}), {changes!r})\n"
        "    config.method = setrec.get_config().method\n"
        f"    config.method.args.update(n_semantic=1, collaborative={vectors!r})\n"
        "    return config\n",
        encoding="utf-8",
    )
    done = run_here(train, f"--config={file}", f"--workdir={workdir}")
    assert (done.code, done.err) == (0, ""), done.err
    assert ("trained here, from a random table" in done.out) == (backbone == "t5")
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [line["loss_items"] for line in lines if "loss_items" in line]
    assert losses[-1] < 0.6 * losses[0]

    done = run_here(evaluate, f"--workdir={workdir}")
    assert (done.code, done.err) == (0, ""), done.err
    (features,) = (workdir / "cache").glob("features-*.safetensors")
    assert load_file(features)["features"].shape == (len(tiny_run.TITLES), width)
    metrics = json.loads((workdir / "eval/test/metrics.json").read_text(encoding="utf-8"))
    assert metrics["hr@3"] > 0.5

    done = run_here(recommend, f"--workdir={workdir}", f"--history={tiny_run.TITLES[6]}", "--k=4", "--json")
    assert (done.code, done.err.count("Error")) == (0, 0), done.err
    found = json.loads(done.out)
    assert tiny_run.TITLES[7] in [one["title"] for one in found]
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
