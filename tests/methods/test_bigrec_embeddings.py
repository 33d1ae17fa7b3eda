"""Embeddings of titles: the same from any number of devices, kept beside a run, and never those of something else."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from bigrec_calls import TOKENIZER, embed, engine_of, index_over, remainders_of
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_run import HF_CONFIG, TITLES, tiny_config

from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir, read_json, write_json
from igd_jax.decoding.grounding import embed_rows
from igd_jax.methods.bigrec import BIGRec
from igd_jax.session.session import set_up
from igd_jax.session.weights import trained_model
from igd_jax.settings.settings import settings_from
from igd_jax.training.mesh import make_mesh


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "cache"


@pytest.mark.parametrize("bos", [None, 5])
def test_devices_share_the_titles_and_change_nothing(index, model, bos, monkeypatch):
    monkeypatch.setattr("igd_jax.decoding.grounding.TITLES_AT_ONCE", 12)  # of 22; over 8 devices they are 16
    left, rows = remainders_of(TOKENIZER), index.catalog.tokens
    alone, shared = (embed_rows(model, rows, left, bos=bos, mesh=make_mesh(data=devices)) for devices in (1, 8))
    np.testing.assert_allclose(shared, alone, rtol=1e-4, atol=1e-4)
    titles = TOKENIZER.encode([index.title_of_row(row) for row in range(len(rows))])
    plain = embed(model, [([] if bos is None else [bos]) + ids for ids in titles])
    np.testing.assert_allclose(alone, plain, rtol=1e-4, atol=1e-4)


def test_embeddings_are_kept_and_read_again_by_the_same_model_and_catalogue(index, model, base, cache):
    method = BIGRec(embed_by="tuned")
    first = engine_of(method, model, index, cache=cache)
    [path] = cache.iterdir()
    kept = load_file(path)["embeddings"]
    assert kept.shape == (len(index.catalog), HF_CONFIG["hidden_size"])
    given = engine_of(BIGRec(embed_by="tuned", embeddings=str(path)), model, index)
    np.testing.assert_array_equal(first.titles.centred, given.titles.centred)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file({"embeddings": kept + np.float32(1)}, path, metadata=metadata)
    again = engine_of(method, model, index, cache=cache)
    np.testing.assert_allclose(again.titles.mean, first.titles.mean + 1, rtol=1e-6)
    engine_of(method, base, index, cache=cache)
    assert len(list(cache.iterdir())) == 2


def test_without_a_workdir_nothing_is_written(index, model, tmp_path):
    engine_of(BIGRec(embed_by="tuned"), model, index, cache=tmp_path / "run" / "cache")
    assert not (tmp_path / "run").exists()


def test_embeddings_of_another_model_or_catalogue_are_bad_input(index, model, base, cache):
    engine_of(BIGRec(embed_by="tuned"), model, index, cache=cache)
    [path] = cache.iterdir()
    method = BIGRec(embed_by="tuned", embeddings=str(path))
    with pytest.raises(InputError, match=r"embeddings is .*, which is of another model; expected those of this run"):
        engine_of(method, base, index, cache=cache)
    fewer = index_over(np.arange(len(TITLES)) < 9)
    with pytest.raises(InputError, match=r"which is of another catalogue; expected"):
        engine_of(method, model, fewer, cache=cache)
    with pytest.raises(InputError, match=r"which is of another model and another catalogue; expected"):
        engine_of(method, base, fewer, cache=cache)


def test_what_is_no_file_of_embeddings_is_bad_input(index, model, tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"\x80\x04pickle")
    method = BIGRec(embed_by="tuned", embeddings=str(path))
    with pytest.raises(InputError, match=r"other.safetensors cannot be read .*; leave .*embeddings empty"):
        engine_of(method, model, index)
    path.unlink()
    with pytest.raises(
        InputError, match=r"embeddings is '.*other.safetensors', which is not a file; expected one from"
    ):
        BIGRec(embed_by="tuned", embeddings=str(path))


def test_a_run_is_decoded_though_the_embeddings_that_it_named_are_gone(tiny, trained, tmp_path):
    workdir = Workdir(str(shutil.copytree(trained, tmp_path / "run")))
    trained_by = {"name": "bigrec", "args": {"embeddings": str(tmp_path / "gone")}}
    write_json(workdir.config, read_json(workdir.config) | {"method": trained_by})
    config = tiny_config(tiny, {"method.name": "bigrec"})
    config.method.args = {"embeddings": ""}
    session = set_up(settings_from(config), workdir)
    assert trained_model(session, workdir, session.context(session.index)).step == 18
