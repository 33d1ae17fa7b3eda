import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from igd_jax.core.errors import InputError
from igd_jax.models.config import NAMED
from igd_jax.models.decoder import Decoder
from igd_jax.models.decoder_weights import NAMES, load_config, load_decoder
from igd_jax.models.hf_config import from_hf
from igd_jax.models.visibility import Causal, positions_of

CONFIG = {
    "model_type": "qwen2",
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
}
LAYER_SHAPES = {
    "input_layernorm.weight": (8,),
    "post_attention_layernorm.weight": (8,),
    "self_attn.q_proj.weight": (8, 8),
    "self_attn.q_proj.bias": (8,),
    "self_attn.k_proj.weight": (4, 8),
    "self_attn.k_proj.bias": (4,),
    "self_attn.v_proj.weight": (4, 8),
    "self_attn.v_proj.bias": (4,),
    "self_attn.o_proj.weight": (8, 8),
    "mlp.gate_proj.weight": (12, 8),
    "mlp.up_proj.weight": (12, 8),
    "mlp.down_proj.weight": (8, 12),
}
SHAPES = {
    "model.embed_tokens.weight": (20, 8),
    "model.norm.weight": (8,),
    **{f"model.layers.{layer}.{name}": shape for layer in (0, 1) for name, shape in LAYER_SHAPES.items()},
}


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def write(folder: Path, tensors: dict[str, np.ndarray], config: dict = CONFIG) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_shards(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    names = sorted(tensors)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / file)
    weight_map = {name: file for file, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def values(decoder: Decoder) -> dict:
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(decoder)))


def test_tensors_land_stacked_and_transposed(tmp_path: Path, tensors: dict[str, np.ndarray]):
    decoder = load_decoder(write(tmp_path, tensors))
    np.testing.assert_array_equal(decoder.embed[...], tensors["model.embed_tokens.weight"])
    np.testing.assert_array_equal(decoder.norm.scale[...], tensors["model.norm.weight"])
    assert decoder.head is None
    for layer in (0, 1):
        theirs = {name: tensors[f"model.layers.{layer}.{name}"] for name in LAYER_SHAPES}
        attention, mlp = decoder.layers.attention, decoder.layers.mlp
        np.testing.assert_array_equal(decoder.layers.attention_norm.scale[layer], theirs["input_layernorm.weight"])
        np.testing.assert_array_equal(decoder.layers.mlp_norm.scale[layer], theirs["post_attention_layernorm.weight"])
        for name, linear in (("q", attention.q), ("k", attention.k), ("v", attention.v), ("o", attention.o)):
            np.testing.assert_array_equal(linear.kernel[layer], theirs[f"self_attn.{name}_proj.weight"].T)
        for name, linear in (("q", attention.q), ("k", attention.k), ("v", attention.v)):
            np.testing.assert_array_equal(linear.bias[layer], theirs[f"self_attn.{name}_proj.bias"])
        for name, linear in (("gate", mlp.gate), ("up", mlp.up), ("down", mlp.down)):
            np.testing.assert_array_equal(linear.kernel[layer], theirs[f"mlp.{name}_proj.weight"].T)


def test_shards_equal_one_file(tmp_path: Path, tensors: dict[str, np.ndarray]):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = load_decoder(write(tmp_path / "one", tensors)), load_decoder(write_shards(tmp_path / "two", tensors))
    jax.tree.map(np.testing.assert_array_equal, values(one), values(two))


@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16], ids=lambda dtype: dtype.__name__)
def test_every_stored_dtype_is_rounded_to_param_dtype(
    tmp_path: Path, tensors: dict[str, np.ndarray], stored: type, param_dtype
):
    tensors = {name: tensor.astype(stored) for name, tensor in tensors.items()}
    decoder = load_decoder(write(tmp_path, tensors), dtype=jnp.bfloat16, param_dtype=param_dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(decoder))} == {jnp.dtype(param_dtype)}
    assert decoder.dtype == jnp.bfloat16
    expected = tensors["model.layers.1.mlp.up_proj.weight"].T.astype(jnp.dtype(param_dtype))
    np.testing.assert_array_equal(decoder.layers.mlp.up.kernel[1], expected)


def test_options_reach_the_decoder(tmp_path: Path, tensors: dict[str, np.ndarray]):
    folder = write(tmp_path, tensors)
    assert load_decoder(folder, remat="full").remat == "full"
    assert load_decoder(str(folder)).remat == "none"


def test_every_parameter_of_every_named_model_is_in_the_table_once():
    paths = [path for _, path, _ in NAMES]
    assert len(set(paths)) == len(paths)
    used = set()
    for config in NAMED.values():
        state = nnx.state(nnx.eval_shape(lambda config=config: Decoder(config, rngs=nnx.Rngs(0))))
        used |= {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}
    assert used == set(paths)


def test_every_misfit_is_named_in_one_message(tmp_path: Path, tensors: dict[str, np.ndarray]):
    del tensors["model.norm.weight"], tensors["model.layers.1.self_attn.q_proj.bias"]
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"].copy()
    tensors["model.layers.0.self_attn.rotary_emb.cached"] = np.ones(2, np.float32)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)  # is read by nobody
    tensors["model.layers.0.mlp.down_proj.weight"] = np.ones((12, 8), np.float32)
    tensors["model.layers.0.input_layernorm.weight"] = np.ones(8, np.int8)
    with pytest.raises(InputError) as error:
        load_decoder(write(tmp_path, tensors))
    found = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
    assert sorted(found) == [
        "! model.layers.0.input_layernorm.weight is I8, expected one of BF16, F16, F32",
        "! model.layers.0.mlp.down_proj.weight is (12, 8), expected (8, 12)",
        "+ model.layers.0.self_attn.rotary_emb.cached",
        "+ model.layers.2.mlp.up_proj.weight",
        "- model.layers.1.self_attn.q_proj.bias",
        "- model.norm.weight",
    ]


def test_head_equal_to_a_tied_embedding_is_accepted(tmp_path: Path, tensors: dict[str, np.ndarray]):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    assert load_decoder(write(tmp_path, tensors)).head is None


def test_head_unlike_a_tied_embedding_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["lm_head.weight"][3, 4] += 1.0
    with pytest.raises(InputError, match=r"! lm_head\.weight is not model\.embed_tokens\.weight"):
        load_decoder(write(tmp_path, tensors))


def test_a_head_alone_of_a_tied_pair_is_a_missing_embedding(tmp_path: Path, tensors: dict[str, np.ndarray]):
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    with pytest.raises(InputError, match=r"- model\.embed_tokens\.weight") as caught:
        load_decoder(write(tmp_path, tensors))
    assert "ties them" not in str(caught.value)


def test_equal_numbers_of_a_tied_pair_may_have_two_dtypes(tmp_path: Path, tensors: dict[str, np.ndarray]):
    embedding = tensors["model.embed_tokens.weight"].astype(np.float16)
    tensors |= {"lm_head.weight": embedding, "model.embed_tokens.weight": embedding.astype(np.float32)}
    assert load_decoder(write(tmp_path, tensors)).head is None


def test_untied_head_is_loaded_and_required(tmp_path: Path, tensors: dict[str, np.ndarray]):
    untied = CONFIG | {"tie_word_embeddings": False}
    with pytest.raises(InputError, match=r"- lm_head\.weight"):
        load_decoder(write(tmp_path, tensors, untied))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    np.testing.assert_array_equal(load_decoder(write(tmp_path, tensors, untied)).head[...], tensors["lm_head.weight"])


def test_generation_config_is_never_read(tmp_path: Path, tensors: dict[str, np.ndarray]):
    (tmp_path / "generation_config.json").write_text("not json")
    load_decoder(write(tmp_path, tensors))


def test_folder_must_exist_and_hold_a_config(tmp_path: Path):
    with pytest.raises(InputError, match="is not a folder"):
        load_config(tmp_path / "absent")
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="holds a list"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert load_config(str(tmp_path)) == from_hf(CONFIG)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_pickled_weights_are_never_opened(tmp_path: Path, name: str):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / name).write_bytes(b"not even a pickle")
    with pytest.raises(InputError, match=f"only as pickles .*{name}"):
        load_decoder(tmp_path)


def test_folder_without_weights_says_what_is_missing(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(InputError, match=r"has no weights; expected model\.safetensors"):
        load_decoder(tmp_path)


def test_absent_shard_is_named(tmp_path: Path, tensors: dict[str, np.ndarray]):
    (write_shards(tmp_path, tensors) / "model-2-of-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks model-2-of-2\.safetensors"):
        load_decoder(tmp_path)


def test_tensor_in_two_shards_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]):
    write_shards(tmp_path, tensors)
    save_file(tensors, tmp_path / "model-2-of-2.safetensors")
    with pytest.raises(InputError, match=r"model\.embed_tokens\.weight.* in two files"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": {}}, {"weight_map": {"a": "../model-1-of-2.safetensors"}}])
def test_unusable_index_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray], index):
    write_shards(tmp_path, tensors)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="lists no files of its folder"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray], name, number, dtype):
    stored = {each: tensor.astype(dtype) for each, tensor in tensors.items()}
    stored[name][2, 3] = number
    with pytest.raises(InputError) as error:
        load_decoder(write(tmp_path, stored))
    file = tmp_path / "model.safetensors"
    assert str(error.value).startswith(f"{name} in {file}: 1 of {tensors[name].size} numbers are nan or infinite; down")


@pytest.mark.parametrize("keep", [0, 100, -40])
def test_cut_file_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray], keep: int):
    path = write(tmp_path, tensors) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_decoder(tmp_path)


def test_published_logits_of_the_books_model(shared: Path):
    golden = np.load(shared / "golden/igd_amazon_books/logits.npz", allow_pickle=False)
    decoder = load_decoder(shared / "models/tiny-qwen2-books")
    ids = jnp.asarray(golden["input_ids"], jnp.int32)
    valid = jnp.ones(ids.shape, bool)

    @jax.jit
    def forward(ids):
        hidden, _ = decoder(ids, positions=positions_of(valid), visible=Causal(valid))
        return hidden[0], decoder.logits(hidden)[0]

    hidden, logits = forward(ids)
    np.testing.assert_allclose(hidden, golden["last_hidden"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-4)
