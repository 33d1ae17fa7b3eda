"""Every experiment file resolves, holds only known fields, and can be read back from JSON."""

import importlib
import inspect
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import bigrec, common, igd, msl
from igd_jax.data.templates import NOUNS
from igd_jax.settings.config_flags import config_json

FILES = sorted(path.stem for path in Path(common.__file__).parent.glob("[!_]*.py"))
ARGUMENTS = {
    "bigrec": (*bigrec.GROUNDINGS, *common.BIGREC_NOUNS),
    "d3": tuple(common.D3_NOUNS),
    "igd": tuple(common.D3_NOUNS),
    "msl": ("fixed", "adaptive"),
    "setrec": ("t5",),
}
CASES = [(name, ()) for name in FILES] + [(name, (given,)) for name in ARGUMENTS for given in ARGUMENTS[name]]


def _fields(config: ConfigDict) -> set[tuple[str, str]]:
    """Every field but the arguments of the method, which are the method's own."""
    return {(section, field) for section in config for field in config[section]}


def get_case(name: str, arguments: tuple[str, ...]) -> ConfigDict:
    """The config of one of `CASES`."""
    return importlib.import_module(f"configs.{name}").get_config(*arguments)


def test_no_name_is_that_of_a_function_of_every_config():
    """`config.items` would be one, and flags could not reach the fields of such a section."""
    assert [name for pair in _fields(common.get_config()) for name in pair if hasattr(ConfigDict, name)] == []


def test_every_config_with_an_argument_is_tested_with_all_that_it_may_be():
    takes_one = {
        name for name in FILES if inspect.signature(importlib.import_module(f"configs.{name}").get_config).parameters
    }
    assert takes_one == ARGUMENTS.keys()
    for name, arguments in ARGUMENTS.items():
        with pytest.raises(ValueError, match=rf"configs/{name}.py:another is unknown; expected ") as caught:
            get_case(name, ("another",))
        assert all(given in str(caught.value) for given in arguments)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_config_has_exactly_the_known_fields(name, arguments):
    assert _fields(get_case(name, arguments)) == _fields(common.get_config())


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_config_comes_back_from_json(name, arguments):
    config = get_case(name, arguments)
    again = ConfigDict(config_json(config))
    assert config_json(again) == config_json(config)
    assert _fields(again) == _fields(config)


# ----------------------------------------------------------------------------------------------- what is published
# Values are those of the authors' papers, scripts and READMEs (docs/methods.md), written down here a second time.
TRAINER = {
    "data.max_length": 512,
    "loss.normalizer": "micro_batch",
    "train.global_batch_size": 128,
    "train.warmup_steps": 20,
    "train.schedule": "linear",
    "train.clip_norm": 1.0,
    "train.weight_decay": 0.0,
    "train.seed": 42,
}
"""What BIGRec, D3, IGD and MSL have in common, most of it defaults of the Trainer of transformers."""
ADAPTERS = {
    "model.lora_rank": 8,
    "model.lora_alpha": 16.0,
    "model.lora_targets": "q,v",
    "model.lora_dropout": 0.05,
    "train.learning_rate": 1e-4,
}
"""Those of BIGRec and MSL."""
MSL = TRAINER | ADAPTERS | {
    "data.prompt": "msl",
    "data.candidates": "catalogue",
    "train.micro_batch_size": 16,
    "train.num_epochs": 10,
    "train.patience": 0,
    "decode.num_beams": 10,
    "decode.length_penalty": 1.0,
    "decode.max_new_tokens": 128,
}  # fmt: skip
SETREC = {
    "model.lora_dropout": 0.02,
    "train.global_batch_size": 512,
    "train.schedule": "cosine",
    "train.warmup_steps": 100,
    "train.seed": 42,
    "train.eval_protocol": "users",
    "train.eval_examples": 2000,
}
PUBLISHED = {
    ("igd", "books"): TRAINER | {
        "data.prompt": "igd",
        "data.candidates": "train",
        "method.args.beta": 0.1,
        "train.micro_batch_size": 16,
        "train.learning_rate": 1e-4,
        "train.num_epochs": 3,
        "train.patience": 1,
        "decode.num_beams": 10,
        "decode.max_new_tokens": 72,
    },
    ("igd", "games"): {"method.args.beta": 0.2},
    ("igd", "toys"): {"method.args.beta": 0.5},
    ("igd", "cds"): {"method.args.beta": 0.1},
    ("d3", "books"): TRAINER | {
        "data.prompt": "d3",
        "data.candidates": "catalogue",
        "train.micro_batch_size": 4,
        "train.learning_rate": 3e-4,
        "train.num_epochs": 3,
        "train.patience": 1,
        "decode.num_beams": 10,
        "decode.length_penalty": 0.0,
        "decode.max_new_tokens": 64,
    },
    ("bigrec", "games"): TRAINER | ADAPTERS | {
        "data.prompt": "bigrec",
        "data.candidates": "catalogue",
        "method.args.prompt_loss": True,
        "method.args.beams": 4,
        "method.args.embed_by": "base",
        "method.args.grounding": "first",
        "train.micro_batch_size": 4,
        "train.num_epochs": 50,
        "train.patience": 5,
        "decode.length_penalty": 1.0,
        "decode.max_new_tokens": 128,
    },
    ("msl", "fixed,books"): MSL | {"method.args.tau": 4.5, "method.args.denominator": "all"},
    ("msl", "adaptive,books"): MSL | {
        "method.args.tau": 1.5,
        "method.args.denominator": "deciding",
        "method.args.eta": 0.25,
        "method.args.alpha": 0.05,
        "method.args.tau_min": 1.5,
        "method.args.tau_max": 5.0,
        "method.args.warm_up": 0,
    },
    ("cft",): {
        "method.args.alpha": 0.1,
        "method.args.beta": 0.25,
        "train.learning_rate": 1e-4,
        "train.num_epochs": 3,
        "train.warmup_steps": 20,
        "train.patience": 1,
    },
    ("setrec",): SETREC | {
        "method.args.n_semantic": 6,
        "method.args.alpha": 0.5,
        "method.args.beta": 0.1,
        "train.micro_batch_size": 64,
        "train.num_epochs": 20,
        "train.learning_rate": 3e-4,
        "train.eval_every_steps": 100,
        "train.patience": 5,
    },
    ("setrec", "t5"): SETREC | {
        "model.config": "t5-small",
        "method.args.n_semantic": 4,
        "method.args.alpha": 0.7,
        "train.micro_batch_size": 128,
        "train.num_epochs": 30,
        "train.learning_rate": 1e-3,
        "train.eval_every_steps": 200,
        "train.patience": 10,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", PUBLISHED, ids=":".join)
def test_an_experiment_has_the_published_settings(case):
    config, published = get_case(case[0], case[1:]), PUBLISHED[case]
    assert {field: reduce(getitem, field.split("."), config) for field in published} == published


def test_nouns_are_those_of_d3_and_igd():
    assert common.D3_NOUNS == {
        "arts": "arts products",
        "books": "books",
        "cds": "musics",
        "games": "video games",
        "instruments": "music instruments",
        "movies": "movie",
        "office": "office products",
        "pets": "pet supplies",
        "sports": "sports and outdoors",
        "steam": "games",
        "toys": "toys and games",
    }


SENTENCES = {
    "beauty": "beauty products used / beauty product / used beauty products",
    "books": "books read / book / read books",
    "cds": "CDs listened / CD / listened CDs",
    "clothing": "clothing worn / clothing / worn clothing",
    "electronics": "electronics used / electronic / used electronics",
    "food": "foods eaten / food / eaten foods",
    "games": "video games played / video game / played video games",
    "home": "home products used / home product / used home products",
    "instruments": "musical instruments played / musical instrument / played musical instruments",
    "kindle": "Kindle books read / Kindle book / read Kindle books",
    "movies": "movies watched / movie / watched movies",
    "music": "digital music listened / digital music / listened digital music",
    "office": "office products used / office product / used office products",
    "sports": "outdoor sports equipment played / outdoor sports equipment / used outdoor sports equipment",
    "steam": "games played / game / played games",
    "toys": "toys played / toy / played toys",
}
"""The words of BIGRec and MSL: what the user has done, one that is to come, what stands before the history."""


def test_nouns_and_verbs_are_those_of_bigrec_and_msl():
    assert common.BIGREC_NOUNS.keys() == SENTENCES.keys()
    assert set(common.BIGREC_NOUNS.values()) == NOUNS.keys()
    for word, noun in common.BIGREC_NOUNS.items():
        one, task_verb, verb = NOUNS[noun]
        assert f"{noun} {task_verb} / {one} / {verb} {noun}" == SENTENCES[word]


@pytest.mark.parametrize(
    ("name", "before", "nouns"),
    [
        ("igd", "", common.D3_NOUNS),
        ("d3", "", common.D3_NOUNS),
        ("bigrec", "", common.BIGREC_NOUNS),
        ("msl", "fixed,", common.BIGREC_NOUNS),
        ("msl", "adaptive,", common.BIGREC_NOUNS),
    ],
)
def test_categories_differ_in_their_noun_and_in_the_beta_of_igd_alone(name, before, nouns):
    configs = [get_case(name, (before + word,)) for word in nouns]
    assert [config.data.category for config in configs] == list(nouns.values())
    for word, config in zip(nouns, configs, strict=True):
        config.data.category = ""
        if name == "igd":
            assert word in igd.BETAS or config.method.args.beta == 0.1
            config.method.args.beta = 0.0
        assert config_json(config) == config_json(configs[0])


def test_a_word_that_is_no_category_of_the_authors():
    with pytest.raises(ValueError, match=r"msl.py:fixed,pets is unknown; expected one of books, games"):
        msl.get_config("fixed,pets")


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"igd.py:book is unknown; expected one of books, games, toys, cds"):
        igd.get_config("book")
