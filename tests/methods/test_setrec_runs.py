"""SETRec on other backbones, and whole runs of it."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from command import run_here
from flax import nnx
from safetensors.numpy import load_file
from setrec_calls import INDEX, TOKENIZER, batch_of, loss_of, rank

from igd_jax import Recommender, evaluate, recommend, train
from igd_jax.core.errors import InputError
from igd_jax.data.tokenizer import train_tokenizer
from igd_jax.methods.setrec import SETRec
from igd_jax.models.hf_save import save_model
from igd_jax.models.t5 import T5
from igd_jax.models.t5_config import NAMED
from igd_jax.session.backbone import make_backbone
from igd_jax.settings.sections import ModelSettings
from igd_jax.training.mesh import make_mesh


def context_with(tokenizer=TOKENIZER, *, seed: int = 0, **model: Any):
    """A context whose backbone is the one that these fields of `config.model` name."""
    fields = {"path": "", "config": "t5-pico", "dtype": "float32", "param_dtype": "float32", "dropout": -1.0} | model
    lora = {"lora_rank": 0, "lora_alpha": 16.0, "lora_targets": "q", "lora_dropout": 0.0, "quantize": ""}
    given = ModelSettings(**fields, **lora, remat="none", attention="xla")
    backbone = partial(
        make_backbone, given, tokenizer, vocab_size=tokenizer.vocab_size, seed=seed, mesh=make_mesh(data=1)
    )
    return tiny_run.context_of(INDEX, backbone=backbone, tokenizer=tokenizer, seed=seed)


@pytest.mark.slow
def test_a_t5_of_a_folder_is_the_backbone_if_it_knows_the_tokenizer(tmp_path):
    save_model(nnx.jit(lambda: T5(replace(NAMED["t5-pico"], vocab_size=300), rngs=nnx.Rngs(0)))(), tmp_path, eos=1)
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


@pytest.mark.parametrize(("config", "query_scale"), [("pico", 1.0), ("t5-pico", 0.02)])
def test_what_a_backbone_gets_starts_as_published(config, query_scale):
    """PyTorch's linear map reads vectors, Xavier normal weights features, and queries are normal, by backbone.

    Standard deviations tell these apart from others, and extremes a normal distribution from a uniform one.
    """
    model = SETRec(n_semantic=6).make_model(context_with(config=config))
    assert isinstance(model.backbone, T5) == (config == "t5-pico")
    assert float(np.std(model.queries[...])) == pytest.approx(query_scale, rel=0.15)
    assert np.abs(model.queries[...]).max() > 2.5 * query_scale

    tokens, within = model.tokens, 64**-0.5
    assert tokens.vectors.shape[1] == 64
    for weights, error in ((tokens.project.kernel, 0.03), (tokens.project.bias, 0.25)):
        assert float(np.std(weights[...])) == pytest.approx(within / 3**0.5, rel=error)
        assert 0.9 * within < np.abs(weights[...]).max() <= within

    for layer in (*tokens.encoder.layers, *tokens.decoder.layers):
        weights, deviation = np.asarray(layer.kernel[...]), (2 / sum(layer.kernel.shape)) ** 0.5
        assert weights.std() == pytest.approx(deviation, rel=0.03)
        assert np.abs(weights).max() > 2 * deviation
        assert not layer.bias[...].any()


@pytest.mark.slow
def test_a_t5_drops_out_where_rows_have_seeds_and_nothing_else_changes():
    method, batch = SETRec(n_semantic=1, alpha=0.0), batch_of(4)
    plain, off = (method.make_model(context_with(dropout=rate)) for rate in (-1.0, 0.0))
    assert (plain.backbone.config.dropout, off.backbone.config.dropout) == (0.1, 0.0)
    seeded = batch.replace(seed=np.arange(4, dtype=np.int32))
    losses = [float(loss_of(method, model, rows).loss) for model in (plain, off) for rows in (batch, seeded)]
    assert losses[0] == losses[2] == losses[3]
    assert abs(losses[1] - losses[0]) > 1e-3


# ---------------------------------------------------------------------------------------------------------- a whole run
@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["decoder", "t5"])
def test_a_run_learns_to_recommend_and_its_command_lines_agree(backbone, tiny, sasrec_run, tmp_path):
    """The decoder with vectors of a SASRec run and published positions; the T5 learns its own, at a lower rate."""
    workdir, file, width = tmp_path / "run", tmp_path / "setrec.py", {"decoder": 32, "t5": 64}[backbone]
    changes = {"train.learning_rate": 5e-3, "train.num_steps": 150}
    changes |= {"train.checkpoint_every_steps": 150, "train.eval_every_steps": 150}
    if backbone == "t5":
        changes |= {"model.path": "", "model.config": "t5-pico", "tokenizer.path": str(tiny / "model")}
        changes |= {"model.dropout": 0.0, "train.learning_rate": 2e-3}
    vectors, positions = (str(sasrec_run), "published") if backbone == "decoder" else ("", "contiguous")
    file.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\nfrom tiny_run import tiny_config\nfrom configs import setrec\n"
        "def get_config():\n"
        f"    config = tiny_config(Path({str(tiny)!r}), {changes!r})\n"
        "    config.method = setrec.get_config().method\n"
        f"    config.method.args.update(n_semantic=1, collaborative={vectors!r}, positions={positions!r})\n"
        "    return config\n",
        encoding="utf-8",
    )
    done = run_here(train, f"--config={file}", f"--workdir={workdir}")
    assert (done.code, done.err) == (0, ""), done.err
    assert ("trained here, from a random table" in done.out) == (backbone == "t5")
    first, *_, last = map(json.loads, (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert last["valid_loss"] < 0.6 * first["loss_items"]

    done = run_here(evaluate, f"--workdir={workdir}")
    assert (done.code, done.err) == (0, ""), done.err
    (features,) = (workdir / "cache").glob("features-*.safetensors")
    assert load_file(features)["features"].shape == (len(tiny_run.TITLES), width)
    metrics = json.loads((workdir / "eval/test/metrics.json").read_text(encoding="utf-8"))
    assert metrics["hr@3"] > 0.5

    history = [f"--history={title}" for title in tiny_run.TITLES[5:7]]
    done = run_here(recommend, f"--workdir={workdir}", *history, "--k=4", "--json")
    assert (done.code, done.err.count("Error")) == (0, 0), done.err
    found = json.loads(done.out)
    assert tiny_run.TITLES[7] in [one["title"] for one in found]
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True)
    longer = {"history": tiny_run.TITLES[:12]}
    beside, _ = Recommender.load(workdir).recommend([{"history": tiny_run.TITLES[5:7]}, longer], k=4)
    np.testing.assert_allclose([result.score for result in beside.results], scores, rtol=1e-4)
    (too_long,) = Recommender.load(workdir).recommend([{"history": tiny_run.TITLES * 12}])
    assert too_long.notes == (
        ("the history is cut to its newest items: over 226 items",) if backbone == "decoder" else ()
    )
