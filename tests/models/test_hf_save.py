"""Saved models: transformers and PEFT compute what the model did, and what is saved comes back."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from test_lora import IDS, fill, logits_of, make
from test_parity import CASES, save_random

from igd_jax.core.errors import InputError
from igd_jax.models.config import NAMED
from igd_jax.models.decoder_weights import NAMES, load_decoder
from igd_jax.models.hf_config import from_hf, to_hf
from igd_jax.models.hf_save import save_adapter, save_model, save_tensors, tensors_of
from igd_jax.models.lora import LoRA, add_lora
from igd_jax.models.quantized import KINDS, quantize_layers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@torch.no_grad()
def their_logits(model, ids) -> np.ndarray:
    return model.eval()(torch.tensor(np.asarray(ids), dtype=torch.long)).logits.float().numpy()


def opened(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("name", NAMED)
def test_a_config_comes_back(name):
    assert from_hf(json.loads(json.dumps(to_hf(NAMED[name])))) == NAMED[name]


def test_switches_of_no_family_are_refused():
    with pytest.raises(InputError, match=r"no family of models has {'qkv_bias': True, 'qk_norm': True}; expected one"):
        to_hf(dataclasses.replace(NAMED["pico"], qk_norm=True))


@pytest.mark.parametrize("case", CASES)
def test_transformers_computes_the_same_from_what_it_saved_and_from_what_we_save_of_it(case, tmp_path):
    save_random(case, tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    save_model(load_decoder(tmp_path / "theirs"), tmp_path / "ours", eos=3, bos=1)
    ids, model = np.arange(48).reshape(2, 24), opened(tmp_path / "ours")
    np.testing.assert_array_equal(their_logits(model, ids), their_logits(opened(tmp_path / "theirs"), ids))
    config = model.generation_config
    assert (config.eos_token_id, config.pad_token_id, config.bos_token_id) == (3, 3, 1)


def test_many_tensors_are_several_files_and_bfloat16_is_half_of_them(tmp_path):
    model = make()
    tensors = dict(tensors_of(model, NAMES, jnp.bfloat16))
    assert {array.dtype for array in tensors.values()} == {jnp.dtype(jnp.bfloat16)}
    save_model(model, tmp_path, eos=0, dtype=jnp.bfloat16)
    assert opened(tmp_path).dtype == torch.bfloat16
    (tmp_path / "model.safetensors").unlink()
    save_tensors(tensors.items(), tmp_path, shard_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert len(files) > 2
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors.values())
    assert opened(tmp_path).state_dict().keys() >= tensors.keys()
    for name, array in tensors_of(load_decoder(tmp_path), NAMES, jnp.bfloat16):
        np.testing.assert_array_equal(array, tensors[name])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT
def test_adapters_are_merged_or_added_by_peft(tmp_path):
    peft = pytest.importorskip("peft")
    lora = LoRA(2, 6.0, "q,v,o,gate,down")
    base, decoder = make(), fill(make(lora.targets))
    ours = np.asarray(logits_of(decoder))
    for name in ("base", "merged", "adapter"):
        (tmp_path / name).mkdir()
    save_model(base, tmp_path / "base", eos=0)
    save_model(decoder, tmp_path / "merged", eos=0)
    save_adapter(decoder, lora, tmp_path / "adapter", base=str(tmp_path / "base"))
    assert np.abs(ours - their_logits(opened(tmp_path / "base"), IDS)).max() > 1e-3
    np.testing.assert_allclose(their_logits(opened(tmp_path / "merged"), IDS), ours, atol=1e-5)
    adapted = peft.PeftModel.from_pretrained(opened(tmp_path / "base"), str(tmp_path / "adapter"))
    np.testing.assert_allclose(their_logits(adapted, IDS), ours, atol=1e-5)
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()
    assert names == peft.get_peft_model_state_dict(adapted).keys() | {name for name in names if "lora" not in name}
    assert len(names) == 2 * 2 * 5


def test_merging_changes_the_adapted_maps_alone():
    plain, merged = (dict(tensors_of(decoder, NAMES, jnp.float32)) for decoder in (make(), fill(make("q"))))
    differ = {name for name in plain if not np.array_equal(plain[name], merged[name])}
    assert differ == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_few_bits_are_written_as_what_they_stood_for(kind, tmp_path):
    pytest.importorskip("qwix")
    model = make()
    quantize_layers(model, kind)
    add_lora(model, LoRA(2, 6.0, "q"), rngs=nnx.Rngs(1))
    save_model(fill(model), tmp_path, eos=0)
    np.testing.assert_allclose(their_logits(opened(tmp_path), IDS), logits_of(model), atol=1e-5)
