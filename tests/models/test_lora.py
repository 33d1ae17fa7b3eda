"""Adapters: nothing at first, then what their formula says; nothing else of the decoder is trained or saved."""

import dataclasses
import json
import shutil
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from command import run_here
from flax import nnx
from safetensors.numpy import load_file, save_file

from igd_jax import evaluate, train
from igd_jax.core.errors import InputError
from igd_jax.core.io import Workdir
from igd_jax.core.memory import shown_bytes
from igd_jax.models.decoder import Decoder
from igd_jax.models.hf_config import from_hf
from igd_jax.models.layers import Frozen
from igd_jax.models.load import grow_vocabulary
from igd_jax.models.lora import TARGETS, LoRA, LowRank, add_lora
from igd_jax.models.visibility import Causal, positions_of
from igd_jax.session.session import set_up
from igd_jax.session.weights import split_trainable, trained_model
from igd_jax.settings.settings import settings_from

CONFIG = from_hf(tiny_run.HF_CONFIG)
IDS = jnp.asarray([[3, 14, 15, 9, 26, 5], [2, 7, 18, 28, 1, 8]], jnp.int32)
VALID = jnp.ones(IDS.shape, bool)
ALL = ",".join(TARGETS)
SHAPES = {
    "q": (32, 32),
    "k": (32, 16),
    "v": (32, 16),
    "o": (32, 32),
    "gate": (32, 64),
    "up": (32, 64),
    "down": (64, 32),
}
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@cache
def plain(**options) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.jit(lambda: Decoder(CONFIG, rngs=nnx.Rngs(0), **options))())


def make(targets: str = "", *, rank: int = 2, alpha: float = 6.0, seed: int = 1, **options) -> Decoder:
    """The same decoder each time, with adapters on the targets, if any."""
    graph, state = plain(**options)
    decoder = nnx.merge(graph, jax.tree.map(lambda x: x, state))  # with variables of its own
    if targets:
        add_lora(decoder, LoRA(rank, alpha, targets), rngs=nnx.Rngs(seed))
    return decoder


def adapters(decoder: Decoder) -> dict[str, LowRank]:
    maps = {name: getattr(getattr(decoder.layers, part), name) for name, part in TARGETS.items()}
    return {name: linear.adapter for name, linear in maps.items() if linear.adapter is not None}


def fill(decoder: Decoder) -> Decoder:
    """Random numbers in place of the zeros of every B."""
    rng = np.random.default_rng(3)
    for adapter in adapters(decoder).values():
        adapter.b[...] = jnp.asarray(rng.normal(0, 0.3, adapter.b.shape), jnp.float32)
    return decoder


def forward(decoder: Decoder) -> jax.Array:
    hidden, _ = decoder(IDS, positions=positions_of(VALID), visible=Causal(VALID))
    return decoder.logits(hidden)


logits_of = nnx.jit(forward)


# ------------------------------------------------------------------------------------------------------------ the maths
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_new_adapters_change_nothing(dtype):
    options = {"dtype": dtype, "param_dtype": dtype}
    np.testing.assert_array_equal(logits_of(make(ALL, **options)), logits_of(make(**options)))


@pytest.mark.parametrize("targets", [ALL, "v,q", "down"])
def test_an_adapter_is_a_low_rank_matrix_added_to_the_weights(targets):
    decoder, merged = fill(make(targets)), make()
    assert set(adapters(decoder)) == set(targets.split(","))
    for name, adapter in adapters(decoder).items():
        kernel = getattr(getattr(merged.layers, TARGETS[name]), name).kernel
        a, b = np.asarray(adapter.a[...], np.float64), np.asarray(adapter.b[...], np.float64)
        for layer in range(CONFIG.num_layers):
            kernel[...] = kernel[...].at[layer].add(np.float32(6.0 / 2 * a[layer] @ b[layer]))
    ours = logits_of(decoder)
    close(ours, logits_of(merged))
    assert np.abs(ours - logits_of(make())).max() > 1e-3


def test_a_map_is_that_of_the_formula_of_peft():
    linear, x = fill(make("gate", rank=3, alpha=16.0)).layers.mlp.gate, np.linspace(-1, 1, 64).reshape(1, 2, 32)
    graph, state = nnx.split(linear)
    layer = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[1], state))
    weight, a, b = (np.asarray(part[...][1]).T for part in (linear.kernel, linear.adapter.a, linear.adapter.b))
    # peft.tuners.lora.Linear.forward, without dropout: result + lora_B(lora_A(x)) * scaling, weights [out, in]
    expected = x @ weight.T + (x @ a.T) @ b.T * (16.0 / 3)
    close(layer(jnp.asarray(x, jnp.float32)), expected)


def test_a_is_uniform_as_in_peft_another_in_each_layer_and_map_and_b_is_zero():
    decoder = make(ALL, rank=16)
    assert {name: adapter.a.shape for name, adapter in adapters(decoder).items()} == {
        name: (2, n_in, 16) for name, (n_in, _) in SHAPES.items()
    }
    for name, adapter in adapters(decoder).items():
        bound = SHAPES[name][0] ** -0.5  # kaiming_uniform_ with a = sqrt(5)
        a = np.asarray(adapter.a[...])
        assert 0.95 * bound < np.abs(a).max() <= bound
        assert a.std() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert np.abs(a[0] - a[1]).max() > 0.5 * bound
        np.testing.assert_array_equal(adapter.b[...], np.zeros((2, 16, SHAPES[name][1])))
    assert np.abs(adapters(decoder)["q"].a[...] - adapters(decoder)["k"].a[...]).max() > 0.1
    np.testing.assert_array_equal(adapters(make(ALL, rank=16))["up"].a[...], adapters(decoder)["up"].a[...])
    assert np.abs(adapters(make(ALL, rank=16, seed=2))["up"].a[...] - adapters(decoder)["up"].a[...]).max() > 0.1


def test_a_cache_gives_what_one_pass_gives():
    @nnx.jit
    def in_two(decoder: Decoder) -> jax.Array:
        first, rest = VALID[:, :4], positions_of(VALID)[:, 4:]
        _, cache = decoder(IDS[:, :4], positions=positions_of(first), visible=Causal(first))
        seen = jnp.ones((2, 2, 4), bool)
        hidden, _ = decoder(IDS[:, 4:], positions=rest, visible=Causal(VALID[:, 4:]), past=[(cache, seen)])
        return decoder.logits(hidden)

    decoder = fill(make(ALL))
    close(in_two(decoder), logits_of(decoder)[:, 4:])


# ---------------------------------------------------------------------------------------------------- what is trained
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_adapters_alone_are_trained_in_float32_whatever_the_weights_are(remat):
    decoder = make(ALL, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, remat=remat)
    graph, params, frozen = split_trainable(decoder)
    assert {path[-1] for path, _ in nnx.to_flat_state(params)} == {"a", "b"}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert all(isinstance(variable, Frozen) for _, variable in nnx.to_flat_state(frozen))
    assert {leaf.dtype for leaf in jax.tree.leaves(frozen)} == {jnp.dtype(jnp.bfloat16)}
    gradients = jax.jit(jax.grad(lambda params: jnp.square(forward(nnx.merge(graph, params, frozen))).mean()))(params)
    for path, gradient in nnx.to_flat_state(gradients):
        assert gradient[...].dtype == jnp.float32
        # As long as B is zero, nothing tells A where to go.
        assert (np.abs(gradient[...]).max() > 0) == (path[-1] == "b"), path


@pytest.mark.parametrize("tied", [True, False])
def test_a_grown_vocabulary_is_trained_beside_the_adapters(tied):
    config = dataclasses.replace(CONFIG, tie_embeddings=tied)
    decoder = nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16))()
    grow_vocabulary(decoder, CONFIG.vocab_size + 2, rngs=nnx.Rngs(1))
    embed, new = decoder.embed[...], CONFIG.vocab_size + 1
    add_lora(decoder, LoRA(2, 6.0, "q"), rngs=nnx.Rngs(1), trains_vocabulary=True)
    graph, params, frozen = split_trainable(decoder)
    vocabulary = {("embed",)} if tied else {("embed",), ("head",)}
    found = dict(nnx.to_flat_state(params))
    assert {path for path in found if path[-1] not in ("a", "b")} == vocabulary
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(frozen)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_array_equal(decoder.embed[...], embed.astype(jnp.float32))

    def loss(params):
        decoder = nnx.merge(graph, params, frozen)
        hidden, _ = decoder(IDS.at[0, 0].set(new), positions=positions_of(VALID), visible=Causal(VALID))
        return jax.nn.logsumexp(decoder.logits(hidden), axis=-1).mean()

    for path, gradient in nnx.to_flat_state(jax.jit(jax.grad(loss))(params)):
        if path in vocabulary:
            assert np.abs(gradient[...][new]).max() > 0, path


# ----------------------------------------------------------------------------------------------------------- whole runs
RUN = {"model.lora_rank": 2, "train.num_steps": 2, "train.eval_every_steps": 1, "train.warmup_steps": 0}


def train_here(folder, workdir, changes=None, **args) -> tuple[nnx.Module, nnx.Module]:
    """Two steps; returns the model before them, and that of the best checkpoint."""
    config = tiny_run.tiny_config(folder, RUN | (changes or {}))
    config.method.args = args
    train.train(config, workdir := Workdir(str(workdir)))
    session = set_up(settings_from(config), workdir)
    context = session.context(session.index)
    return session.method.make_model(context), trained_model(session, workdir, context).model


def n_bytes(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_run_trains_and_saves_its_adapters_resumes_and_is_ranked(tiny, trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    models = train_here(tiny, workdir)
    n_adapted = 2 * sum(2 * (n_in + n_out) for n_in, n_out in SHAPES.values())
    n_base = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(make())))
    told = capsys.readouterr().out
    assert (
        f"model: {n_adapted:,} parameters to train beside {shown_bytes(n_base)} of frozen arrays on 1 cpu device"
        in told
    )
    assert n_bytes(workdir / "checkpoints" / "best") < n_base < n_bytes(trained / "checkpoints" / "best")

    before, after = map(split_trainable, models)
    jax.tree.map(np.testing.assert_array_equal, before[2], after[2])
    for (path, old), (_, new) in zip(*map(nnx.to_flat_state, (before[1], after[1])), strict=True):
        assert np.abs(old[...] - new[...]).max() > 0, path

    train_here(tiny, workdir)
    assert "resuming from step 2 of 2" in capsys.readouterr().out
    done = run_here(evaluate, f"--workdir={workdir}")
    assert (done.code, done.err) == (0, ""), done.err
    assert json.loads((workdir / "eval/test/metrics.json").read_text(encoding="utf-8"))["invalid"] == 0


@pytest.mark.slow
def test_other_frozen_weights_than_in_training_are_refused(tiny, tmp_path):
    for name in ("data", "model"):
        shutil.copytree(tiny / name, tmp_path / name)
    train_here(tmp_path, tmp_path / "run")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"] * np.float32(1.01)
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    refused = r"run was trained on top of other frozen weights, item vectors or item features than the files that its "
    with pytest.raises(InputError, match=refused):
        train_here(tmp_path, tmp_path / "run")
    done = run_here(evaluate, f"--workdir={tmp_path / 'run'}")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "restore those files, or train in another --workdir" in done.err


@pytest.mark.slow
def test_a_set_of_tokens_is_trained_beside_the_adapters(tiny, tmp_path):
    changes = {"method.name": "setrec", "model.lora_targets": "q,v,o"}
    before, after = map(split_trainable, train_here(tiny, tmp_path, changes, n_semantic=1))
    jax.tree.map(np.testing.assert_array_equal, before[2], after[2])
    changed = {path for path, leaf in nnx.to_flat_state(after[1])}
    of_backbone = {path for path in changed if path[0] == "backbone"}
    assert {path[-3] for path in of_backbone} == {"q", "v", "o"}
    assert {path[:2] for path in changed - of_backbone} >= {("queries",), ("tokens", "vectors"), ("tokens", "encoder")}
    for (path, old), (_, new) in zip(*map(nnx.to_flat_state, (before[1], after[1])), strict=True):
        assert np.abs(old[...] - new[...]).max() > 0, path
    done = run_here(evaluate, f"--workdir={tmp_path}")
    assert (done.code, done.err) == (0, ""), done.err


def test_a_model_without_a_decoder_cannot_be_adapted(tiny, tmp_path):
    with pytest.raises(InputError, match=r"lora_rank is 2, but the model of sasrec has no decoder "):
        train_here(tiny, tmp_path / "run", {"method.name": "sasrec"})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_fields_of_adapters_are_options_of_the_command_line(tiny, tmp_path):
    done = run_here(
        train, "--config=configs/igd.py", f"--config.data.dir={tiny / 'data'}", f"--workdir={tmp_path / 'run'}",
        f"--config.model.path={tiny / 'model'}", "--config.mesh.data=1", "--config.train.num_steps=1",
        "--config.model.lora_rank=3", "--config.model.lora_alpha=32", "--config.model.lora_targets=q,v",
    )  # fmt: skip
    assert (done.code, done.err) == (0, ""), done.err
    assert f"model: {2 * 3 * (32 + 32 + 32 + 16):,} parameters to train" in done.out
