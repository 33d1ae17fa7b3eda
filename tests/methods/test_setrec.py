"""SETRec: the numbers of the published code, sums that add up, lists that are those of brute force, and bad input."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from command import run_here
from flax import nnx
from igd_jax.decoding.beam_search import SearchOptions
from safetensors.numpy import load_file, save_file

from igd_jax import evaluate, recommend, train
from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.items.index import ItemIndex, build_index
from igd_jax.methods.setrec import SETRec, in_chunks
from igd_jax.models.hf_weights import load_decoder
from igd_jax.models.setrec import ItemTokens, SetModel
from igd_jax.models.t5_weights import load_t5
from igd_jax.training.step import means

OPTIONS = SearchOptions(alpha=jnp.float32(0), temperature=jnp.float32(1), length_penalty=0.0, num_beams=8, max_length=8)
QWEN_FIELDS = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings"),
)


# ------------------------------------------------------------------------------------------------------- golden numbers
@dataclasses.dataclass(frozen=True)
class Golden:
    """A published case."""

    folder: Path
    case: dict
    arrays: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]

    def backbone(self, folder: Path):
        """The model inside, by way of a Hugging Face folder."""
        is_t5 = self.case["config"]["model_type"] == "t5"
        prefix, ours = ("t5_model.", "") if is_t5 else ("qwen_model.", "model.")
        config = self.case["config"] if is_t5 else {name: self.case["config"][name] for name in QWEN_FIELDS}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        found = {ours + name.removeprefix(prefix): x for name, x in self.weights.items() if name.startswith(prefix)}
        found.pop("decoder.query_emb.weight", None)  # no part of a T5; see `model`
        save_file(found, folder / "model.safetensors")
        return load_t5(folder) if is_t5 else load_decoder(folder)

    def model(self, folder: Path, *, gap: bool, published: bool = False) -> SetModel:
        """The model of the authors in our variables."""
        rngs, ids = (
            nnx.Rngs(0),
            [jnp.asarray(self.arrays[f"{name}_ids"][0], jnp.int32) for name in ("instruct", "response")],
        )
        tokens = ItemTokens(
            jnp.asarray(self.arrays["cf_embeddings"]),
            jnp.asarray(self.arrays["semantic_features"]),
            trains_vectors=False,
            n_semantic=self.case["n_sem"],
            width=64,
            rngs=rngs,
            hidden=tuple(self.case["ae_layers"]),
        )
        set_linear(tokens.project, self.weights, "input_proj")
        for ours, theirs in ((tokens.encoder, "encoder"), (tokens.decoder, "decoder")):
            for layer, number in zip(ours.layers, (1, 4, 7), strict=True):
                set_linear(layer, self.weights, f"tokenizer.{theirs}.mlp_layers.{number}")
        n_tokens = self.case["n_query"]
        model = SetModel(
            self.backbone(folder), tokens, instruction=ids[0], response=ids[1], n_tokens=n_tokens, gap=gap,
            query_scale=1.0, rngs=rngs, published=published,
        )  # fmt: skip
        (query,) = [x for name, x in self.weights.items() if name.endswith(("query.weight", "query_emb.weight"))]
        model.queries[...] = jnp.asarray(query)
        return model

    @property
    def batch(self) -> dict[str, jax.Array]:
        """The published batch; theirs pads with item 0."""
        shifted = self.arrays["inputs_plus_one_padded_left"]
        batch = {
            "history": np.maximum(shifted - 1, 0).astype(np.int32),
            "history_mask": shifted > 0,
            "target_item": self.arrays["labels"].astype(np.int32),
            "is_real": np.ones(len(shifted), bool),
        }
        return jax.tree.map(jnp.asarray, batch)


def set_linear(layer: nnx.Linear, weights: dict[str, np.ndarray], name: str) -> None:
    layer.kernel[...] = jnp.asarray(weights[f"{name}.weight"].T)
    layer.bias[...] = jnp.asarray(weights[f"{name}.bias"])


def golden_of(shared: Path, name: str) -> Golden:
    folder = shared / "golden" / name
    with np.load(folder / "case.npz", allow_pickle=False) as arrays:
        found = dict(arrays)
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    return Golden(folder, case, found, load_file(folder / "weights.safetensors"))


@nnx.jit
def ask(model: SetModel, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Outputs of the queries [B Z D], and scores of each [Z B I]."""
    asked = model(model.tokens(batch["history"]), batch["history_mask"])
    return asked, jnp.einsum("BZD,IZD->ZBI", asked, model.tokens(jnp.arange(model.tokens.n_items)))


def loss_of(method: SETRec, model: SetModel, batch: dict[str, jax.Array]):
    return nnx.jit(lambda model, batch: method.loss(model, batch, {}))(model, batch)


CASES = {
    "decoder": ("setrec_qwen", "", False),
    "T5 as published": ("setrec_t5", "published_", True),
    "T5 as meant": ("setrec_t5", "mended_", False),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_scores_and_loss_are_those_of_the_published_code(case, shared, tmp_path):
    name, prefix, published = CASES[case]
    golden = golden_of(shared, name)
    model = golden.model(tmp_path, gap=True, published=published)
    asked, scores = ask(model, golden.batch)
    np.testing.assert_allclose(asked.swapaxes(0, 1), golden.arrays[f"{prefix}query_output"], atol=1e-5)
    np.testing.assert_allclose(scores, golden.arrays[f"{prefix}scores"], atol=1e-4)
    total = loss_of(SETRec(n_semantic=3, alpha=golden.case["alpha"]), model, golden.batch)
    assert float(means(total)["loss"]) == pytest.approx(golden.case[f"{prefix}loss"], abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_lists_are_those_of_the_published_ranking_scores(case, shared, tmp_path):
    name, prefix, published = CASES[case]
    golden = golden_of(shared, name)
    index = index_of([f"item {number}" for number in range(37)])
    ranked = rank(
        SETRec(n_semantic=3, beta=0.1), golden.model(tmp_path, gap=True, published=published), golden.batch, index
    )
    theirs = golden.arrays["ranking_scores_beta_0_1" if name == "setrec_qwen" else f"{prefix}ranking"]
    np.testing.assert_allclose(ranked.scores, -np.sort(-theirs, axis=1)[:, :8], atol=1e-4)
    best = index.catalog.row_of_item[np.argsort(-theirs, axis=1, kind="stable")[:, :8]]
    np.testing.assert_array_equal(ranked.rows, best)


def test_the_published_query_mask_of_the_t5_is_none(shared, tmp_path):
    golden = golden_of(shared, "setrec_t5")
    for published in (True, False):
        model = golden.model(tmp_path, gap=True, published=published)
        before, _ = ask(model, golden.batch)
        model.queries[...] = model.queries[...].at[2].add(1.0)
        after, _ = ask(model, golden.batch)
        changed = np.abs(np.asarray(after - before)).max(axis=(0, 2)) > 1e-4
        assert changed.tolist() == ([True] * 4 if published else [False, False, True, False])


# ------------------------------------------------------------------------------------------------------------ own model
def index_of(titles: list[str], *, candidates: np.ndarray | None = None) -> ItemIndex:
    tokens = train_tokenizer(tiny_run.TITLES, vocab_size=300).encode_titles(titles)
    every = np.ones(len(titles), bool)
    return build_index(
        titles, tokens, np.ones(len(titles), np.int64), candidates=every if candidates is None else candidates
    )


def rank(
    method: SETRec, model: SetModel, batch: dict[str, jax.Array], index: ItemIndex, options: SearchOptions = OPTIONS
):
    tables = method.tables(tiny_run.context_of(index), model)
    return nnx.jit(lambda model, batch, tables: method.recommend(model, batch, tables=tables, options=options))(
        model, batch, tables
    )


INDEX = index_of(tiny_run.TITLES, candidates=np.arange(len(tiny_run.TITLES)) != 5)
"""Item 5 is no candidate; items 3 and 22 share a title."""


def batch_of(n_rows: int, *, width: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Histories of 1 to 3 items and a last row that only fills up."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, n_rows)
    lengths[-1] = 0
    mask = np.arange(width) >= width - lengths[:, None]
    return {
        "history": np.where(mask, rng.integers(0, len(tiny_run.TITLES), mask.shape), 0).astype(np.int32),
        "history_mask": mask,
        "target_item": np.where(lengths > 0, rng.integers(0, len(tiny_run.TITLES), n_rows), 0).astype(np.int32),
        "is_real": lengths > 0,
    }


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
        for item, row in enumerate(INDEX.catalog.row_of_item):
            if row >= 0:
                of_rows[:, row] = np.maximum(of_rows[:, row], of_items[:, item])
        order = np.argsort(-of_rows[:-1], axis=1)[:, :8]
        np.testing.assert_array_equal(ranked.rows[:-1], order)
        np.testing.assert_allclose(ranked.scores[:-1], np.take_along_axis(of_rows[:-1], order, 1), atol=1e-5)
        np.testing.assert_array_equal(ranked.nodes[:-1], INDEX.trie.leaf[order])
        assert (ranked.rows[-1] == -1).all()
        assert (ranked.nodes[-1] == -1).all()
        assert np.isneginf(ranked.scores[-1]).all()


def test_the_size_of_the_chunks_changes_no_list(model, monkeypatch):
    batch, method = batch_of(6), SETRec(n_semantic=2)
    whole = rank(method, model, batch, INDEX)
    for size in (1, 5, 8):
        monkeypatch.setattr("igd_jax.methods.setrec.CHUNK", size)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), rank(method, model, batch, INDEX), whole)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_chunks_hold_every_candidate_once_and_part_no_title(size):
    items, rows = in_chunks(INDEX.catalog, size)
    assert sorted(items[items >= 0]) == [item for item in range(len(INDEX.titles)) if item != 5]
    np.testing.assert_array_equal(rows[items >= 0], INDEX.catalog.row_of_item[items[items >= 0]])
    owners = [set(chunk_rows[chunk >= 0]) for chunk, chunk_rows in zip(items, rows, strict=True)]
    assert sum(map(len, owners)) == len(set.union(*owners)) == len(INDEX.catalog)
    assert items.shape[1] == max(2, min(size, 22))


def test_where_there_are_fewer_titles_than_asked_for_the_rest_is_empty(model):
    index = index_of(tiny_run.TITLES, candidates=np.arange(len(tiny_run.TITLES)) < 3)
    ranked = rank(SETRec(n_semantic=2), model, batch_of(3), index)
    assert (np.sort(ranked.rows[0, :3]) == np.arange(3)).all()
    assert (ranked.rows[0, 3:] == -1).all()
    assert (ranked.nodes[0, 3:] == -1).all()
    assert np.isneginf(ranked.scores[0, 3:]).all()


# ----------------------------------------------------------------------------------------------------------------- loss
def cut(batch: dict[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in batch.items()}


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
    for items, mask in zip(batch["history"], batch["history_mask"], strict=True):
        read = jnp.asarray(items[mask])
        if len(read):
            expected += np.asarray(model.tokens.rebuild_error(read, model.tokens(read))).tolist()
    assert float(with_error.loss - without.loss) == pytest.approx(2.0 * 8 * np.mean(expected), rel=1e-4)
    assert float(means(with_error)["loss_rebuilt"]) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_sample_is_the_softmax_over_its_items_with_each_rows_target_once(model):
    batch = batch_of(5) | {"noise": np.arange(7, 12, dtype=np.int32)}
    batch["target_item"][:3] = [4, 9, 4]
    method = SETRec(n_semantic=2, alpha=0.0, sampled_items=6)
    drawn = np.asarray(jax.random.randint(jax.random.key(7), (6,), 0, len(tiny_run.TITLES)))
    _, scores = ask(model, batch)
    expected = 0.0
    for row in range(4):
        own = int(batch["target_item"][row])
        others = [item for item in (*batch["target_item"][:4].tolist(), *drawn.tolist()) if item != own]
        logits = np.asarray(scores)[:, row, [own, *others]].astype(np.float64)
        expected += (np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]).mean()
    assert float(loss_of(method, model, batch).loss) == pytest.approx(expected, rel=1e-5)
    other = batch | {"noise": batch["noise"] + 1}
    assert float(loss_of(method, model, other).loss) != float(loss_of(method, model, batch).loss)
    del batch["noise"]
    assert float(loss_of(method, model, batch).loss) == float(loss_of(method, model, batch).loss)


def test_frozen_arrays_are_no_parameters_and_all_parameters_are_reached(model):
    batch, method = jax.tree.map(jnp.asarray, batch_of(5)), SETRec(n_semantic=2)
    graph, params, frozen = nnx.split(model, nnx.Param, ...)
    held = {path[-1] for path, _ in nnx.to_flat_state(frozen)}
    assert held == {"features", "instruction", "response"}
    loss = jax.jit(jax.grad(lambda params: method.loss(nnx.merge(graph, params, frozen), batch, {}).loss))
    for path, gradient in nnx.to_flat_state(loss(params)):
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
    nll = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), batch["target_item"][:5]]
    assert float(means(total)["loss"]) == pytest.approx(nll.mean(), rel=1e-5)
    np.testing.assert_array_equal(
        rank(method, model, batch, INDEX).rows[:5, 0], INDEX.catalog.row_of_item[best(logits)]
    )


def best(scores: np.ndarray) -> np.ndarray:
    """The best candidate of each row."""
    return np.where(INDEX.catalog.row_of_item >= 0, scores, -np.inf).argmax(axis=1)


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
        ({"published": True}, "published is True; expected False unless t5 is given"),
    ],
)
def test_a_value_out_of_its_range_is_bad_input(args, message):
    with pytest.raises(InputError, match=rf"^config\.method\.args\.{message}$"):
        SETRec(**args)


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
    def features_of(texts=None, *, changes=None, **args):
        context = tiny_run.context_of(INDEX, cache=tmp_path / "cache", texts=texts or {}, **(changes or {}))
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
    path, users = tmp_path / "collaborative.safetensors", np.zeros((2, 5), np.float32)
    with pytest.raises(InputError, match=r"holds no collaborative.safetensors; expected the evaluation of a collab"):
        make(collaborative=str(tmp_path))
    mine = {"fingerprint": tiny_run.context_of(INDEX).data_fingerprint}
    save_file({"items": FEATURES, "users": users}, path, metadata=mine)
    tokens = make(collaborative=str(tmp_path)).tokens
    assert not isinstance(tokens.vectors, nnx.Param)
    np.testing.assert_array_equal(tokens.vectors[...], FEATURES)
    assert "trained here" not in capsys.readouterr().out
    assert isinstance(make().tokens.vectors, nnx.Param)
    assert "collaborative tokens: trained here, from a random table" in capsys.readouterr().out
    for broken in (FEATURES[:-1], np.where(FEATURES > 2, np.float32("nan"), FEATURES)):
        save_file({"items": broken, "users": users}, path, metadata=mine)
        with pytest.raises(InputError, match=r"has \d+ vectors, \d+ of them not finite, for 23 items"):
            make(collaborative=str(tmp_path))
    save_file({"items": FEATURES, "users": users}, path, metadata={"fingerprint": "abc"})
    with pytest.raises(InputError, match=r"has vectors of data abc, but this run's data is 1111"):
        make(collaborative=str(tmp_path))


# ------------------------------------------------------------------------------------------------------ other backbones
def test_a_t5_takes_the_place_of_the_backbone_if_it_knows_the_tokenizer(shared, tmp_path):
    golden_of(shared, "setrec_t5").backbone(tmp_path)
    tiny_run.context_of(INDEX).tokenizer.save(tmp_path)
    method, context = SETRec(n_semantic=2, t5=str(tmp_path)), tiny_run.context_of(INDEX)
    model, batch = method.make_model(context), batch_of(4)
    assert model.tokens.features.shape == (len(tiny_run.TITLES), 64)
    assert np.isfinite(float(loss_of(method, model, batch).loss))
    ranked = rank(method, model, batch, INDEX)
    assert (ranked.rows[:-1] >= 0).all()
    large = train_tokenizer([f"{word}x{word}" for word in range(20_000)], vocab_size=5_000)
    other = train_tokenizer(["another"], vocab_size=260)
    for tokenizer in (large, other):
        with pytest.raises(InputError, match=r"the tokenizer has .* ids and is not that of the model in .* 4,096;"):
            method.make_model(dataclasses.replace(context, tokenizer=tokenizer))


def test_a_t5_of_a_named_size_embeds_the_tokenizer_and_is_that_of_its_seed():
    context = tiny_run.context_of(INDEX)
    first, again, other = (
        SETRec(n_semantic=1, t5="t5-pico").make_model(dataclasses.replace(context, seed=seed)).backbone
        for seed in (0, 0, 1)
    )
    assert first.embed.shape == (context.tokenizer.vocab_size, 64)
    np.testing.assert_array_equal(first.embed[...], again.embed[...])
    assert np.abs(first.embed[...] - other.embed[...]).max() > 0.1
    with pytest.raises(InputError, match=r"no T5 folder or size is called '/models/t5'; expected a folder or one of"):
        SETRec(n_semantic=1, t5="/models/t5").make_model(context)


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
@pytest.mark.parametrize(("t5", "num_steps"), [("", 150), ("t5-pico", 150)])
def test_a_run_learns_to_recommend_and_its_command_lines_agree(t5, num_steps, tiny, tmp_path):
    workdir, config = tmp_path / "run", tmp_path / "setrec.py"
    config.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\nfrom tiny_run import tiny_config\nfrom configs import setrec\n"
        "def get_config():\n"
        f"    config = tiny_config(Path({str(tiny)!r}))\n"
        "    config.method = setrec.get_config().method\n"
        f"    config.method.args.update(n_semantic=1, t5={t5!r})\n"
        f"    config.train.update(learning_rate=5e-3, num_steps={num_steps}, checkpoint_every_steps={num_steps})\n"
        "    return config\n",
        encoding="utf-8",
    )
    done = run_here(train, f"--config={config}", f"--workdir={workdir}")
    assert (done.code, done.err) == (0, ""), done.err
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [line["loss_items"] for line in lines if "loss_items" in line]
    assert losses[-1] < 0.6 * losses[0]

    done = run_here(evaluate, f"--workdir={workdir}")
    assert (done.code, done.err) == (0, ""), done.err
    (features,) = (workdir / "cache").glob("features-*.safetensors")
    assert load_file(features)["features"].shape == (len(tiny_run.TITLES), 64 if t5 else 32)
    metrics = json.loads((workdir / "eval/test/metrics.json").read_text(encoding="utf-8"))
    assert metrics["hr@3"] > 0.5

    done = run_here(recommend, f"--workdir={workdir}", f"--history={tiny_run.TITLES[6]}", "--k=4", "--json")
    assert (done.code, done.err.count("Error")) == (0, 0), done.err
    found = json.loads(done.out)
    assert tiny_run.TITLES[7] in [one["title"] for one in found]
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
