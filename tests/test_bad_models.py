"""What is wrong with a model folder: exit code 2, one line that says what, no traceback, nothing written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from igd_jax import evaluate, train


@pytest.fixture
def folder(tiny, tmp_path) -> Path:
    """A model folder that a test may spoil."""
    return shutil.copytree(tiny / "model", tmp_path / "model")


def _change_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def _change_json(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize("module", [train, evaluate])
def test_a_model_folder_without_weights(ask, folder, module):
    (folder / "model.safetensors").unlink()
    assert (
        f"config.model.path is '{folder}', which holds no *.safetensors; expected a Hugging Face model folder with"
        in ask(module, model=folder)
    )


def test_missing_and_surplus_tensors_are_listed_together(ask, folder):
    def change(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.0.adapter.weight"] = np.zeros((2, 2), np.float32)

    _change_tensors(folder, change)
    line = ask(train, model=folder)
    assert "- model.layers.1.mlp.up_proj.weight + model.layers.0.adapter.weight" in line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, "is of type 'mamba'; expected one of qwen2, qwen3, llama, t5"),
        ({"new_switch": True}, "new_switch is not understood"),
        ({"vocab_size": 2**31}, "vocab_size is 2147483648, expected a positive int of at most 16,777,216"),
        ({"hidden_size": 2**63}, "hidden_size is 9223372036854775808, expected a positive int of at most 16,777,216"),
        ({"model_type": ["qwen2"]}, "is of type ['qwen2']; expected one of qwen2, qwen3, llama, t5"),
        ({"vocab_size": 299}, "model.embed_tokens.weight is (304, 32), expected (299, 32)"),
    ],
)
def test_a_model_that_is_not_understood(ask, folder, values, message):
    _change_json(folder / "config.json", **values)
    assert message in ask(train, model=folder)


def test_weights_that_are_not_finite(ask, folder):
    name = "model.layers.1.mlp.up_proj.weight"
    _change_tensors(folder, lambda tensors: tensors[name].__setitem__((0, 0), np.nan))
    line = ask(train, model=folder)
    assert f"{name} in {folder / 'model.safetensors'}: 1 of 2,048 numbers are nan or infinite; download" in line


def test_a_text_model_whose_weights_are_not_finite(ask, folder):
    _change_tensors(folder, lambda tensors: tensors["model.norm.weight"].fill(np.inf))
    line = ask(train, f"--config.method.args.text_model={folder}", config="setrec.py")
    assert f"model.norm.weight in {folder / 'model.safetensors'}: 32 of 32 numbers are nan or infinite" in line


def test_a_tokenizer_without_an_end(ask, folder):
    _change_json(folder / "tokenizer_config.json", eos_token="</s>")
    assert f"the tokenizer in {folder} has no end-of-text token (eos_token: '</s>')" in ask(train, model=folder)


def test_a_tokenizer_with_more_ids_than_the_model(ask, folder):
    _change_json(folder / "config.json", vocab_size=290)
    _change_tensors(folder, lambda tensors: tensors.update({"model.embed_tokens.weight": np.zeros((290, 32), "f4")}))
    assert "the tokenizer has 300 ids but the model in" in ask(train, model=folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("cft.py", "max_length is 512; expected at most 16, the positions that "),
        ("setrec.py", "of the model's 16 positions, and items have 7 tokens each; lower config."),
    ],
)
def test_a_model_with_too_few_positions(ask, folder, config, message):
    _change_json(folder / "config.json", max_position_embeddings=16)
    assert message in ask(train, model=folder, config=config)
