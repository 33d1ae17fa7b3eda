"""Features of items: hidden states of their texts by a plain pass over each, and files that do not fit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from flax import nnx
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.data.item_features import load_text_model, read_features, text_features
from igd_jax.data.tokenizer import Tokenizer, train_tokenizer
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_config import from_hf
from igd_jax.models.hf_save import save_model
from igd_jax.models.load import load_backbone
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import NAMED
from igd_jax.models.visibility import Causal, both_sides, positions_of
from igd_jax.training.mesh import make_mesh

TITLES = tiny_run.TITLES
TOKENIZER = train_tokenizer(TITLES, vocab_size=300)
FEATURES = np.random.default_rng(0).normal(size=(len(TITLES), 5)).astype(np.float32)


def make_decoder(max_positions: int = 512) -> Decoder:
    config = from_hf(tiny_run.HF_CONFIG | {"max_position_embeddings": max_positions})
    return nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))()


def make_t5() -> T5:
    return nnx.jit(lambda: T5(replace(NAMED["t5-pico"], vocab_size=300), rngs=nnx.Rngs(0)))()


def features_of(
    model: Decoder | T5,
    texts: Mapping[str, Sequence[str]] | None = None,
    *,
    tokenizer: Tokenizer = TOKENIZER,
    pooling: str = "mean",
    devices: int = 1,
) -> np.ndarray:
    return text_features(model, tokenizer, TITLES, texts or {}, pooling=pooling, mesh=make_mesh(data=devices))


def hidden_states(model: Decoder | T5, text: str, *, tokenizer: Tokenizer = TOKENIZER, longest: int = 512) -> jax.Array:
    """Of all tokens of one text and its newline, by a plain pass over it alone."""
    ids = jnp.asarray(tokenizer.encode([text + "\n"])[0][:longest])[None]
    return all_states(model, ids, jnp.ones(ids.shape, bool))[0]


@nnx.jit
def all_states(model: Decoder | T5, ids: jax.Array, valid: jax.Array) -> jax.Array:
    if isinstance(model, T5):
        return model.encode(ids, positions=positions_of(valid), visible=both_sides(valid))
    return model(ids, positions=positions_of(valid), visible=Causal(valid))[0]


# -------------------------------------------------------------------------------------------------------------- by text
@pytest.mark.parametrize("make", [make_decoder, make_t5])
def test_features_are_pooled_hidden_states_of_each_title_alone(make):
    model = make()
    hidden = hidden_states(model, TITLES[7])
    np.testing.assert_allclose(features_of(model)[7], hidden.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(features_of(model, pooling="last")[7], hidden[-1], atol=1e-5)


def test_features_are_the_mean_over_the_texts_that_an_item_has(capsys):
    model, n = make_decoder(), len(TITLES)
    texts = {"description": ["", "Red and soft"] + [""] * (n - 2), "brand": ["", "Wing"] + ["Tail"] * (n - 2)}
    features = features_of(model, texts)
    means = {text: hidden_states(model, text).mean(axis=0) for text in (*TITLES[:3], "Red and soft", "Wing", "Tail")}
    np.testing.assert_allclose(features[0], means[TITLES[0]], atol=1e-5)
    np.testing.assert_allclose(features[1], (means[TITLES[1]] + means["Red and soft"] + means["Wing"]) / 3, atol=1e-5)
    np.testing.assert_allclose(features[2], (means[TITLES[2]] + means["Tail"]) / 2, atol=1e-5)
    said = capsys.readouterr().out
    assert "reading 23 texts (title), 0 of them cut" in said
    assert "reading 1 texts (description), 0 of them cut" in said
    assert "reading 22 texts (brand), 0 of them cut" in said


@pytest.mark.parametrize("make", [make_decoder, make_t5])
def test_devices_share_the_texts_and_change_nothing(make, monkeypatch):
    model, texts = make(), {"brand": ["Wing" * (item % 2) for item in range(len(TITLES))], "none": [""] * len(TITLES)}
    monkeypatch.setattr("igd_jax.data.item_features.TOKENS_AT_ONCE", 100)  # 6 rows of 16 tokens, and so 8 of them
    alone, shared = features_of(model, texts), features_of(model, texts, devices=8)
    np.testing.assert_allclose(shared, alone, rtol=1e-5, atol=1e-5)
    assert np.abs(alone[:-1] - alone[1:]).max(axis=1).min() > 1e-2


def test_long_texts_are_cut_to_the_positions_of_the_model_and_counted(capsys, monkeypatch):
    model, long = make_decoder(max_positions=20), "Red Fox and Grey Heron on a wall " * 9
    features = features_of(model, {"description": [long] + [""] * 21 + ["Short"]})
    whole, title = hidden_states(model, long, longest=20), hidden_states(model, TITLES[0])
    np.testing.assert_allclose(features[0], (whole.mean(axis=0) + title.mean(axis=0)) / 2, atol=1e-5)
    assert "reading 2 texts (description), 1 of them cut to 20 tokens" in capsys.readouterr().out
    monkeypatch.setattr("igd_jax.data.item_features.TOKENS_AT_ONCE", 40)
    np.testing.assert_allclose(features_of(model, {"description": [long] + [""] * 21 + ["Short"]}), features, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- a text model
@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_a_text_model_reads_by_its_own_tokenizer(kind, tmp_path):
    folder = tmp_path / "text"
    tiny_run.save_model(folder)
    if kind == "t5":
        save_model(make_t5(), folder, eos=1)
    train_tokenizer(["another"], vocab_size=260).save(folder)
    model, tokenizer = load_text_model(folder)
    assert tokenizer.vocab_size < TOKENIZER.vocab_size
    hidden = hidden_states(load_backbone(folder), TITLES[7], tokenizer=tokenizer)
    for pooling, expected in {"mean": hidden.mean(axis=0), "last": hidden[-1]}.items():
        np.testing.assert_allclose(features_of(model, tokenizer=tokenizer, pooling=pooling)[7], expected, atol=1e-5)


def test_a_folder_that_cannot_read_texts_is_bad_input(tmp_path):
    def expect(message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_text_model(tmp_path / "text")

    tiny_run.save_model(tmp_path / "text")
    train_tokenizer([f"{word}x{word}" for word in range(2_000)], vocab_size=900).save(tmp_path / "text")
    expect(r"text_model is '.*text', whose tokenizer has 900 ids, but whose model embeds 304; give a folder whose two")
    (tmp_path / "text" / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "text" / "config.json").write_text("[]", encoding="utf-8")
    expect(r"config.json holds a list; expected an object")


# --------------------------------------------------------------------------------------------------------------- a file
def test_rows_that_are_not_finite_are_refused_or_zeros(tmp_path):
    path, given = tmp_path / "features.safetensors", FEATURES.copy()
    given[4, 1] = np.nan
    save_file({"features": given}, path, metadata={"fingerprint": fingerprint(*TITLES)})
    with pytest.raises(InputError, match=r"not finite for 1 items, such as 'Little Fox \(print\)'; mend them"):
        read_features(path, TITLES, missing="")
    given[4] = 0
    np.testing.assert_array_equal(read_features(path, TITLES, missing="zero"), given)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"features": FEATURES[:-1]}, {}, "features of 22 items, fingerprint not given, but the data has 23 items"),
        ({"features": FEATURES}, {"fingerprint": "abc"}, "features of 23 items, fingerprint abc, but the data has 23"),
        ({"vectors": FEATURES}, {}, "has tensors vectors; expected 'features', a matrix of floats"),
        ({"features": FEATURES[0]}, {}, "has tensors features; expected 'features', a matrix of floats"),
        ({"features": np.ones((23, 2), np.int32)}, {}, "has tensors features; expected 'features', a matrix of floats"),
        (None, {}, "cannot be read as safetensors"),
    ],
)
def test_features_that_do_not_fit_are_bad_input(tensors, metadata, message, tmp_path):
    path = tmp_path / "features.safetensors"
    if tensors is not None:
        save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match=message):
        read_features(path, TITLES, missing="")
