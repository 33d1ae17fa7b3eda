"""Every field of a config, with every kind of value that cannot be meant: one clear line, or a reason to take it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from ml_collections import ConfigDict
from test_configs import CASES, get_case

from configs import common
from igd_jax.core.errors import InputError
from igd_jax.methods import sasrec
from igd_jax.models import t5_config
from igd_jax.session.checks import shown
from igd_jax.session.config_flags import config_json
from igd_jax.session.settings import TO_DECODE, TO_TRAIN, Settings, settings_from

PROBES: dict[type, dict[str, Any]] = {
    int: {
        "none": None, "text": "7", "true": True, "fraction": 1.5, "nan": math.nan,
        "negative": -1, "zero": 0, "2**31": 2**31, "2**63": 2**63, "10**5000": 10**5000,
    },
    float: {
        "none": None, "text": "x", "true": True, "nan": math.nan, "infinite": math.inf,
        "negative": -1.0, "zero": 0.0, "tiny": 1e-320, "1e308": 1e308, "10**5000": 10**5000,
    },
    bool: {"none": None, "text": "yes", "one": 1, "nan": math.nan, "zero": 0, "2**31": 2**31},
    str: {
        "none": None, "number": 3, "nan": math.nan, "false": False, "empty": "", "two lines": "a\nb",
        "long": "x" * 9999,
    },
    tuple: {
        "none": None, "number": 3, "text": "1,5", "empty": (), "of text": ("1",), "of truths": (True,),
        "of nan": (math.nan,), "of negatives": (5, -1), "of zero": (0, 5), "of 2**31": (5, 2**31),
        "of 10**5000": (10**5000,),
    },
    dict: {"none": None, "number": 3, "nan": math.nan, "text": "beta=1"},
}  # fmt: skip
"""Values of the wrong type, not finite, negative, zero and huge."""

MEANT: dict[str, dict[str, str]] = {
    "data.dir": {},
    "data.prompt": {},
    "data.category": {},
    "data.max_length": {},
    "data.candidates": {},
    "data.max_examples": {"zero": "all rows"},
    "tokenizer.path": {"empty": "that of the model, or one is trained"},
    "tokenizer.vocab_size": {},
    "identifiers.name": {},
    "model.path": {"empty": "random weights"},
    "model.config": {},
    "model.dtype": {},
    "model.param_dtype": {},
    "model.lora_rank": {"zero": "all weights are tuned"},
    "model.lora_alpha": {},
    "model.lora_targets": {},
    "model.remat": {},
    "method.name": {},
    "method.args": {},
    "loss.normalizer": {},
    "train.global_batch_size": {},
    "train.micro_batch_size": {},
    "train.learning_rate": {"zero": "nothing is changed, as a control"},
    "train.num_epochs": {},
    "train.num_steps": {"zero": "by num_epochs"},
    "train.warmup_steps": {"zero": "no warm-up"},
    "train.schedule": {},
    "train.clip_norm": {},
    "train.weight_decay": {"zero": "no decay", "tiny": "no decay, as float32 has it"},
    "train.seed": {"zero": "a seed", "2**31": "a seed"},
    "train.patience": {"zero": "never stops early"},
    "train.eval_every_steps": {"zero": "once per epoch"},
    "train.eval_examples": {"zero": "all rows"},
    "train.checkpoint_every_steps": {},
    "train.log_every_steps": {},
    "decode.alpha": {"zero": "plain beam search", "tiny": "plain beam search, as float32 has it"},
    "decode.length_penalty": {"zero": "sums", "tiny": "sums, as float32 has it", "negative": "longer titles lose"},
    "decode.temperature": {},
    "decode.num_beams": {},
    "decode.top_k": {"zero": "num_beams"},
    "decode.max_new_tokens": {"zero": "the longest candidate"},
    "decode.candidates": {"empty": "those of data.candidates"},
    "decode.collaborative": {"empty": "no source"},
    "decode.batch_size": {},
    "eval.split": {},
    "eval.protocol": {},
    "eval.max_examples": {"zero": "all rows"},
    "eval.ks": {},
    "mesh.data": {"negative": "-1 is all devices"},
}
"""For each field, the probes that are not refused, and what they mean."""

TEXT_OF_A_PATH = {"empty": "none"}
SHARE = {"zero": "none"}
MEANT_BY_METHODS: dict[str, dict[str, dict[str, str]]] = {
    "bigrec": {
        "beams": {},
        "embed_by": {},
        "grounding": {},
        "statistic": TEXT_OF_A_PATH,
        "gamma": SHARE,
        "embeddings": TEXT_OF_A_PATH,
    },
    "cft": {"alpha": SHARE, "beta": SHARE, "gain_beta": SHARE, "stop_gradient": {}},
    "d3": {"lam": SHARE},
    "igd": {"beta": SHARE},
    "msl": {"tau": {}, "adaptive": {}, "denominator": {}},
    "sasrec": {
        **{name: {} for name in ("loss", "max_history", "width", "num_blocks", "num_heads")},
        "dropout": {"zero": "no dropout"},
    },
    "setrec": {
        "n_semantic": {},
        "alpha": SHARE,
        "beta": SHARE,
        "collaborative": TEXT_OF_A_PATH,
        "features": TEXT_OF_A_PATH,
        "text_model": TEXT_OF_A_PATH,
        "missing": TEXT_OF_A_PATH,
        "pooling": {},
        "sampled_items": {"zero": "all items"},
        "positions": {},
        "published": {},
    },
    "sft": {},
}
"""The same for the arguments of each method, with the others as its config has them."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, Any]:
    """Defaults that name folders which hold what they should."""
    root = tmp_path_factory.mktemp("settings")
    config = common.get_config().to_dict()
    config["data"]["dir"] = _folder(root / "data", "meta.json")
    return config


def _folder(path: Path, *files: str) -> str:
    path.mkdir(parents=True, exist_ok=True)
    for file in files:
        (path / file).touch()
    return str(path)


def _changed(plain: dict[str, Any], changes: dict[str, Any]) -> ConfigDict:
    """The config with fields set by their full names, whatever their types."""
    changed = {section: dict(fields) for section, fields in plain.items()}
    for name, value in changes.items():
        section, field = name.split(".", 1)
        if field.startswith("args."):
            changed["method"]["args"] = changed["method"]["args"] | {field.removeprefix("args."): value}
        else:
            changed[section][field] = value
    return ConfigDict(changed)


def _refusal(plain: dict[str, Any], changes: dict[str, Any], **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        settings_from(_changed(plain, changes), **how)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


# ---------------------------------------------------------------------------------------------------------- every field
def _fields(config: ConfigDict) -> dict[str, Any]:
    return {
        f"{section}.{field}": value for section, fields in config.to_dict().items() for field, value in fields.items()
    }


DEFAULTS = _fields(common.get_config())
FIELD_PROBES = [(field, probe) for field, value in DEFAULTS.items() for probe in PROBES[type(value)]]
METHOD_CONFIGS = {config.method.name: config for config in (get_case(*case) for case in CASES)}
ARGUMENT_PROBES = [
    (method, name, probe)
    for method, config in METHOD_CONFIGS.items()
    for name, value in config.method.args.to_dict().items()
    for probe in PROBES[type(value)]
]


def test_the_table_names_every_field_and_only_probes_there_are():
    assert MEANT.keys() == DEFAULTS.keys()
    assert {method: set(args) for method, args in MEANT_BY_METHODS.items()} == {
        method: set(config.method.args) for method, config in METHOD_CONFIGS.items()
    }
    for field, meant in MEANT.items():
        assert meant.keys() <= PROBES[type(DEFAULTS[field])].keys()
    for method, arguments in MEANT_BY_METHODS.items():
        for name, meant in arguments.items():
            assert meant.keys() <= PROBES[type(METHOD_CONFIGS[method].method.args[name])].keys()


def test_settings_have_the_fields_of_the_config_and_no_others():
    found = {
        f"{section}.{field.name}"
        for section, kind in get_type_hints(Settings).items()
        for field in dataclasses.fields(kind)
    }
    assert found == DEFAULTS.keys()


@pytest.mark.parametrize(("field", "probe"), FIELD_PROBES)
def test_a_field_with_a_value_that_cannot_be_meant(plain, field, probe):
    changes = {field: PROBES[type(DEFAULTS[field])][probe]}
    if probe in MEANT[field]:
        settings_from(_changed(plain, changes))
    else:
        assert f"config.{field}" in _refusal(plain, changes)


@pytest.mark.parametrize(("method", "name", "probe"), ARGUMENT_PROBES)
def test_an_argument_with_a_value_that_cannot_be_meant(plain, method, name, probe):
    config = METHOD_CONFIGS[method].to_dict()
    config["data"]["dir"] = plain["data"]["dir"]
    changes = {f"method.args.{name}": PROBES[type(config["method"]["args"][name])][probe]}
    if probe in MEANT_BY_METHODS[method][name]:
        settings_from(_changed(config, changes))
    else:
        assert "config.method.args." in (line := _refusal(config, changes))
        assert name in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decode.temperature": 1e-320}, "is 1e-320; expected a divisor of log-probabilities from 0.001 to 1,000"),
        ({"decode.length_penalty": -1000.0}, "from -10 to 10"),
        ({"decode.max_new_tokens": -1}, "expected a number of tokens from 1 to 65,536, or 0 for the longest candidate"),
        ({"decode.num_beams": 100_000}, "num_beams is 100000; expected a number of beams from 1 to 1,024"),
        ({"decode.alpha": 1.5}, "config.decode.alpha is 1.5; expected a discount from 0 to 1"),
        ({"train.clip_norm": math.inf}, "config.train.clip_norm is inf; expected a gradient norm"),
        ({"train.patience": -1}, "config.train.patience is -1; expected a number of evaluations"),
        ({"train.learning_rate": "fast"}, "config.train.learning_rate is 'fast'; expected a number"),
        ({"train.schedule": "exponential"}, "'exponential'; expected one of linear, cosine, constant"),
        ({"model.config": "huge"}, "config.model.config is 'huge'; expected one of pico, "),
        ({"model.lora_targets": "q,q"}, "expected some of q,k,v,o,gate,up,down, each once, separated by commas"),
        ({"method.name": "idg"}, "config.method.name is 'idg'; known methods are bigrec, "),
        ({"method.name": "msl", "method.args.tau": 1e-320}, "args.tau is 1e-320; expected 0, or at least 1e-12"),
        ({"method.name": "msl", "method.args.tau": 2e6}, "args.tau is 2000000.0; expected a finite number of at most "),
        ({"method.name": "msl", "method.args.denominator": "x" * 4000}, "xxx'; expected all or deciding"),
        ({"method.args.gamma": 1.0}, "config.method.args has gamma; igd takes beta"),
        ({"eval.ks": (1, 0)}, "config.eval.ks[1] is 0; expected a length of lists from 1 to 100,000"),
        ({"mesh.data": 0}, "mesh.data is 0; expected a number of devices from 1 to 1,048,576, or -1 for all"),
        ({"data.dir": ""}, "config.data.dir is not set; expected a folder that igd_jax.prepare has written"),
        ({"data.dri": ""}, "config.data.dri is unknown; configs/common.py lists all fields there are"),
    ],
)  # fmt: skip
def test_the_line_says_what_was_given_and_what_was_expected(plain, changes, message):
    assert message in _refusal(plain, changes)


def test_a_field_that_is_missing(plain):
    less = {section: dict(fields) for section, fields in plain.items()}
    del less["decode"]["top_k"]
    with pytest.raises(InputError, match=r"config.decode.top_k is missing; configs/common.py lists all fields"):
        settings_from(ConfigDict(less))
    del less["decode"]
    with pytest.raises(InputError, match=r"config.decode is missing"):
        settings_from(ConfigDict(less))
    with pytest.raises(InputError, match=r"config.decode is None; expected a section"):
        settings_from(ConfigDict(less | {"decode": None}))


def test_a_long_value_is_shown_by_its_ends():
    text = shown("a" * 500 + "z" * 500)
    assert len(text) < 200
    assert (text[:3], text[-3:]) == ("'aa", "zz'")
    assert shown("a b") == "'a b'"


# ----------------------------------------------------------------------------------------------- shipped configs, rules
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_shipped_config_passes_and_comes_back_from_json(plain, name, arguments):
    config = get_case(name, arguments)
    config.data.dir = plain["data"]["dir"]
    settings = settings_from(config)
    assert settings == settings_from(ConfigDict(config_json(config)))
    raw = _fields(config)
    for section, fields in dataclasses.asdict(settings).items():
        for field, value in fields.items():
            if (name := f"{section}.{field}") not in ("decode.top_k", "decode.candidates", "eval.ks", "tokenizer.path"):
                assert value == raw[name], name


def test_what_follows_from_other_fields(plain, tmp_path):
    def decode(**changes: Any):
        return settings_from(_changed(plain, {name.replace("__", "."): value for name, value in changes.items()}))

    assert decode(decode__num_beams=12).decode.top_k == 12
    assert decode(decode__num_beams=12, decode__top_k=11).decode.top_k == 11
    assert decode(data__candidates="warm").decode.candidates == "warm"
    assert decode(data__candidates="warm", decode__candidates="cold").decode.candidates == "cold"
    assert decode(eval__ks=[5, 1, 5]).eval.ks == (1, 5)
    assert decode().tokenizer.path == ""
    model = _model(tmp_path / "model")
    assert decode(model__path=model).tokenizer.path == model
    other = _folder(tmp_path / "other", "tokenizer.json")
    assert decode(model__path=model, tokenizer__path=other).tokenizer.path == other


def test_a_whole_number_is_a_number(plain):
    found = settings_from(_changed(plain, {"decode.alpha": 1, "decode.length_penalty": 0})).decode
    assert (type(found.alpha), found.alpha, type(found.length_penalty)) == (float, 1.0, float)
    beta = settings_from(_changed(plain, {"method.args.beta": 1})).method.args["beta"]
    assert (type(beta), beta) == (float, 1.0)


# -------------------------------------------------------------------------------------------------------- combinations
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.micro_batch_size": 24}, "config.train.global_batch_size is 128, no multiple of micro_batch_size 24"),
        ({"train.num_epochs": 0}, "config.train asks for 0 steps; raise num_epochs or num_steps"),
        ({"mesh.data": 8, "train.micro_batch_size": 4}, "config.train.micro_batch_size is 4, which 8 devices do not "),
        ({"mesh.data": 8, "decode.batch_size": 12}, "config.decode.batch_size is 12, which 8 devices do not divide; "),
        ({"eval.ks": (1, 20)}, "config.eval.ks is (1, 20), but lists have a length of 10; raise config.decode.top_k"),
        ({"decode.top_k": 4}, "config.eval.ks is (1, 3, 5, 10), but lists have a length of 4"),
        ({"decode.top_k": 20}, "config.decode.top_k is 20, but 10 beams give lists of that length; raise "),
        ({"model.config": "t5-small", "model.lora_rank": 8}, "model.lora_rank is 8, but the model of igd has no "),
        ({"model.config": "t5-pico", "model.dtype": "bfloat16"}, "model.dtype is 'bfloat16', but the model of "),
        ({"method.args.beta": 2.0}, "config.method.args.beta is 2.0; expected a weight from 0 to 1"),
    ],
)  # fmt: skip
def test_values_that_contradict_each_other(plain, changes, message):
    assert message in _refusal(plain, changes)


def test_no_epochs_where_the_number_of_steps_is_given(plain):
    assert settings_from(_changed(plain, {"train.num_epochs": 0, "train.num_steps": 5})).train.num_steps == 5


def test_a_method_that_searches_nothing_has_lists_of_any_length(plain, monkeypatch):
    changes = {"method.name": "sasrec", "decode.top_k": 50}
    monkeypatch.setattr(sasrec.METHOD, "searches", False, raising=False)
    assert settings_from(_changed(plain, changes)).decode.top_k == 50


def test_a_model_of_its_own_takes_no_fields_of_a_decoder(plain, monkeypatch):
    monkeypatch.setattr(sasrec.METHOD, "model_kind", "sasrec", raising=False)
    line = _refusal(plain, {"method.name": "sasrec", "model.remat": True})
    assert "config.model.remat is True, but the model of sasrec has no decoder" in line


# ---------------------------------------------------------------------------------------------------------------- paths
def _model(path: Path, hf: dict[str, Any] | None = None, *, tokenizer: bool = True) -> str:
    folder = _folder(path, "model.safetensors", *(["tokenizer.json"] if tokenizer else []))
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
        ("decode.candidates", "trian", "'trian', which is no file that can be read; expected catalogue, train, "),
        ("decode.candidates", "empty", "which is no file that can be read"),
        ("decode.collaborative", "popular", "which is not a folder; expected popularity, or the folder of a finished "),
        ("decode.collaborative", "empty", "which holds no collaborative.safetensors"),
    ],
)  # fmt: skip
def test_a_path_that_is_not_there(plain, tmp_path, monkeypatch, field, value, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    line = _refusal(plain, {field: value})
    assert line.startswith(f"config.{field} is '")
    assert message in line
    settings_from(_changed(plain, {field: value}), needs=TO_DECODE - {field})


def test_paths_that_are_there(plain, tmp_path):
    items = tmp_path / "items.txt"
    items.touch()
    paths = {
        "tokenizer.path": _folder(tmp_path / "tokenizer", "tokenizer.json"),
        "model.path": _model(tmp_path / "model", tokenizer=False),
        "data.candidates": str(items),
        "decode.candidates": str(items),
        "decode.collaborative": _folder(tmp_path / "sasrec", "collaborative.safetensors"),
    }
    found = dataclasses.asdict(settings_from(_changed(plain, paths)))
    assert {name: found[name.split(".")[0]][name.split(".")[1]] for name in paths} == paths


def test_training_needs_no_scores_of_another_run(plain):
    source = {"decode.collaborative": "not/yet/there"}
    settings_from(_changed(plain, source), needs=TO_TRAIN)
    assert "config.decode.collaborative is 'not/yet/there'" in _refusal(plain, source)


def test_a_folder_must_hold_the_tokenizer_too_unless_there_is_another(plain, tmp_path):
    model = _model(tmp_path / "model", tokenizer=False)
    line = _refusal(plain, {"model.path": model})
    assert line.startswith("config.model.path is ")
    assert "which holds no tokenizer.json; expected a Hugging Face folder; give one to config.tokenizer.path" in line
    settings_from(_changed(plain, {"model.path": model}), needs=TO_DECODE - {"tokenizer.path"})


@pytest.mark.parametrize(
    ("hf", "message"),
    [
        ({"model_type": "mamba"}, "of type 'mamba'; expected one of qwen2, "),
        ([], "config.json holds a list; expected an object"),
        (T5_HF | {"d_ff": 0}, "the t5 config cannot be used: d_ff is 0, expected a positive int"),
    ],
)
def test_a_folder_whose_model_is_not_understood(plain, tmp_path, hf, message):
    line = _refusal(plain, {"model.path": _model(tmp_path / "model", hf)})
    assert line.startswith(f"config.model.path is '{tmp_path / 'model'}': ")
    assert message in line


def test_the_folder_of_a_t5_is_known_by_its_config(plain, tmp_path):
    changes = {"model.path": _model(tmp_path / "t5", T5_HF)}
    assert settings_from(_changed(plain, changes)).model.path == changes["model.path"]
    line = _refusal(plain, changes | {"model.lora_rank": 8})
    assert "config.model.lora_rank is 8, but the model of igd has no decoder" in line
