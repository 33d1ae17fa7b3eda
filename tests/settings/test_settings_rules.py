"""Settings that follow from others or contradict them, shipped configs, and paths."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from configs_by_hand import changed, defaults, fields_of, make_folder, refusal
from ml_collections import ConfigDict
from test_configs import CASES, get_case

from igd_jax.core.errors import InputError
from igd_jax.methods import sasrec
from igd_jax.models import t5_config
from igd_jax.session.backbone import check_attention
from igd_jax.settings.config_flags import config_json
from igd_jax.settings.settings import TO_DECODE, TO_TRAIN, settings_from

FILLED_IN = ("decode.top_k", "decode.candidates", "eval.ks", "tokenizer.path", "train.packing")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, Any]:
    return defaults(tmp_path_factory.mktemp("settings"))


# ----------------------------------------------------------------------------------------------- shipped configs, rules
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_shipped_config_passes_and_comes_back_from_json(plain, name, arguments):
    config = get_case(name, arguments)
    config.data.dir = plain["data"]["dir"]
    settings = settings_from(config)
    assert settings == settings_from(ConfigDict(config_json(config)))
    raw = fields_of(config)
    for section, fields in dataclasses.asdict(settings).items():
        for field, value in fields.items():
            if (name := f"{section}.{field}") not in FILLED_IN:
                assert value == raw[name], name


def test_what_follows_from_otherfields_of(plain, tmp_path):
    def decode(**changes: Any):
        return settings_from(changed(plain, {name.replace("__", "."): value for name, value in changes.items()}))

    assert decode(decode__num_beams=12).decode.top_k == 12
    assert decode(decode__num_beams=12, decode__top_k=11).decode.top_k == 11
    assert decode(decode__search="exact", decode__top_k=50).decode.top_k == 50
    assert decode(data__candidates="warm").decode.candidates == "warm"
    assert decode(data__candidates="warm", decode__candidates="cold").decode.candidates == "cold"
    assert decode(eval__ks=[5, 1, 5]).eval.ks == (1, 5)
    assert decode().tokenizer.path == ""
    model = _model(tmp_path / "model")
    assert decode(model__path=model).tokenizer.path == model
    other = make_folder(tmp_path / "other", "tokenizer.json")
    assert decode(model__path=model, tokenizer__path=other).tokenizer.path == other


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, "auto", id="a decoder, by its rows"),
        pytest.param({"train.packing": "none"}, "none", id="as given"),
        pytest.param({"train.packing": "trees"}, "trees", id="trees as given"),
        pytest.param({"loss.normalizer": "micro_batch"}, "none", id="a loss per micro-batch"),
        pytest.param({"model.config": "t5-small"}, "none", id="a T5"),
        pytest.param({"method.name": "sasrec"}, "none", id="items"),
    ],
)
def test_rows_stand_in_packs_where_they_can(plain, changes, expected):
    assert settings_from(changed(plain, changes)).train.packing == expected


def test_a_whole_number_is_a_number(plain):
    found = settings_from(changed(plain, {"decode.alpha": 1, "decode.length_penalty": 0})).decode
    assert (type(found.alpha), found.alpha, type(found.length_penalty)) == (float, 1.0, float)
    beta = settings_from(changed(plain, {"method.args.beta": 1})).method.args["beta"]
    assert (type(beta), beta) == (float, 1.0)


# -------------------------------------------------------------------------------------------------------- combinations
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.micro_batch_size": 24}, "config.train.global_batch_size is 128, no multiple of micro_batch_size 24"),
        ({"train.num_epochs": 0}, "config.train asks for 0 steps; raise num_epochs or num_steps"),
        ({"mesh.data": 8, "train.micro_batch_size": 4}, "config.train.micro_batch_size is 4, which 8 devices do not "),
        ({"mesh.data": 8, "decode.batch_size": 12}, "config.decode.batch_size is 12, which 8 devices do not divide; "),
        ({"train.packing": "rows", "model.config": "t5-small"}, "'rows', but the model of igd does not read "),
        ({"train.packing": "trees", "method.name": "sasrec"}, "'trees', but the model of sasrec does not read rows "),
        ({"train.packing": "rows", "loss.normalizer": "micro_batch"}, "config.loss.normalizer is 'micro_batch', "),
        ({"eval.ks": (1, 20)}, "config.eval.ks is (1, 20), but lists have a length of 10; raise config.decode.num_b"),
        ({"decode.top_k": 4}, "config.eval.ks is (1, 3, 5, 10), but lists have a length of 4"),
        ({"method.name": "sasrec", "decode.search": "exact"}, "config.decode.search is 'exact', but sasrec does not "),
        ({"method.name": "bigrec", "decode.normalize": "children"}, "config.decode.normalize is 'children', but "),
        ({"decode.top_k": 20}, "config.decode.top_k is 20, but 10 beams give lists of that length; raise "),
        ({"model.config": "t5-small", "model.lora_rank": 8}, "model.lora_rank is 8, but the model of igd has no "),
        ({"model.config": "t5-pico", "model.dtype": "bfloat16"}, "model.dtype is 'bfloat16', but the model of "),
        ({"model.quantize": "nf4"}, "config.model.quantize is 'nf4', but config.model.lora_rank is 0, and quantised "),
        ({"train.bfloat16": "pure"}, "config.train.bfloat16 is 'pure', but config.model.param_dtype is 'float32', so "),
        ({"model.dropout": 0.1}, "config.model.dropout is 0.1, but the model of igd is no T5, the only "),
        ({"method.args.beta": 2.0}, "config.method.args.beta is 2.0; expected a weight from 0 to 1"),
    ],
)  # fmt: skip
def test_values_that_contradict_each_other(plain, changes, message):
    assert message in refusal(plain, changes)


def test_no_epochs_where_the_number_of_steps_is_given(plain):
    assert settings_from(changed(plain, {"train.num_epochs": 0, "train.num_steps": 5})).train.num_steps == 5


def test_a_method_that_searches_nothing_has_lists_of_any_length(plain, monkeypatch):
    changes = {"method.name": "sasrec", "decode.top_k": 50}
    monkeypatch.setattr(sasrec.METHOD, "searches", False, raising=False)
    assert settings_from(changed(plain, changes)).decode.top_k == 50


def test_a_model_of_its_own_takes_no_fields_of_a_decoder(plain, monkeypatch):
    monkeypatch.setattr(sasrec.METHOD, "model_kind", "sasrec", raising=False)
    line = refusal(plain, {"method.name": "sasrec", "model.remat": "full"})
    assert "config.model.remat is 'full', but the model of sasrec has no decoder" in line


@pytest.mark.parametrize(("dtype", "platform"), [("bfloat16", "cpu"), ("float32", "gpu"), ("bfloat16", "tpu")])
def test_a_kernel_of_attention_needs_its_device_and_dtype(plain, dtype, platform):
    given = settings_from(changed(plain, {"model.attention": "cudnn", "model.dtype": dtype})).model
    with pytest.raises(InputError, match=f"needs an NVIDIA GPU .* here are a {platform} and {dtype}; set 'xla'"):
        check_attention(given, platform)
    check_attention(dataclasses.replace(given, attention="xla"), platform)
    check_attention(dataclasses.replace(given, dtype="bfloat16"), "gpu")


# ---------------------------------------------------------------------------------------------------------------- paths
def _model(path: Path, hf: dict[str, Any] | None = None, *, tokenizer: bool = True) -> str:
    folder = make_folder(path, "model.safetensors", *(["tokenizer.json"] if tokenizer else []))
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
    qwen2 = {"model_type": "qwen2", **sizes, **heads, "rms_norm_eps": 1e-6, "rope_theta": 1e4}
    (path / "config.json").write_text(json.dumps(qwen2 if hf is None else hf), encoding="utf-8")
    return folder


T5_HF = t5_config.to_hf(t5_config.NAMED["t5-pico"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.dir", "nowhere", "which is not a folder; expected a folder that igd_jax.prepare has written"),
        ("data.dir", "empty", "which holds no meta.json"),
        ("data.dir", "x" * 300, "; expected a folder that igd_jax.prepare has written"),
        ("data.dir", "a\0b", "; expected a folder that igd_jax.prepare has written"),
        ("tokenizer.path", "empty", "which holds no tokenizer.json; expected a Hugging Face folder"),
        ("model.path", "nowhere", "which is not a folder; expected a Hugging Face model folder"),
        ("model.path", "empty", "which holds no config.json"),
        ("data.candidates", "nowhere.txt", "expected catalogue, train, warm, cold, or a file with one item id "),
        ("decode.candidates", "trian", "'trian', which is not a file that can be read; expected catalogue, train, "),
        ("decode.candidates", "empty", "which is not a file that can be read"),
        ("decode.allowed", "nowhere", "which is not a file that can be read; expected a file with a JSON list "),
        ("decode.collaborative", "popular", "which is not a folder; expected popularity, or the folder of a finished "),
        ("decode.collaborative", "empty", "which holds no collaborative.safetensors"),
    ],
)  # fmt: skip
def test_a_path_that_is_not_there(plain, tmp_path, monkeypatch, field, value, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    line = refusal(plain, {field: value})
    assert line.startswith(f"config.{field} is '")
    assert message in line
    settings_from(changed(plain, {field: value}), needs=TO_DECODE - {field})


def test_the_weights_of_a_model_folder_are_needed_until_a_run_has_others(plain, tmp_path):
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text(json.dumps(T5_HF), encoding="utf-8")
    given, of_a_run = {"model.path": str(folder), "model.lora_rank": 0}, TO_DECODE - {"tokenizer.path"}
    assert "which holds no *.safetensors; expected a Hugging Face model folder" in refusal(plain, given)
    settings_from(changed(plain, given), needs=of_a_run)
    with pytest.raises(InputError, match=r"which holds no \*\.safetensors"):
        settings_from(changed(plain, given | {"model.lora_rank": 2}), needs=of_a_run)


def test_a_relative_path_that_is_not_there_is_told_with_the_folder_and_what_says_where_it_is(
    plain, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    place = "--config.data.dir=PATH, or load(RUN, {'data.dir': PATH}), says where it is"
    line = refusal(plain, {"data.dir": "data"})
    assert line.endswith(f"; looked for in {tmp_path}, the current folder: {place}")
    assert refusal(plain, {"data.dir": str(tmp_path / "data")}).endswith("; prepare one and pass it")


def test_paths_that_are_there(plain, tmp_path):
    items = tmp_path / "items.txt"
    items.touch()
    paths = {
        "tokenizer.path": make_folder(tmp_path / "tokenizer", "tokenizer.json"),
        "model.path": _model(tmp_path / "model", tokenizer=False),
        "data.candidates": str(items),
        "decode.candidates": str(items),
        "decode.collaborative": make_folder(tmp_path / "sasrec", "collaborative.safetensors"),
    }
    found = dataclasses.asdict(settings_from(changed(plain, paths)))
    assert {name: found[name.split(".")[0]][name.split(".")[1]] for name in paths} == paths


def test_a_recipe_for_a_t5_does_not_train_a_decoder(plain, tmp_path):
    decoder, t5 = _model(tmp_path / "decoder"), _model(tmp_path / "t5", T5_HF)
    line = refusal(plain, {"model.path": decoder, "model.config": "t5-small"})
    assert line.startswith("config.model.config is 't5-small', as in a recipe for a T5, but the model in config.m")
    for path, config in ((decoder, "pico"), (t5, "t5-small"), (t5, "pico"), ("", "t5-small")):
        settings_from(changed(plain, {"model.path": path, "model.config": config}))
    sasrec = {"method.name": "sasrec", "model.path": decoder, "model.config": "t5-small"}
    settings_from(changed(plain, sasrec))


def test_training_needs_no_scores_of_another_run(plain):
    source = {"decode.collaborative": "not/yet/there"}
    settings_from(changed(plain, source), needs=TO_TRAIN)
    assert "config.decode.collaborative is 'not/yet/there'" in refusal(plain, source)


def test_a_folder_must_hold_the_tokenizer_too_unless_there_is_another(plain, tmp_path):
    model = _model(tmp_path / "model", tokenizer=False)
    line = refusal(plain, {"model.path": model})
    assert line.startswith("config.model.path is ")
    assert "which holds no tokenizer.json; expected a Hugging Face folder; give one to config.tokenizer.path" in line
    settings_from(changed(plain, {"model.path": model}), needs=TO_DECODE - {"tokenizer.path"})


@pytest.mark.parametrize(
    ("hf", "message"),
    [
        ({"model_type": "mamba"}, "of type 'mamba'; expected one of qwen2, "),
        ([], "config.json holds a list; expected an object"),
        (T5_HF | {"d_ff": 0}, "the t5 config cannot be used: d_ff is 0, expected a positive int"),
    ],
)
def test_a_folder_whose_model_is_not_understood(plain, tmp_path, hf, message):
    line = refusal(plain, {"model.path": _model(tmp_path / "model", hf)})
    assert line.startswith(f"config.model.path is '{tmp_path / 'model'}': ")
    assert message in line


def test_the_folder_of_a_t5_is_known_by_its_config(plain, tmp_path):
    changes = {"model.path": _model(tmp_path / "t5", T5_HF)}
    assert settings_from(changed(plain, changes)).model.path == changes["model.path"]
    line = refusal(plain, changes | {"model.lora_rank": 8})
    assert "config.model.lora_rank is 8, but the model of igd has no decoder" in line
