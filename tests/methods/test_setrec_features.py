"""SETRec: features of items, vectors of a collaborative run, and arguments."""

import re

import jax
import numpy as np
import pytest
import tiny_run
from flax import nnx
from safetensors.numpy import save_file
from setrec_calls import INDEX

from igd_jax import train
from igd_jax.core.errors import InputError
from igd_jax.core.fingerprint import fingerprint
from igd_jax.core.io import Workdir
from igd_jax.data.collaborative import FILE
from igd_jax.methods.setrec import SETRec
from igd_jax.models.setrec import SetModel
from igd_jax.settings.settings import settings_from
from igd_jax.training.mesh import make_mesh


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"n_semantic": -1}, "n_semantic is -1; expected a number of tokens, or 0 for the collaborative one alone"),
        (
            {"n_semantic": 0, "collaborative_token": False, "beta": 1.0},
            "n_semantic is 0; expected a number of tokens, at least 1 without the other kind",
        ),
        ({"collaborative_token": False}, "beta is 0.1; expected 1 where collaborative_token is False"),
        (
            {"collaborative_token": False, "beta": 1.0, "collaborative": "f"},
            "collaborative is 'f'; expected nothing where collaborative_token is False",
        ),
        ({"attention": "causal"}, "attention is 'causal'; expected one of sparse, dense, published"),
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
            "SASRec run (configs/sasrec.py), a .npy file, or nothing to train vectors",
        ),
        (
            {"features": "none/f"},
            "features is 'none/f', which is not a file; expected one of safetensors or .npy with features of the "
            "items, or nothing to make them from texts",
        ),
        (
            {"collaborative": "none.npy"},
            "collaborative is 'none.npy', which is not a file; expected the folder of a finished SASRec run "
            "(configs/sasrec.py), a .npy file, or nothing to train vectors",
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
    config.method.args = {"attention": "published"}
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


@pytest.mark.slow
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
    broken = {
        "has 22 item vectors for 23 items": FEATURES[:-1],
        "numbers are nan or infinite": np.where(FEATURES > 2, np.float32("nan"), FEATURES),
    }
    for message, items in broken.items():
        save_file({"items": items, "test": users}, path, metadata=mine)
        with pytest.raises(InputError, match=message):
            make(collaborative=str(tmp_path))
    save_file({"items": FEATURES, "test": users}, path, metadata={"fingerprint": "abc"})
    with pytest.raises(InputError, match=r"has vectors of data abc, but this run's data is 1111"):
        make(collaborative=str(tmp_path))


def test_vectors_and_features_of_numpy_files_are_taken_as_they_are_and_never_unpickled(tmp_path):
    vectors, features = str(tmp_path / "vectors.npy"), str(tmp_path / "features.npy")
    np.save(vectors, FEATURES[:, :3].astype(np.float64))
    np.save(features, FEATURES)
    tokens = make(collaborative=vectors, features=features).tokens
    assert not isinstance(tokens.vectors, nnx.Param)
    np.testing.assert_array_equal(tokens.vectors[...], FEATURES[:, :3])
    np.testing.assert_array_equal(tokens.features[...], FEATURES)
    broken = {
        "cannot be read as an array of numbers (Object arrays cannot be loaded": np.array([{"a": 1}], object),
        "holds shape (3,) of float64; expected a matrix of floats": np.zeros(3),
        "has 22 item vectors for 23 items; give a matrix": FEATURES[:-1],
        "1 of 115 numbers are nan or infinite": np.where(FEATURES.max() == FEATURES, np.nan, FEATURES),
    }
    for message, array in broken.items():
        np.save(vectors, array)
        with pytest.raises(InputError, match=re.escape(message)):
            make(collaborative=vectors)
