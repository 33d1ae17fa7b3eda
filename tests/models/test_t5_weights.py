"""Folders of T5 models: what is written comes back, what transformers writes is read, what does not fit is refused."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from random_t5 import VERSIONS, save_random
from safetensors.numpy import load_file, save_file
from tiny_models import random_model

from igd_jax.core.errors import InputError
from igd_jax.models.hf_save import save_model
from igd_jax.models.t5 import T5
from igd_jax.models.t5_weights import load_t5


@pytest.mark.parametrize("gated", [False, True])
def test_a_saved_model_comes_back_and_leaves_the_other_files_of_its_folder(gated, tmp_path):
    model = random_model("T5 1.0")
    config = dataclasses.replace(
        model.config, gated=gated, num_decoder_layers=3, eps=0.01, start_id=7, tie_embeddings=gated, scale_logits=gated
    )
    saved = nnx.jit(lambda: T5(config, rngs=nnx.Rngs(1)))()
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    save_model(model, tmp_path, eos=1)
    save_model(saved, tmp_path, eos=1)
    found = load_t5(tmp_path)
    assert found.config == config
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(found)), nnx.to_pure_dict(nnx.state(saved)))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize("version", VERSIONS)
def test_transformers_finds_every_weight_of_a_saved_model(version, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = save_random(version, tmp_path / "theirs")
    save_model(load_t5(tmp_path / "theirs"), tmp_path / "ours", eos=1)
    read, report = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.tensor([[3, 14, 15, 9, 2]])
    with torch.no_grad():
        found, expected = (model.eval()(input_ids=ids, labels=ids).logits for model in (read, theirs))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


# ----------------------------------------------------------------------------------------------------- what is refused
def stored(version: str, folder: Path) -> dict[str, np.ndarray]:
    """Tensors of a saved model, to be changed and saved again."""
    save_random(version, folder)
    return load_file(folder / "model.safetensors")


def test_every_misfit_is_named_in_one_message(tmp_path):
    with pytest.raises(InputError, match=r"has no config.json; expected a Hugging Face model folder"):
        load_t5(tmp_path)
    tensors = stored("1.1, gated, untied", tmp_path)
    del tensors["decoder.final_layer_norm.weight"]
    tensors["encoder.block.1.layer.1.DenseReluDense.wi_1.weight"] = np.zeros((2, 3), np.float32)
    tensors["decoder.block.2.layer.1.layer_norm.weight"] = np.zeros(32, np.int8)
    tensors["decoder.block.3.layer.1.layer_norm.weight"] = np.zeros(32, np.float32)
    tensors["encoder.block.0.layer.1.DenseReluDense.wi.weight"] = np.zeros((48, 32), np.float32)
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load_t5(tmp_path)
    assert sorted(line.strip() for line in str(caught.value).splitlines() if line.startswith("  ")) == [
        "! decoder.block.2.layer.1.layer_norm.weight is I8, expected one of BF16, F16, F32",
        "! decoder.embed_tokens.weight is not shared.weight, though config.json ties them",
        "! encoder.block.1.layer.1.DenseReluDense.wi_1.weight is (2, 3), expected (48, 32)",
        "+ decoder.block.3.layer.1.layer_norm.weight",
        "+ encoder.block.0.layer.1.DenseReluDense.wi.weight",
        "- decoder.final_layer_norm.weight",
    ]


def test_names_that_published_folders_have_beside_the_weights_are_known(tmp_path):
    tensors = stored("1.0, relu, tied", tmp_path)
    expected = load_t5(tmp_path)
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors["shared.weight"].copy()
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[unused] = np.ones((8, 4), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    found = load_t5(tmp_path)
    assert found.head is None
    jax.tree.map(np.testing.assert_array_equal, *(nnx.to_pure_dict(nnx.state(model)) for model in (found, expected)))


def test_a_head_of_its_own_is_needed_read_or_refused_as_the_config_says(tmp_path):
    tensors, path = stored("1.1, gated, untied", tmp_path), tmp_path / "config.json"
    by_transformers_5 = json.loads(path.read_text(encoding="utf-8"))
    assert (by_transformers_5["tie_word_embeddings"], by_transformers_5["scale_decoder_outputs"]) == (True, False)
    by_transformers_4 = by_transformers_5 | {"tie_word_embeddings": False, "scale_decoder_outputs": None}
    for config in (by_transformers_5, by_transformers_4):
        path.write_text(json.dumps(config), encoding="utf-8")
        found = load_t5(tmp_path)
        assert (found.config.tie_embeddings, found.config.scale_logits) == (False, False)
        np.testing.assert_array_equal(found.head[...], tensors["lm_head.weight"])
    path.write_text(json.dumps(by_transformers_5 | {"scale_decoder_outputs": True}), encoding="utf-8")
    with pytest.raises(InputError, match=r"! lm_head.weight is not shared.weight, though config.json ties them"):
        load_t5(tmp_path)
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    path.write_text(json.dumps(by_transformers_4), encoding="utf-8")
    with pytest.raises(InputError, match=r"- lm_head.weight"):
        load_t5(tmp_path)


@pytest.mark.parametrize("stored_as", [np.float16, ml_dtypes.bfloat16], ids=lambda dtype: dtype.__name__)
def test_halves_are_read_as_float32(stored_as, tmp_path):
    tensors = {name: x.astype(stored_as) for name, x in stored("1.0, relu, tied", tmp_path).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    model = load_t5(tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(model.embed[...], tensors["shared.weight"].astype(np.float32))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    tensors = stored("1.0, relu, tied", tmp_path)
    tensors["decoder.block.1.layer.2.DenseReluDense.wo.weight"][0, 0] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"decoder.block.1.layer.2.DenseReluDense.wo.weight in .*: 1 of 1,536 numbers"):
        load_t5(tmp_path)
