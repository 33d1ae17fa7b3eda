"""Our T5 against tiny random models of the transformers library, through the folders that it saves."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from igd_jax.core.errors import InputError
from igd_jax.models.t5 import T5, bucket_of, hide, load_t5, save_t5
from igd_jax.models.t5_config import NAMED, T5Config, from_hf, named

SIZES = {
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 0.01,  # large enough to be seen
    "dropout_rate": 0.0,
}
VERSIONS: dict[str, dict[str, Any]] = {
    "1.0, relu, tied": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "1.1, gated, untied": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def save_random(version: str, folder: Path) -> Any:
    """Leave a model with random values in every weight in `folder`; returns it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**SIZES, **VERSIONS[version])).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return model


@nnx.jit
def run(model: T5, ids, valid, written):
    """Hidden states of encoder and decoder as a translation has them: positions in order, a causal decoder."""
    n_rows, n_read = ids.shape
    n_written = written.shape[1]
    encoded = model.encode(
        ids,
        positions=jnp.broadcast_to(jnp.arange(n_read), ids.shape),
        mask=jnp.broadcast_to(valid[:, None], (n_rows, n_read, n_read)),
    )
    causal = jnp.tril(jnp.ones((n_rows, n_written, n_written), bool))
    positions = jnp.broadcast_to(jnp.arange(n_written), written.shape)
    return encoded, model.decode(written, encoded, positions=positions, bias=hide(~causal), encoded_mask=valid)


@pytest.mark.parametrize("version", VERSIONS)
def test_hidden_states_are_those_of_transformers(version, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = save_random(version, tmp_path)
    rng = np.random.default_rng(0)
    ids, written = rng.integers(0, 60, (2, 45)), rng.integers(0, 60, (2, 30))
    valid = np.arange(45) >= np.array([[0], [7]])
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(valid.astype(np.int64)),
            decoder_input_ids=torch.from_numpy(written),
            output_hidden_states=True,
        )
    model = load_t5(tmp_path)
    encoded, decoded = run(model, jnp.asarray(ids, jnp.int32), jnp.asarray(valid), jnp.asarray(written, jnp.int32))
    np.testing.assert_allclose(encoded[valid], expected.encoder_last_hidden_state.numpy()[valid], atol=3e-5)
    np.testing.assert_allclose(decoded, expected.decoder_hidden_states[-1].numpy(), atol=3e-5)


@pytest.mark.parametrize("both_sides", [True, False])
def test_buckets_are_those_of_transformers(both_sides):
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = np.arange(-600, 601)
    for n, far in ((32, 128), (8, 20), (16, 64)):
        config = from_hf({**SIZES, "model_type": "t5", "relative_attention_num_buckets": n,
                          "relative_attention_max_distance": far})  # fmt: skip
        theirs = modeling.T5Attention._relative_position_bucket(
            torch.from_numpy(distance), bidirectional=both_sides, num_buckets=n, max_distance=far
        )
        np.testing.assert_array_equal(bucket_of(jnp.asarray(distance), config, both_sides=both_sides), theirs.numpy())


@pytest.mark.parametrize(("name", "n_weights"), [("t5-small", 60_506_624), ("t5-base", 222_903_552)])
def test_named_sizes_have_their_public_numbers_of_weights(name, n_weights):
    state = nnx.state(nnx.eval_shape(lambda: T5(NAMED[name], rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == n_weights
    config = named(name, vocab_size=300)
    assert T5Config(**{**vars(config), "vocab_size": 32_128}) == NAMED[name]
    assert config.vocab_size == 300


def test_a_size_of_no_name_is_bad_input():
    with pytest.raises(InputError, match=r"called 't5-huge'; expected a folder or one of t5-pico, t5-small, t5-base$"):
        named("t5-huge", vocab_size=300)


@pytest.mark.parametrize("version", VERSIONS)
def test_first_weights_spread_as_those_of_transformers(version, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = SIZES | {"vocab_size": 300, "d_model": 64, "d_ff": 192, "num_heads": 6, "d_kv": 16}
    transformers.T5Model(transformers.T5Config(**sizes, **VERSIONS[version])).save_pretrained(tmp_path)
    theirs = load_t5(tmp_path)
    ours = nnx.jit(lambda: T5(theirs.config, rngs=nnx.Rngs(0)))()
    pairs = zip(nnx.to_flat_state(nnx.state(ours)), nnx.to_flat_state(nnx.state(theirs)), strict=True)
    for (path, mine), (same, other) in pairs:
        assert path == same
        spread, expected = (float(jnp.sqrt(jnp.square(x[...]).mean())) for x in (mine, other))
        assert spread == pytest.approx(expected, rel=5 / mine.size**0.5), path  # five standard errors


@pytest.fixture(scope="module")
def model() -> T5:
    config = T5Config(
        vocab_size=20, hidden_size=16, mlp_size=24, num_layers=2, num_decoder_layers=2, num_heads=2, head_dim=8,
        num_buckets=8, max_distance=20, eps=1e-6, gated=True,
    )  # fmt: skip
    graph, state = nnx.split(nnx.eval_shape(lambda: T5(config, rngs=nnx.Rngs(0))))
    random = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), x.dtype), state))


@pytest.mark.parametrize("gated", [False, True])
def test_a_saved_model_comes_back_and_leaves_the_other_files_of_its_folder(gated, model, tmp_path):
    config = dataclasses.replace(model.config, gated=gated, num_decoder_layers=3, eps=0.01)
    saved = nnx.jit(lambda: T5(config, rngs=nnx.Rngs(1)))()
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    save_t5(model, tmp_path)
    save_t5(saved, tmp_path)
    found = load_t5(tmp_path)
    assert found.config == config
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(found)), nnx.to_pure_dict(nnx.state(saved)))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize("version", VERSIONS)
def test_transformers_finds_every_weight_of_a_saved_model(version, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = save_random(version, tmp_path / "theirs")
    save_t5(load_t5(tmp_path / "theirs"), tmp_path / "ours")
    read, report = transformers.T5Model.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.tensor([[3, 14, 15, 9, 2]])
    with torch.no_grad():
        found = read.eval()(input_ids=ids, decoder_input_ids=ids).last_hidden_state
        expected = theirs(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True).decoder_hidden_states[-1]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


IDS = jnp.asarray([[3, 14, 15, 9, 2]], jnp.int32)


def test_a_token_changes_only_what_may_look_at_it(model):
    mask = jnp.ones((1, 5, 5), bool).at[0, :2, 3].set(False)
    place = jnp.arange(5)[None]
    encode = jax.jit(lambda ids, place: model.encode(ids, positions=place, mask=mask))
    before, after = encode(IDS, place), encode(IDS.at[0, 3].set(7), place)
    # Token 0 and 1 may not look at token 3, but at others that do.
    assert (np.abs(after - before).max(axis=(0, 2)) > 1e-4).all()
    hidden = jnp.ones((1, 5, 5), bool).at[0, :, 3].set(jnp.arange(5) == 3)
    encode = jax.jit(lambda ids, place: model.encode(ids, positions=place, mask=hidden))
    changed = np.abs(encode(IDS.at[0, 3].set(7), place) - encode(IDS, place)).max(axis=(0, 2)) > 1e-4
    assert changed.tolist() == [False, False, False, True, False]


def test_only_differences_of_positions_count_and_shared_ones_make_a_set(model):
    mask = jnp.ones((1, 5, 5), bool)
    encode = jax.jit(lambda ids, place: model.encode(ids, positions=place, mask=mask))
    place = jnp.asarray([[0, 1, 1, 1, 2]])
    order = jnp.asarray([0, 3, 1, 2, 4])
    np.testing.assert_allclose(encode(IDS, place), encode(IDS, place + 40), atol=1e-5)
    np.testing.assert_allclose(encode(IDS, place)[:, order], encode(IDS[:, order], place), atol=1e-4)
    assert np.abs(encode(IDS, place) - encode(IDS, jnp.arange(5)[None])).max() > 1e-2


def test_a_folder_that_is_no_t5_or_lacks_weights_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no config.json; expected the Hugging Face folder of a T5 model"):
        load_t5(tmp_path)
    save_random("1.1, gated, untied", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["decoder.final_layer_norm.weight"]
    tensors["encoder.block.1.layer.1.DenseReluDense.wi_1.weight"] = np.zeros((2, 3), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load_t5(tmp_path)
    assert "\n  - decoder.final_layer_norm.weight\n" in str(caught.value)
    assert "\n  ! encoder.block.1.layer.1.DenseReluDense.wi_1.weight is (2, 3), expected (48, 32)\n" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, "the model is of type 'qwen2'; expected t5"),
        ({"d_kv": None, "num_heads": 0}, "has no positive num_heads, d_kv"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj 'gated-silu'; expected one of relu, gated-gelu"),
    ],
)
def test_a_config_that_is_not_understood_is_bad_input(changes, message):
    config = {**SIZES, "model_type": "t5"} | changes
    with pytest.raises(InputError, match=message):
        from_hf(json.loads(json.dumps(config)))
