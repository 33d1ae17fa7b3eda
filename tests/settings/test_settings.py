"""Every field of a config, with every kind of value that cannot be meant: one clear line, or a reason to take it."""

import dataclasses
import math
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import tiny_run
from configs_by_hand import changed, defaults, fields_of, refusal
from ml_collections import ConfigDict
from test_configs import CASES, get_case

from configs import common
from igd_jax.core.errors import InputError
from igd_jax.settings.settings import Settings, settings_from

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
    "model.config": {"empty": "that of the run, or by the device"},
    "model.dropout": {"zero": "no dropout", "negative": "-1 is that of the model"},
    "model.dtype": {},
    "model.param_dtype": {},
    "model.lora_rank": {"zero": "all weights are tuned"},
    "model.lora_alpha": {},
    "model.lora_targets": {},
    "model.lora_dropout": {"zero": "none", "tiny": "none, as float32 has it"},
    "model.quantize": {"empty": "as they are"},
    "model.remat": {},
    "model.attention": {},
    "method.name": {},
    "method.args": {},
    "loss.normalizer": {},
    "train.packing": {},
    "train.pack_length": {"zero": "the cheapest: those of the longest row, or 256 to 1,024"},
    "train.shuffle": {},
    "train.global_batch_size": {},
    "train.micro_batch_size": {},
    "train.learning_rate": {"zero": "nothing is changed, as a control"},
    "train.num_epochs": {},
    "train.num_steps": {"zero": "by num_epochs"},
    "train.warmup_steps": {"zero": "no warm-up"},
    "train.schedule": {},
    "train.clip_norm": {},
    "train.weight_decay": {"zero": "no decay", "tiny": "no decay, as float32 has it"},
    "train.bfloat16": {},
    "train.seed": {"zero": "a seed", "2**31": "a seed"},
    "train.patience": {"zero": "never stops early"},
    "train.eval_every_steps": {"zero": "once per epoch"},
    "train.eval_protocol": {},
    "train.eval_examples": {"zero": "all rows"},
    "train.checkpoint_every_steps": {},
    "train.log_every_steps": {},
    "train.show_sample": {},
    "train.wandb": {"empty": "none"},
    "decode.alpha": {"zero": "plain beam search", "tiny": "plain beam search, as float32 has it"},
    "decode.length_penalty": {"zero": "sums", "tiny": "sums, as float32 has it", "negative": "longer titles lose"},
    "decode.temperature": {},
    "decode.normalize": {},
    "decode.search": {},
    "decode.num_beams": {},
    "decode.top_k": {"zero": "num_beams"},
    "decode.max_new_tokens": {"zero": "the longest candidate"},
    "decode.candidates": {"empty": "those of data.candidates"},
    "decode.allowed": {"empty": "no file"},
    "decode.exclude_history": {},
    "decode.collaborative": {"empty": "no source"},
    "decode.batch_size": {},
    "decode.budget": {"zero": "no more than needed", "negative": "by batch and device"},
    "eval.split": {},
    "eval.protocol": {},
    "eval.max_examples": {"zero": "all rows"},
    "eval.ks": {},
    "mesh.data": {"negative": "-1 is as many as there are devices for"},
    "mesh.fsdp": {},
    "mesh.tensor": {},
}
"""For each field, the probes that are not refused, and what they mean."""

TEXT_OF_A_PATH = {"empty": "none"}
SHARE = {"zero": "none"}
MEANT_BY_METHODS: dict[str, dict[str, dict[str, str]]] = {
    "bigrec": {
        "beams": {},
        "embed_by": {},
        "grounding": {},
        "min_new_tokens": {"zero": "no minimum"},
        "prompt_loss": {},
        "statistic": TEXT_OF_A_PATH,
        "gamma": SHARE,
        "embeddings": TEXT_OF_A_PATH,
    },
    "cft": {"alpha": SHARE, "beta": SHARE, "gain_beta": SHARE, "stop_gradient": {}},
    "d3": {"lam": SHARE},
    "igd": {"beta": SHARE, "weights": {}, "entropy": {}},
    "msl": {
        **{name: {} for name in ("tau", "adaptive", "denominator", "eta", "alpha", "tau_min", "tau_max")},
        "warm_up": {"zero": "no warm-up"},
    },
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
        **{name: {} for name in ("collaborative_token", "attention", "trained_queries")},
    },
    "sft": {"prompt_loss": {}},
}
"""The same for the arguments of each method, with the others as its config has them."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, Any]:
    return defaults(tmp_path_factory.mktemp("settings"))


# ---------------------------------------------------------------------------------------------------------- every field
DEFAULTS = fields_of(common.get_config())
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
        settings_from(changed(plain, changes))
    else:
        assert f"config.{field}" in refusal(plain, changes)


@pytest.mark.parametrize(("method", "name", "probe"), ARGUMENT_PROBES)
def test_an_argument_with_a_value_that_cannot_be_meant(plain, method, name, probe):
    config = METHOD_CONFIGS[method].to_dict()
    config["data"]["dir"] = plain["data"]["dir"]
    changes = {f"method.args.{name}": PROBES[type(config["method"]["args"][name])][probe]}
    if probe in MEANT_BY_METHODS[method][name]:
        settings_from(changed(config, changes))
    else:
        assert "config.method.args." in (line := refusal(config, changes))
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
        ({"model.remat": True}, "config.model.remat is True; expected one of none, dots, full"),
        ({"model.attention": "splash"}, "config.model.attention is 'splash'; expected one of xla, cudnn"),
        ({"model.lora_targets": "q,q"}, "expected some of q,k,v,o,gate,up,down, each once, separated by commas"),
        ({"method.name": "idg"}, "config.method.name is 'idg'; known methods are bigrec, "),
        ({"method.name": "msl", "method.args.tau": 1e-320}, "args.tau is 1e-320; expected 0, or at least 1e-12"),
        ({"method.name": "msl", "method.args.tau": 2e6}, "args.tau is 2000000.0; expected a finite number of at most "),
        ({"method.name": "msl", "method.args.tau": math.nan}, "args.tau is nan; expected a finite number of at most "),
        ({"method.name": "msl", "method.args.denominator": "x" * 4000}, "xxx'; expected all or deciding"),
        ({"method.name": "setrec", "method.args.features": "s3://b/f"}, "args.features is 's3://b/f', which is a URL"),
        ({"method.args.gamma": 1.0}, "config.method.args has gamma; igd takes beta, weights, entropy"),
        ({"eval.ks": (1, 0)}, "config.eval.ks[1] is 0; expected a length of lists from 1 to 100,000"),
        ({"mesh.data": 0}, "mesh.data is 0; expected a number of copies from 1 to 1,048,576, or -1 for as many as"),
        ({"data.dir": ""}, "config.data.dir is not set; expected a folder that igd_jax.prepare has written"),
        ({"data.dri": ""}, "config.data.dri is unknown; --help_config lists all there are"),
    ],
)  # fmt: skip
def test_the_line_says_what_was_given_and_what_was_expected(plain, changes, message):
    assert message in refusal(plain, changes)


def test_a_field_that_is_missing(plain):
    less = {section: dict(fields) for section, fields in plain.items()}
    del less["decode"]["top_k"]
    with pytest.raises(InputError, match=r"config.decode.top_k is missing; --help_config lists all there are"):
        settings_from(ConfigDict(less))
    del less["decode"]
    with pytest.raises(InputError, match=r"config.decode is missing"):
        settings_from(ConfigDict(less))
    with pytest.raises(InputError, match=r"config.decode is None; expected a section"):
        settings_from(ConfigDict(less | {"decode": None}))


def test_a_model_that_is_not_needed_may_be_of_any_kind(plain, tmp_path):
    """As of a T5, whose decodings `evaluate --choose` checks before it reads its folder."""
    changes = {"model.path": str(tmp_path), "model.dropout": 0.1, "train.packing": "auto"}
    settings_from(changed(plain, changes), needs=())
    setrec = {"method.name": "setrec", "method.args": {"attention": "published"}, "decode.alpha": 0.0}
    settings_from(changed(plain, changes | setrec), needs=())
    with pytest.raises(InputError, match="is no T5"):
        settings_from(changed(plain, {"model.path": "", "model.config": "pico", "model.dropout": 0.1}), needs=())


def test_folders_by_url_are_read_from_copies(tiny):
    config = tiny_run.tiny_config(tiny)
    config.data.dir, config.model.path = f"file://{tiny / 'data'}", f"file://{tiny / 'model'}"
    settings = settings_from(config)
    assert (Path(settings.data.dir) / "meta.json").read_bytes() == (tiny / "data" / "meta.json").read_bytes()
    assert settings.tokenizer.path == settings.model.path != str(tiny / "model")
    assert config.data.dir.startswith("file://")
    assert settings_from(config, needs=()).data.dir == config.data.dir
